'use strict'
// Reads targets, one a line, and writes for each what every parser finds: one line of JSON of [name, path] where a parser finds
// another path than the octets before the first `?`, or throws (path null).
const readline = require('node:readline')
const { parse } = require('node:url')
const parsers = {
  'url.parse': target => parse(target).pathname,
  'new URL': target => {
    const url = new URL(target, 'http://localhost')
    return url.host === 'localhost' && url.username === '' ? url.pathname : null
  }
}
for (const folder of process.argv.slice(2)) {
  const parseurl = require(folder)
  parsers[folder.includes('/v4/') ? 'parseurl v4' : 'parseurl v5'] = target => parseurl({ url: target }).pathname
}
const names = Object.keys(parsers)
process.emitWarning = () => {} // url.parse is deprecated, which is why it is here
let lines = []
readline.createInterface({ input: process.stdin, crlfDelay: Infinity }).on('line', target => {
  const path = target.split('?', 1)[0]
  const others = []
  for (const name of names) {
    let found = null
    try { found = parsers[name](target) } catch {}
    if (found !== path) others.push([name, found])
  }
  lines.push(others.length ? JSON.stringify(others) : '')
  if (lines.length === 1000) {
    process.stdout.write(lines.join('\n') + '\n')
    lines = []
  }
}).on('close', () => process.stdout.write(lines.map(line => line + '\n').join('')))
