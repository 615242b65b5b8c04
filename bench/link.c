/* A slow link between two network namespaces: link MS MBIT FD_A FD_B
 *
 * For kernels without netem. FD_A and FD_B are open descriptors of two namespaces. In each a
 * tun device "wire" appears; packets that enter one leave the other MS milliseconds after their
 * last bit would have passed a line of MBIT. Prints "ready" and runs until standard input
 * ends. The queue before the line is netem's default, 1000 packets; what does not fit is lost. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#define PACKET 2048
#define QUEUED 1000           /* waiting for the line */
#define SLOTS (1 << 15)       /* those and the ones under way: 8 s of 50 Mbit */

typedef struct {
    int from, to;
    int64_t delay, per_byte_x1000;  /* ns */
    pthread_mutex_t lock;
    pthread_cond_t filled;
    uint64_t head, tail;            /* written, read */
    int64_t free_at;                /* when the line is */
    struct {
        int64_t due;
        int64_t sent;               /* when its last bit has passed the line */
        int len;
        uint8_t data[PACKET];
    } *ring;
} direction;

static void die(const char *what)
{
    fprintf(stderr, "link: %s: %s\n", what, strerror(errno));
    exit(1);
}

static int64_t now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

/* Packets on the line leave it in order, so those not yet sent are at the ring's end. */
static int queued(const direction *d, int64_t at)
{
    int count = 0;
    for (uint64_t i = d->head; i > d->tail && d->ring[(i - 1) % SLOTS].sent > at; i--)
        count++;
    return count;
}

static void *take(void *arg)
{
    direction *d = arg;
    uint8_t data[PACKET];
    for (;;) {
        ssize_t len = read(d->from, data, sizeof data);
        if (len <= 0) {
            if (errno == EINTR)
                continue;
            die("read");
        }
        int64_t at = now();
        pthread_mutex_lock(&d->lock);
        if (d->head - d->tail < SLOTS && queued(d, at) < QUEUED) {
            d->free_at = (d->free_at > at ? d->free_at : at) + len * d->per_byte_x1000 / 1000;
            uint64_t slot = d->head % SLOTS;
            d->ring[slot].sent = d->free_at;
            d->ring[slot].due = d->free_at + d->delay;
            d->ring[slot].len = (int)len;
            memcpy(d->ring[slot].data, data, (size_t)len);
            d->head++;
            pthread_cond_signal(&d->filled);
        }
        pthread_mutex_unlock(&d->lock);
    }
    return NULL;
}

static void *give(void *arg)
{
    direction *d = arg;
    for (;;) {
        pthread_mutex_lock(&d->lock);
        while (d->head == d->tail)
            pthread_cond_wait(&d->filled, &d->lock);
        uint64_t slot = d->tail % SLOTS;
        int64_t due = d->ring[slot].due;
        pthread_mutex_unlock(&d->lock);
        struct timespec until = {due / 1000000000, due % 1000000000};
        while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL) == EINTR)
            ;
        ssize_t written = write(d->to, d->ring[slot].data, (size_t)d->ring[slot].len);
        (void)written; /* a device that is down loses packets, as any link does */
        pthread_mutex_lock(&d->lock);
        d->tail++;
        pthread_mutex_unlock(&d->lock);
    }
    return NULL;
}

static int device(int namespace)
{
    if (setns(namespace, CLONE_NEWNET))
        die("setns");
    int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);
    if (fd < 0)
        die("/dev/net/tun");
    struct ifreq request = {.ifr_flags = IFF_TUN | IFF_NO_PI};
    strcpy(request.ifr_name, "wire");
    if (ioctl(fd, TUNSETIFF, &request))
        die("TUNSETIFF");
    return fd;
}

static void start(direction *d, int from, int to, double ms, double mbit)
{
    memset(d, 0, sizeof *d);
    d->from = from;
    d->to = to;
    d->delay = (int64_t)(ms * 1e6);
    d->per_byte_x1000 = (int64_t)(8e6 / mbit);
    d->ring = malloc(SLOTS * sizeof *d->ring);
    pthread_mutex_init(&d->lock, NULL);
    pthread_cond_init(&d->filled, NULL);
    pthread_t thread;
    if (!d->ring || pthread_create(&thread, NULL, take, d) ||
        pthread_create(&thread, NULL, give, d))
        die("start");
}

int main(int argc, char **argv)
{
    if (argc != 5)
        return fprintf(stderr, "usage: link MS MBIT FD_A FD_B\n"), 2;
    double ms = atof(argv[1]), mbit = atof(argv[2]);
    int a = device(atoi(argv[3])), b = device(atoi(argv[4]));
    static direction there, back;
    start(&there, a, b, ms, mbit);
    start(&back, b, a, ms, mbit);
    puts("ready");
    fflush(stdout);
    char byte;
    while (read(0, &byte, 1) > 0)
        ;
    return 0;
}
