// Settings of a Node-RED replica in the tests: loopback only, no login, everything else from the environment.
const crypto = require('crypto')

// PUT /stream/upload takes a body of any size as it arrives, without holding it, and answers with its digest.
function receiveStream (request, response, next) {
  if (request.method !== 'PUT' || request.path !== '/stream/upload') return next()
  const hash = crypto.createHash('sha256')
  let size = 0
  request.on('data', (piece) => { size += piece.length; hash.update(piece) })
  request.on('end', () => {
    response.set('X-Replica', process.env.REPLICA)
    response.json({ replica: process.env.REPLICA, size, sha256: hash.digest('hex') })
  })
}

module.exports = {
  uiHost: '127.0.0.1',
  uiPort: Number(process.env.NR_PORT),
  flowFile: 'flows.json',
  credentialSecret: false,
  telemetry: { enabled: false },
  runtimeState: { enabled: true, ui: false },
  editorTheme: { tours: false, palette: { catalogues: [] } }, // nothing from outside this machine
  functionGlobalContext: { crypto },
  httpStatic: [{ path: process.env.NR_STATIC, root: '/static/' }],
  httpNodeMiddleware: receiveStream,
  logging: { console: { level: 'info', metrics: false, audit: false } }
}
