// Says which paths fit which patterns, as the path-to-regexp of the installed Express does: [[pattern, path], …] in, [true, …] out.
const toRegexp = require(require.resolve('path-to-regexp', { paths: [process.argv[2]] }))
const made = new Map()
const fits = ([pattern, path]) => {
  if (!made.has(pattern)) made.set(pattern, toRegexp(pattern, [], { sensitive: false, strict: false, end: true }))
  return made.get(pattern).test(path)
}
process.stdout.write(JSON.stringify(JSON.parse(require('fs').readFileSync(0)).map(fits)))
