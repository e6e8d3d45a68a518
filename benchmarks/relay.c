/* The floor: a relay that reads, writes, reads, writes and does nothing else.
 *
 * One process, one epoll. Each client connection gets one connection to a replica, in turn; whatever comes on one side is
 * written to the other as it is. No HTTP is looked at. What a proxy for plain sockets cannot do without is what this costs.
 *
 * usage: relay LISTEN_PORT REPLICA_PORT [REPLICA_PORT ...]      (all on 127.0.0.1)
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

enum { MAX_FD = 65536, BUFFER = 262144, MAX_EVENTS = 256 };

struct side {
    int other;      /* file descriptor of the other side, -1 if this one is not in use */
    char *rest;     /* what the other side has sent and this one could not take yet */
    size_t size, sent;
};

static struct side sides[MAX_FD];
static char buffer[BUFFER];
static int epoll_fd;

static void fail(const char *what) { perror(what); exit(1); }

static void watch(int op, int fd, unsigned events) {
    struct epoll_event event = {.events = events, .data.fd = fd};
    if (epoll_ctl(epoll_fd, op, fd, &event) < 0 && op != EPOLL_CTL_DEL) fail("epoll_ctl");
}

static void drop(int fd) {
    int other = sides[fd].other;
    for (int i = 0; i < 2; i++, fd = other) {
        if (fd < 0 || sides[fd].other < 0) continue;
        free(sides[fd].rest);
        sides[fd] = (struct side){.other = -1};
        close(fd);
    }
}

static struct sockaddr_in loopback(int port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return address;
}

static void enter(int listener, int replica_port) {
    int on = 1, client = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
    if (client < 0) return;
    struct sockaddr_in address = loopback(replica_port);
    int replica = socket(AF_INET, SOCK_STREAM, 0);
    if (replica < 0 || replica >= MAX_FD || client >= MAX_FD || connect(replica, (void *)&address, sizeof address) < 0) {
        close(client);
        if (replica >= 0) close(replica);
        return;
    }
    setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    setsockopt(replica, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    sides[client] = (struct side){.other = replica};
    sides[replica] = (struct side){.other = client};
    watch(EPOLL_CTL_ADD, client, EPOLLIN);
    watch(EPOLL_CTL_ADD, replica, EPOLLIN);
}

/* Pass on what has come on fd; stop reading from it while the other side takes no more. */
static void relay(int fd) {
    int other = sides[fd].other;
    ssize_t got = recv(fd, buffer, sizeof buffer, MSG_DONTWAIT);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (got <= 0) { drop(fd); return; }
    ssize_t put = send(other, buffer, got, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (put < 0 && errno != EAGAIN) { drop(fd); return; }
    if (put < 0) put = 0;
    if (put == got) return;
    struct side *to = &sides[other];
    to->size = got - put;
    to->sent = 0;
    to->rest = malloc(to->size);
    if (!to->rest) { drop(fd); return; }
    memcpy(to->rest, buffer + put, to->size);
    watch(EPOLL_CTL_MOD, fd, 0);
    watch(EPOLL_CTL_MOD, other, EPOLLIN | EPOLLOUT);
}

static void flush(int fd) {
    struct side *to = &sides[fd];
    ssize_t put = send(fd, to->rest + to->sent, to->size - to->sent, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (put < 0 && errno != EAGAIN) { drop(fd); return; }
    if (put > 0) to->sent += put;
    if (to->sent < to->size) return;
    free(to->rest);
    to->rest = NULL;
    watch(EPOLL_CTL_MOD, fd, EPOLLIN);
    watch(EPOLL_CTL_MOD, to->other, EPOLLIN);
}

int main(int argc, char **argv) {
    struct epoll_event events[MAX_EVENTS];
    int on = 1, turn = 0;
    if (argc < 3) { fprintf(stderr, "usage: relay LISTEN_PORT REPLICA_PORT [REPLICA_PORT ...]\n"); return 2; }
    for (int i = 0; i < MAX_FD; i++) sides[i].other = -1;
    struct sockaddr_in address = loopback(atoi(argv[1]));
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (listener < 0) fail("socket");
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(listener, (void *)&address, sizeof address) < 0) fail("bind");
    if (listen(listener, 4096) < 0) fail("listen");
    epoll_fd = epoll_create1(0);
    if (epoll_fd < 0) fail("epoll_create1");
    watch(EPOLL_CTL_ADD, listener, EPOLLIN);
    for (;;) {
        int count = epoll_wait(epoll_fd, events, MAX_EVENTS, -1);
        for (int i = 0; i < count; i++) {
            int fd = events[i].data.fd;
            if (fd == listener) enter(listener, atoi(argv[2 + turn++ % (argc - 2)]));
            else if (sides[fd].other < 0) continue;
            else if (events[i].events & EPOLLOUT && sides[fd].rest) flush(fd);
            else if (events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) relay(fd);
        }
    }
}
