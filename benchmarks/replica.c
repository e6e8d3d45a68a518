/* Replicas that cost little: one process, one port each, answering HTTP/1.1 by path, from memory.
 *
 *   /small        a JSON answer with 10 fields          /size/N     N octets
 *   /chunked/N/S  N chunks of S octets                  /accepted   how many connections were accepted so far
 *   /head         the request's own head
 * Every other path is answered like /small. A request body is read and thrown away (Content-Length only). A request with
 * Sec-WebSocket-Key is answered 101 on any path; frames are then echoed (RFC 6455).
 *
 * usage: replica PORT [PORT ...]      (on 127.0.0.1)
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { MAX_FD = 65536, HEAD = 32768, BODY = 8 << 20, MAX_EVENTS = 256 };

struct connection {
    char head[HEAD];
    size_t held;         /* octets of a head */
    long long to_skip;   /* of a request body */
    char *answer;        /* what is still to be sent */
    size_t size, sent;
    int owned;           /* `answer` is freed when it was sent */
    int tunnel;          /* after a 101: `head` holds what has come of a frame */
};

static struct connection *connections[MAX_FD];
static char listens[MAX_FD]; /* by file descriptor */
static char body[BODY], sink[262144];
static int epoll_fd;
static long accepted;

static const char SMALL[] =
    "HTTP/1.1 200 OK\r\nX-Powered-By: Express\r\nAccess-Control-Allow-Origin: *\r\n"
    "Content-Type: application/json; charset=utf-8\r\nContent-Length: 57\r\n"
    "ETag: W/\"39-m8cHu9gZyqcT3F0i8aFzqv2Y2gU\"\r\nVary: Accept-Encoding\r\nCache-Control: no-cache\r\n"
    "Date: Sun, 22 Nov 2026 12:00:00 GMT\r\nConnection: keep-alive\r\nKeep-Alive: timeout=5\r\n\r\n"
    "{\"status\":\"ok\",\"value\":42,\"items\":[1,2,3,4,5,6,7,8,9,10]}";

static void fail(const char *what) { perror(what); exit(1); }

static void watch(int op, int fd, unsigned events) {
    struct epoll_event event = {.events = events, .data.fd = fd};
    epoll_ctl(epoll_fd, op, fd, &event);
}

static void drop(int fd) {
    struct connection *c = connections[fd];
    if (c->owned) free(c->answer);
    free(c);
    connections[fd] = NULL;
    close(fd);
}

/* Send what is left; 0 while the other side takes no more, -1 if the connection is gone. */
static int push(int fd) {
    struct connection *c = connections[fd];
    while (c->sent < c->size) {
        ssize_t put = send(fd, c->answer + c->sent, c->size - c->sent, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (put < 0 && errno == EAGAIN) return 0;
        if (put < 0) { drop(fd); return -1; }
        c->sent += put;
    }
    if (c->owned) free(c->answer);
    c->owned = 0;
    c->answer = NULL;
    c->size = c->sent = 0;
    return 1;
}

static uint32_t rotate(uint32_t value, int bits) { return value << bits | value >> (32 - bits); }

/* SHA-1 (FIPS 180-4) of fewer than 120 octets: two blocks are enough for a key and the GUID of RFC 6455. */
static void hash(const char *text, size_t size, unsigned char digest[20]) {
    uint32_t h[5] = {0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476, 0xc3d2e1f0}, w[80];
    unsigned char padded[128] = {0};
    size_t blocks = size < 56 ? 1 : 2;
    memcpy(padded, text, size);
    padded[size] = 0x80;
    padded[blocks * 64 - 2] = size * 8 >> 8;
    padded[blocks * 64 - 1] = size * 8;
    for (size_t block = 0; block < blocks; block++) {
        const unsigned char *at = padded + block * 64;
        for (int i = 0; i < 16; i++)
            w[i] = (uint32_t)at[4 * i] << 24 | at[4 * i + 1] << 16 | at[4 * i + 2] << 8 | at[4 * i + 3];
        for (int i = 16; i < 80; i++) w[i] = rotate(w[i - 3] ^ w[i - 8] ^ w[i - 14] ^ w[i - 16], 1);
        uint32_t a = h[0], b = h[1], c = h[2], d = h[3], e = h[4];
        for (int i = 0; i < 80; i++) {
            uint32_t f = i < 20 ? (b & c) | (~b & d) : i < 40 ? b ^ c ^ d : i < 60 ? (b & c) | (b & d) | (c & d) : b ^ c ^ d;
            uint32_t k = i < 20 ? 0x5a827999 : i < 40 ? 0x6ed9eba1 : i < 60 ? 0x8f1bbcdc : 0xca62c1d6;
            uint32_t next = rotate(a, 5) + f + e + k + w[i];
            e = d; d = c; c = rotate(b, 30); b = a; a = next;
        }
        h[0] += a; h[1] += b; h[2] += c; h[3] += d; h[4] += e;
    }
    for (int i = 0; i < 20; i++) digest[i] = h[i / 4] >> (24 - 8 * (i % 4));
}

/* Base64 (RFC 4648) of 20 octets, the size of a SHA-1 digest. */
static void encode(const unsigned char digest[20], char text[29]) {
    static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (int i = 0; i < 28; i++) {
        int bit = i * 6, pair = digest[bit / 8] << 8 | (bit / 8 < 19 ? digest[bit / 8 + 1] : 0);
        text[i] = letters[pair >> (10 - bit % 8) & 63];
    }
    text[27] = '=';
    text[28] = 0;
}

/* The answer to an upgrade (RFC 6455 section 4.2.2). `key` is what follows the field's name. */
static void upgrade(struct connection *c, const char *key) {
    char joined[120], accept[29];
    unsigned char digest[20];
    key += strspn(key, " ");
    int size = snprintf(joined, 110, "%.*s258EAFA5-E914-47DA-95CA-C5AB0DC85B11", (int)strcspn(key, " \r"), key);
    hash(joined, size < 110 ? size : 109, digest);
    encode(digest, accept);
    c->answer = malloc(256);
    c->owned = 1;
    c->size = sprintf(c->answer, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                      "Sec-WebSocket-Accept: %s\r\n\r\n", accept);
    c->tunnel = 1;
}

/* Take one complete frame from the front of `head` and append what answers it to `out`. Octets that were added; -1 while the
 * frame is incomplete, -2 if the client closes or breaks the protocol. */
static ssize_t take_frame(struct connection *c, char *out) {
    unsigned char *at = (unsigned char *)c->head;
    if (c->held < 2) return -1;
    size_t size = at[1] & 127, before = size == 126 ? 8 : 6;
    if (!(at[1] & 128) || size == 127) return -2; /* a client masks; longer messages are not sent here */
    if (c->held < before) return -1;
    if (size == 126) size = at[2] << 8 | at[3];
    if (before + size > HEAD - 1 || (at[0] & 15) == 8) return -2;
    if (c->held < before + size) return -1;
    size_t put = before - 4;
    memcpy(out, at, put);
    out[0] = (at[0] & 15) == 9 ? (char)0x8a : at[0]; /* a ping gets its pong, all else an echo */
    out[1] &= 127;
    for (size_t i = 0; i < size; i++) out[put + i] = at[before + i] ^ at[before - 4 + i % 4];
    c->held -= before + size;
    memmove(c->head, at + before + size, c->held);
    return put + size;
}

/* What has come in a tunnel is answered in one piece. An echo that the client does not take ends the connection. */
static void echo(int fd) {
    struct connection *c = connections[fd];
    ssize_t got = recv(fd, c->head + c->held, HEAD - 1 - c->held, MSG_DONTWAIT), added;
    if (got < 0 && errno == EAGAIN) return;
    if (got <= 0) { drop(fd); return; }
    c->held += got;
    size_t size = 0; /* an answer is shorter than its frame, so all of them fit */
    while ((added = take_frame(c, sink + size)) >= 0) size += added;
    if (added == -2 || send(fd, sink, size, MSG_DONTWAIT | MSG_NOSIGNAL) != (ssize_t)size) drop(fd);
}

static void answer(struct connection *c, const char *path) {
    size_t count, size;
    if (sscanf(path, "/size/%zu", &size) == 1 && size <= BODY) {
        c->answer = malloc(size + 256);
        int head = sprintf(c->answer, "HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\n"
                           "Content-Length: %zu\r\nKeep-Alive: timeout=5\r\n\r\n", size);
        memcpy(c->answer + head, body, size);
        c->size = head + size;
        c->owned = 1;
    } else if (sscanf(path, "/chunked/%zu/%zu", &count, &size) == 2 && count * size <= BODY) {
        char *at = c->answer = malloc(count * (size + 16) + 256);
        at += sprintf(at, "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n"
                      "Keep-Alive: timeout=5\r\n\r\n");
        for (size_t i = 0; i < count; i++) {
            at += sprintf(at, "%zx\r\n", size);
            memcpy(at, body, size);
            at += size;
            at += sprintf(at, "\r\n");
        }
        at += sprintf(at, "0\r\n\r\n");
        c->size = at - c->answer;
        c->owned = 1;
    } else if (strncmp(path, "/accepted", 9) == 0) {
        c->answer = malloc(128);
        c->size = sprintf(c->answer, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n%10ld", accepted);
        c->owned = 1;
    } else if (strncmp(path, "/head", 5) == 0) {
        c->answer = malloc(HEAD + 128);
        c->size = sprintf(c->answer, "HTTP/1.1 200 OK\r\nContent-Length: %zu\r\n\r\n%s", strlen(c->head), c->head);
        c->owned = 1;
    } else {
        c->answer = (char *)SMALL;
        c->size = sizeof SMALL - 1;
    }
}

static void serve(int fd) {
    struct connection *c = connections[fd];
    if (c->to_skip > 0) {
        ssize_t got = recv(fd, sink, sizeof sink, MSG_DONTWAIT);
        if (got < 0 && errno == EAGAIN) return;
        if (got <= 0) { drop(fd); return; }
        c->to_skip -= got; /* the next request comes only after the answer */
        if (c->to_skip <= 0 && push(fd) == 0) watch(EPOLL_CTL_MOD, fd, EPOLLOUT);
        return;
    }
    ssize_t got = recv(fd, c->head + c->held, HEAD - 1 - c->held, MSG_DONTWAIT);
    if (got < 0 && errno == EAGAIN) return;
    if (got <= 0) { drop(fd); return; }
    c->held += got;
    c->head[c->held] = 0;
    char *end = memmem(c->head, c->held, "\r\n\r\n", 4);
    if (!end) return;
    char *space = memchr(c->head, ' ', c->held);
    end[2] = 0;
    char *key = strcasestr(c->head, "\r\nsec-websocket-key:");
    if (key) {
        upgrade(c, key + 20);
        c->held = 0;
        if (push(fd) == 0) drop(fd);
        return;
    }
    answer(c, space ? space + 1 : "/");
    char *field = strcasestr(c->head, "\r\ncontent-length:");
    long long length = field ? atoll(field + 17) : 0;
    c->to_skip = length - (long long)(c->held - (end + 4 - c->head));
    c->held = 0;
    if (c->to_skip <= 0 && push(fd) == 0) watch(EPOLL_CTL_MOD, fd, EPOLLOUT);
}

static void open_port(int port) {
    int on = 1;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (listener < 0 || listener >= MAX_FD) fail("socket");
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(listener, (void *)&address, sizeof address) < 0) fail("bind");
    if (listen(listener, 4096) < 0) fail("listen");
    listens[listener] = 1;
    watch(EPOLL_CTL_ADD, listener, EPOLLIN);
}

static void enter(int listener) {
    int on = 1, client = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
    if (client < 0) return;
    if (client >= MAX_FD) { close(client); return; }
    setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    connections[client] = calloc(1, sizeof(struct connection));
    accepted++;
    watch(EPOLL_CTL_ADD, client, EPOLLIN);
}

int main(int argc, char **argv) {
    struct epoll_event events[MAX_EVENTS];
    if (argc < 2) { fprintf(stderr, "usage: replica PORT [PORT ...]\n"); return 2; }
    for (size_t i = 0; i < sizeof body; i++) body[i] = 'a' + i % 26;
    epoll_fd = epoll_create1(0);
    for (int i = 1; i < argc; i++) open_port(atoi(argv[i]));
    for (;;) {
        int count = epoll_wait(epoll_fd, events, MAX_EVENTS, -1);
        for (int i = 0; i < count; i++) {
            int fd = events[i].data.fd;
            if (listens[fd]) enter(fd);
            else if (!connections[fd]) continue;
            else if (events[i].events & EPOLLOUT) {
                if (push(fd) == 1) watch(EPOLL_CTL_MOD, fd, EPOLLIN);
            } else if (connections[fd]->tunnel) echo(fd);
            else serve(fd);
        }
    }
}
