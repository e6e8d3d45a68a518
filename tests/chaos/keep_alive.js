// Node's own HTTP server, which closes kept connections by its own timer: `node keep_alive.js PORT MILLISECONDS HINT`.
// With HINT "hidden" its answers do not say how long it keeps a connection; a proxy that sets the field itself does the same.
const [port, milliseconds, hint] = process.argv.slice(2);
const server = require("node:http").createServer((request, answer) => {
  request.resume();
  request.on("end", () => {
    if (hint === "hidden") answer.setHeader("Connection", "keep-alive");
    answer.setHeader("Content-Length", "2");
    answer.end("ok");
  });
});
server.keepAliveTimeout = Number(milliseconds);
server.listen({ port: Number(port), host: "127.0.0.1", backlog: 4096 }, () => console.log("listening"));
process.stdin.on("end", () => process.exit(0)).resume();
