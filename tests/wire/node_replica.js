// A replica that records what Node's own parser makes of each request, and tells it as JSON on /recorded.
"use strict";
const http = require("node:http");
const seen = [];
const errors = [];
const server = http.createServer((request, response) => {
    if (request.url === "/recorded") {
        const body = JSON.stringify({ seen: seen.splice(0), errors: errors.splice(0) });
        response.end(body);
        return;
    }
    const parts = [];
    request.on("data", (part) => parts.push(part));
    request.on("end", () => {
        const body = Buffer.concat(parts).toString("latin1");
        seen.push([request.headers["x-request-id"], request.method, request.url, body]);
        response.setHeader("X-Body-Size", body.length);
        response.end();
    });
});
server.on("clientError", (error, socket) => {
    // A request that the proxy aborted because its client did ends within its body.
    if (error.code !== "ECONNRESET" && error.code !== "HPE_INVALID_EOF_STATE")
        errors.push([error.code, String(error.rawPacket)]);
    socket.destroy();
});
server.listen(0, "127.0.0.1", () => console.log(server.address().port));
