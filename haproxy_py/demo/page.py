"""The page that a person opens in the demo: every kind of traffic, and which replica answered."""

PAGE = """\
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>haproxy_py demo</title>
<link rel="icon" href="data:,">
<style>
  body { font: 16px/1.5 system-ui, sans-serif; max-width: 46rem; margin: 2rem auto; padding: 0 1rem; }
  button, input { font: inherit; padding: .2rem .7rem; }
  output { display: block; font: 14px/1.6 ui-monospace, monospace; background: #8881; padding: .3rem .6rem;
    margin: .4rem 0 1.2rem; min-height: 1.6em; white-space: pre-wrap; }
  h2 { font-size: 1.1rem; margin: 0; }
</style>
<h1>haproxy_py demo</h1>
<p>This page came through the proxy, from one of two replicas of the same flows.</p>
<h2>HTTP: each request goes to the next replica</h2>
<button id="ask">Ask 10 times</button> <output id="asked"></output>
<h2>Server-sent events: one replica, each event at once</h2>
<output id="events"></output>
<h2>WebSocket: stays on its replica</h2>
<form id="say"><input id="text" value="hello" aria-label="text to send"> <button>Send</button></form>
<output id="echo"></output>
<h2>The editor: refused in HA mode</h2>
<button id="flows">GET /flows</button> <a href="/">open the editor</a> <output id="refused"></output>
<script>
  const show = (name, text) => { document.getElementById(name).textContent = text }
  document.getElementById('ask').onclick = async () => {
    const counts = {}
    for (let n = 0; n < 10; n++) {
      const { replica } = await (await fetch('api/hello', { cache: 'no-store' })).json()
      counts[replica] = (counts[replica] || 0) + 1
    }
    show('asked', Object.entries(counts).sort().map(([replica, count]) => `${replica}: ${count}`).join('   '))
  }
  new EventSource('events').onmessage = (event) => show('events', event.data)
  let socket = null
  const connect = () => {
    socket = new WebSocket(new URL('ws/echo', location.href).href.replace(/^http/, 'ws'))
    socket.onopen = () => show('echo', 'connected')
    socket.onmessage = (event) => show('echo', `it came back: ${event.data}`)
    socket.onclose = () => { show('echo', 'connection lost; trying again'); setTimeout(connect, 1000) }
  }
  connect()
  document.getElementById('say').onsubmit = (event) => {
    event.preventDefault()
    if (socket.readyState === WebSocket.OPEN) socket.send(document.getElementById('text').value)
  }
  document.getElementById('flows').onclick = async () => {
    const answer = await fetch('flows', { headers: { Accept: 'application/json' } })
    show('refused', `${answer.status}\\n${await answer.text()}`)
  }
</script>
</html>
"""
