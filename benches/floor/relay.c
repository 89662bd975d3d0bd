/* The floor of an L4 relay: one thread, one epoll, nothing but the system calls.
 *
 *   relay rw|splice LISTEN_PORT UPSTREAM_PORT
 *
 * rw: read into one 64 KiB buffer, write. splice: through a pipe per direction. Level-triggered;
 * what a full socket does not take is waited for with EPOLLOUT. It checks nothing that a proxy
 * has to check: it is there to be measured against, not to be used. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define ROOM (64 * 1024)

struct end {
    int fd;
    struct end *peer;
    /* What was read here and waits for the peer: in the pipe, or copied. */
    int pipe[2];
    size_t held;
    char *rest;
    size_t rest_at, rest_len;
    int ended, shut, interest;
};

static int epoll, splicing;
static char buffer[ROOM];

static void check(int ok, const char *what) {
    if (!ok) {
        perror(what);
        exit(1);
    }
}

static void interest(struct end *end, int events) {
    if (end->interest == events) return;
    struct epoll_event event = {.events = events, .data.ptr = end};
    epoll_ctl(epoll, end->interest < 0 ? EPOLL_CTL_ADD : EPOLL_CTL_MOD, end->fd, &event);
    end->interest = events;
}

static void drop(struct end *end) {
    struct end *both[2] = {end, end->peer};
    for (int i = 0; i < 2; i++) {
        if (both[i]->fd >= 0) close(both[i]->fd);
        if (splicing) close(both[i]->pipe[0]), close(both[i]->pipe[1]);
        free(both[i]->rest);
        both[i]->fd = -1;
    }
    /* Their memory stays: an event of this round may still name them, and there are few. */
}

static int waiting(struct end *end) { return splicing ? end->held > 0 : end->rest_len > 0; }

/* Writes what waits of `from`; -1: broken. */
static int push(struct end *from) {
    int to = from->peer->fd;
    while (waiting(from)) {
        ssize_t n = splicing ? splice(from->pipe[0], NULL, to, NULL, from->held,
                                      SPLICE_F_MOVE | SPLICE_F_NONBLOCK)
                             : write(to, from->rest + from->rest_at, from->rest_len);
        if (n < 0) return errno == EAGAIN ? 0 : -1;
        if (splicing) {
            from->held -= n;
        } else {
            from->rest_at += n;
            from->rest_len -= n;
        }
    }
    if (from->ended && !from->shut) {
        from->shut = 1;
        shutdown(to, SHUT_WR);
    }
    return 0;
}

/* Reads once and passes on; -1: broken. */
static int pull(struct end *from) {
    if (from->ended || waiting(from)) return 0;
    ssize_t n = splicing ? splice(from->fd, NULL, from->pipe[1], NULL, ROOM,
                                  SPLICE_F_MOVE | SPLICE_F_NONBLOCK)
                         : read(from->fd, buffer, ROOM);
    if (n < 0) return errno == EAGAIN ? 0 : -1;
    if (n == 0) from->ended = 1;
    if (splicing) {
        from->held += n;
    } else if (n > 0) {
        ssize_t out = write(from->peer->fd, buffer, n);
        if (out < 0 && errno != EAGAIN) return -1;
        if (out < 0) out = 0;
        if (out < n) {
            if (!from->rest) from->rest = malloc(ROOM);
            memcpy(from->rest, buffer + out, n - out);
            from->rest_at = 0;
            from->rest_len = n - out;
        }
    }
    return push(from);
}

static struct end *one(int fd) {
    struct end *end = calloc(1, sizeof *end);
    int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    end->fd = fd;
    end->interest = -1;
    if (splicing) check(pipe2(end->pipe, O_NONBLOCK) == 0, "pipe");
    return end;
}

static void begin(int fd, struct sockaddr_in *to) {
    int up = socket(AF_INET, SOCK_STREAM, 0);
    /* Loopback: the kernel has connected before it returns. */
    if (connect(up, (struct sockaddr *)to, sizeof *to) != 0) {
        close(up);
        close(fd);
        return;
    }
    fcntl(up, F_SETFL, O_NONBLOCK);
    struct end *a = one(fd), *b = one(up);
    a->peer = b;
    b->peer = a;
    interest(a, EPOLLIN);
    interest(b, EPOLLIN);
}

static void turn(struct end *end, unsigned events) {
    if (end->fd < 0) return;
    int bad = 0;
    if (events & EPOLLOUT) bad |= push(end->peer);
    if (events & (EPOLLIN | EPOLLHUP | EPOLLERR)) bad |= pull(end);
    if (bad || (end->shut && end->peer->shut)) {
        drop(end);
        return;
    }
    struct end *ends[2] = {end, end->peer};
    for (int i = 0; i < 2; i++) {
        int wants = !ends[i]->ended && !waiting(ends[i]) ? EPOLLIN : 0;
        interest(ends[i], wants | (waiting(ends[i]->peer) ? EPOLLOUT : 0));
    }
}

int main(int count, char **arguments) {
    check(count == 4, "usage: relay rw|splice LISTEN_PORT UPSTREAM_PORT");
    splicing = strcmp(arguments[1], "splice") == 0;
    signal(SIGPIPE, SIG_IGN);
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct sockaddr_in to = at;
    at.sin_port = htons(atoi(arguments[2]));
    to.sin_port = htons(atoi(arguments[3]));
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), on = 1;
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    check(bind(listener, (struct sockaddr *)&at, sizeof at) == 0, "bind");
    check(listen(listener, 4096) == 0, "listen");
    epoll = epoll_create1(0);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL}, events[256];
    epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &event);
    for (;;) {
        int ready = epoll_wait(epoll, events, 256, -1);
        for (int i = 0; i < ready; i++) {
            if (events[i].data.ptr) {
                turn(events[i].data.ptr, events[i].events);
                continue;
            }
            int fd;
            while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) begin(fd, &to);
        }
    }
}
