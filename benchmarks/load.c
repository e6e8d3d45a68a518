/* The load that wrk cannot make: a fixed rate, a few active connections among many, WebSocket echo, idle connections.
 *
 * One thread, one epoll. REQUEST is a file with one request, sent as it is; with `websocket` it is the request to upgrade, and
 * what is repeated afterwards is a masked text frame of 64 octets, which must come back unmasked.
 *
 *   load closed http|websocket PORT REQUEST CONNECTIONS SECONDS ACTIVE
 *       ACTIVE requests are under way at any time; the connection that has rested longest gets the next one.
 *   load rate http|websocket PORT REQUEST CONNECTIONS SECONDS RATE
 *       RATE requests per second fall due evenly, whether or not the ones before were answered. A latency begins when its
 *       request fell due, not when it could be sent, so a stall counts for all who would have met it ("coordinated omission").
 *   load hold http|websocket PORT REQUEST CONNECTIONS SECONDS ACTIVE
 *       Every connection has one exchange (within SECONDS), then rests until standard input ends; prints HELD.
 *
 * Prints: RESULT answered microseconds wrong errors p50 p99 p99.9      (latencies in microseconds, within 1 %)
 * `wrong` are answers that are not 2xx or not the echo; `errors` are connections that broke and requests left unanswered.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { MAX_REQUEST = 65536, HEAD = 8192, MAX_EVENTS = 256, MESSAGE = 64, FRAME = 2 + 4 + MESSAGE, ECHO = 2 + MESSAGE };
enum { LEADING = 7, SPAN = 1 << LEADING, BUCKETS = (64 - LEADING) * SPAN }; /* of the histogram */

static const long long SECOND = 1000000000, GRACE = 5 * 1000000000LL; /* nanoseconds */

/* Sec-WebSocket-Accept for the key that the upgrade request carries, the example of RFC 6455 section 1.3. */
static const char ACCEPT[] = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

enum state {
    CONNECTING, /* not yet writable */
    UPGRADING,  /* the upgrade request was sent */
    RESTING,    /* in the queue, with nothing under way */
    WAITING,    /* a request was sent, its answer is not complete */
};

struct connection {
    int fd;
    enum state state;
    long long since;  /* when the request fell due (rate) or was sent (closed), nanoseconds */
    size_t held;      /* octets in `head` */
    long long left;   /* octets of the answer's body to come; -1 while its head is incomplete */
    int wrong;        /* the answer's status is not 2xx */
    char head[HEAD];
};

static struct connection *all;
static int *resting, rest_first, rest_count; /* a ring: who rests, longest first */
static int epoll_fd, port, total, websocket, under_way, ready;
static char request[MAX_REQUEST];
static size_t request_size;
static unsigned char frame[FRAME];
static long long answered, wrong, errors, histogram[BUCKETS];

static void fail(const char *what) { perror(what); exit(1); }

static long long now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * SECOND + t.tv_nsec;
}

/* Buckets keep the LEADING + 1 highest bits of a value, so each is at most 1 / SPAN wide, relative to what it holds. */
static int bucket_of(unsigned long long value) {
    if (value < SPAN) return value;
    int shift = 63 - __builtin_clzll(value) - LEADING;
    return (shift << LEADING) + (value >> shift);
}

static double middle_of(int bucket) {
    if (bucket < 2 * SPAN) return bucket;
    int shift = (bucket >> LEADING) - 1;
    return ((double)(bucket - (shift << LEADING)) + 0.5) * (double)(1ULL << shift);
}

static double percentile(double share) {
    long long seen = 0, count = 0;
    for (int i = 0; i < BUCKETS; i++) count += histogram[i];
    for (int i = 0; i < BUCKETS; i++) {
        seen += histogram[i];
        if (seen > 0 && seen >= count * share) return middle_of(i) / 1000;
    }
    return 0;
}

static void rest(int index) {
    all[index].state = RESTING;
    resting[(rest_first + rest_count++) % total] = index;
    ready++;
}

static void dial(int index) {
    struct connection *c = &all[index];
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int on = 1;
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (c->fd < 0) fail("socket");
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (connect(c->fd, (void *)&address, sizeof address) < 0 && errno != EINPROGRESS) fail("connect");
    c->state = CONNECTING;
    c->held = 0;
    struct epoll_event event = {.events = EPOLLOUT, .data.u32 = index};
    if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, c->fd, &event) < 0) fail("epoll_ctl");
}

/* The connection broke: what was under way is an error, and a new connection takes its place. */
static void redial(int index) {
    struct connection *c = &all[index];
    errors++;
    if (c->state == WAITING) under_way--;
    if (c->state == RESTING || c->state == WAITING) ready--;
    if (c->state == RESTING) {
        int kept = 0;
        for (int i = 0; i < rest_count; i++) {
            int other = resting[(rest_first + i) % total];
            if (other != index) resting[(rest_first + kept++) % total] = other;
        }
        rest_count = kept;
    }
    close(c->fd);
    dial(index);
}

/* Requests fit a socket's buffer, so one that is taken in part is treated like a broken connection. */
static int transmit(struct connection *c, const void *data, size_t size) {
    c->held = 0;
    c->left = -1;
    return send(c->fd, data, size, MSG_NOSIGNAL) == (ssize_t)size;
}

static void begin(long long since) {
    int index = resting[rest_first];
    struct connection *c = &all[index];
    rest_first = (rest_first + 1) % total;
    rest_count--;
    under_way++;
    c->state = WAITING;
    c->since = since;
    if (!transmit(c, websocket ? (char *)frame : request, websocket ? FRAME : request_size)) redial(index);
}

static void finish(int index, int is_wrong) {
    histogram[bucket_of(now() - all[index].since)]++;
    answered++;
    wrong += is_wrong;
    under_way--;
    ready--;
    rest(index);
}

/* 1 when an HTTP answer is complete, 0 while it is not, -1 if it cannot be understood. */
static int take_http(struct connection *c) {
    if (c->left < 0) {
        c->head[c->held] = 0;
        char *end = memmem(c->head, c->held, "\r\n\r\n", 4);
        if (!end) return c->held < HEAD - 1 ? 0 : -1;
        end[2] = 0;
        int status;
        char *length = strcasestr(c->head, "\r\ncontent-length:");
        if (!length || sscanf(c->head, "HTTP/1.%*c %d", &status) != 1) return -1;
        c->wrong = status < 200 || status > 299;
        c->left = atoll(length + 17) - (long long)(c->held - (end + 4 - c->head));
    } else {
        c->left -= c->held;
    }
    c->held = 0;
    return c->left < 0 ? -1 : c->left == 0;
}

static int take_upgrade(struct connection *c) {
    c->head[c->held] = 0;
    if (!memmem(c->head, c->held, "\r\n\r\n", 4)) return c->held < HEAD - 1 ? 0 : -1;
    return strncmp(c->head, "HTTP/1.1 101 ", 13) == 0 && strstr(c->head, ACCEPT) ? 1 : -1;
}

static int is_echo(struct connection *c) {
    const unsigned char *at = (unsigned char *)c->head;
    if (at[0] != frame[0] || at[1] != MESSAGE) return 0;
    for (int i = 0; i < MESSAGE; i++)
        if (at[2 + i] != (frame[6 + i] ^ frame[2 + i % 4])) return 0;
    return 1;
}

static void receive(int index) {
    struct connection *c = &all[index];
    ssize_t got = recv(c->fd, c->head + c->held, HEAD - 1 - c->held, MSG_DONTWAIT);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (got <= 0 || c->state == RESTING) { redial(index); return; }
    c->held += got;
    if (c->state == UPGRADING) {
        int end = take_upgrade(c);
        if (end < 0) redial(index);
        if (end > 0) rest(index);
    } else if (websocket) {
        if (c->held >= ECHO) finish(index, c->held > ECHO || !is_echo(c));
    } else {
        int end = take_http(c);
        if (end < 0) redial(index);
        if (end > 0) finish(index, c->wrong);
    }
}

static void connected(int index) {
    struct connection *c = &all[index];
    struct epoll_event event = {.events = EPOLLIN, .data.u32 = index};
    int problem = 0;
    socklen_t size = sizeof problem;
    getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &problem, &size);
    if (problem) { errors++; close(c->fd); return; } /* refused: trying again at once would only spin */
    epoll_ctl(epoll_fd, EPOLL_CTL_MOD, c->fd, &event);
    if (!websocket) { rest(index); return; }
    c->state = UPGRADING;
    if (!transmit(c, request, request_size)) redial(index);
}

/* Handle what has happened, and wait for something until `until`. */
static void turn(long long until) {
    struct epoll_event events[MAX_EVENTS];
    long long left = until - now();
    if (left < 0) left = 0;
    struct pollfd any = {.fd = epoll_fd, .events = POLLIN};
    struct timespec timeout = {.tv_sec = left / SECOND, .tv_nsec = left % SECOND};
    if (ppoll(&any, 1, &timeout, NULL) <= 0) return;
    int count = epoll_wait(epoll_fd, events, MAX_EVENTS, 0);
    for (int i = 0; i < count; i++) {
        int index = events[i].data.u32;
        if (all[index].state == CONNECTING) connected(index);
        else receive(index);
    }
}

static void run_closed(long long end, int active) {
    while (now() < end) {
        while (under_way < active && rest_count) begin(now());
        turn(end);
    }
}

static void run_rate(long long end, double rate) {
    double start = now();
    long long due = start, sent = 0;
    while ((due < end || under_way) && now() < end + GRACE) {
        while (due < end && due <= now() && rest_count) {
            begin(due);
            due = start + ++sent * SECOND / rate;
        }
        turn(due < end && rest_count ? due : end + GRACE);
    }
    errors += under_way;
    if (due < end) errors += (end - due) * rate / SECOND; /* never sent, because nothing came back */
}

static void run_hold(long long end, int active) {
    int begun = 0;
    while (answered < total && now() < end) {
        while (begun < total && under_way < active && rest_count) { begin(now()); begun++; }
        turn(end);
    }
}

int main(int argc, char **argv) {
    if (argc != 8) { fprintf(stderr, "usage: load closed|rate|hold http|websocket PORT REQUEST CONNECTIONS SECONDS NUMBER\n"); return 2; }
    const char *mode = argv[1];
    websocket = strcmp(argv[2], "websocket") == 0;
    port = atoi(argv[3]);
    FILE *file = fopen(argv[4], "rb");
    if (!file) fail(argv[4]);
    request_size = fread(request, 1, sizeof request, file);
    fclose(file);
    total = atoi(argv[5]);
    double seconds = atof(argv[6]), number = atof(argv[7]);
    prctl(PR_SET_TIMERSLACK, 1); /* nanosecond: requests leave when they fall due, not up to 50 microseconds later */
    frame[0] = 0x81; /* FIN, text */
    frame[1] = 0x80 | MESSAGE;
    for (int i = 2; i < FRAME; i++) frame[i] = 0x30 + i % 64;
    all = calloc(total, sizeof *all);
    resting = calloc(total, sizeof *resting);
    epoll_fd = epoll_create1(0);
    if (!all || !resting || epoll_fd < 0) fail("start");
    for (int i = 0; i < total; i++) dial(i);
    for (long long patience = now() + 10 * SECOND; ready < total && !errors && now() < patience;) turn(patience);
    if (ready < total) {
        fprintf(stderr, "%d of %d connections stand, %lld failed\n", ready, total, errors);
        return 1;
    }
    long long start = now(), end = start + (long long)(seconds * SECOND);
    if (strcmp(mode, "rate") == 0) run_rate(end, number);
    else if (strcmp(mode, "hold") == 0) run_hold(end, number);
    else run_closed(end, number);
    printf("RESULT %lld %lld %lld %lld %.1f %.1f %.1f\n", answered, (now() - start) / 1000, wrong, errors,
           percentile(0.5), percentile(0.99), percentile(0.999));
    if (strcmp(mode, "hold") == 0) {
        printf("HELD\n");
        fflush(stdout);
        char octet;
        while (read(0, &octet, 1) > 0) {}
    }
    return 0;
}
