/* A replica that costs little: answers HTTP/1.1 by path, from memory.
 *
 *   /small        a JSON answer with 10 fields          /size/N     N octets
 *   /chunked/N/S  N chunks of S octets
 * Every other path is answered like /small. A request body is read and thrown away (Content-Length only).
 *
 * usage: replica PORT      (on 127.0.0.1)
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
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
};

static struct connection *connections[MAX_FD];
static char body[BODY], sink[262144];
static int epoll_fd;

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
    answer(c, space ? space + 1 : "/");
    end[2] = 0;
    char *field = strcasestr(c->head, "\r\ncontent-length:");
    long long length = field ? atoll(field + 17) : 0;
    c->to_skip = length - (long long)(c->held - (end + 4 - c->head));
    c->held = 0;
    if (c->to_skip <= 0 && push(fd) == 0) watch(EPOLL_CTL_MOD, fd, EPOLLOUT);
}

int main(int argc, char **argv) {
    struct epoll_event events[MAX_EVENTS];
    int on = 1;
    if (argc != 2) { fprintf(stderr, "usage: replica PORT\n"); return 2; }
    for (size_t i = 0; i < sizeof body; i++) body[i] = 'a' + i % 26;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[1]))};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(listener, (void *)&address, sizeof address) < 0) fail("bind");
    if (listen(listener, 4096) < 0) fail("listen");
    epoll_fd = epoll_create1(0);
    watch(EPOLL_CTL_ADD, listener, EPOLLIN);
    for (;;) {
        int count = epoll_wait(epoll_fd, events, MAX_EVENTS, -1);
        for (int i = 0; i < count; i++) {
            int fd = events[i].data.fd;
            if (fd == listener) {
                int client = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
                if (client < 0) continue;
                if (client >= MAX_FD) { close(client); continue; }
                setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
                connections[client] = calloc(1, sizeof(struct connection));
                watch(EPOLL_CTL_ADD, client, EPOLLIN);
            } else if (!connections[fd]) continue;
            else if (events[i].events & EPOLLOUT) {
                if (push(fd) == 1) watch(EPOLL_CTL_MOD, fd, EPOLLIN);
            } else serve(fd);
        }
    }
}
