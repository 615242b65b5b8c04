/* Whole reads and writes: through signals, short ones, a full disk, the end of a file. */
#define _GNU_SOURCE
#include "check.h"

#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#define LEN ((size_t)3 << 20)

static uint8_t data[LEN], back[LEN];
static int stop;

static void nothing(int signal)
{
    (void)signal;
}

/* Who reads or writes the other end of a pipe in odd steps, and interrupts who has this one. */
typedef struct {
    int fd, write;
    pthread_t victim;
} peer;

static void *other_end(void *arg)
{
    peer *p = arg;
    for (size_t done = 0; done < LEN;) {
        size_t step = LEN - done < 30011 ? LEN - done : 30011;
        ssize_t n = p->write ? write(p->fd, data + done, step) : read(p->fd, back + done, step);
        CHECK(n > 0);
        done += (size_t)n;
        pthread_kill(p->victim, SIGUSR1);
    }
    close(p->fd);
    while (!__atomic_load_n(&stop, __ATOMIC_RELAXED)) {
        pthread_kill(p->victim, SIGUSR1);
        usleep(1000);
    }
    return NULL;
}

static void through_pipe(int reading)
{
    int ends[2];
    pthread_t thread;
    CHECK(!pipe(ends));
    memset(back, 0, LEN);
    peer p = {ends[!reading ? 0 : 1], reading, pthread_self()};
    stop = 0;
    CHECK(!pthread_create(&thread, NULL, other_end, &p));
    if (reading) { /* the writer ends where the file does */
        CHECK(sgz_base_read_all(ends[0], back, LEN, -1) == (int64_t)LEN);
        CHECK(sgz_base_read_all(ends[0], back, 1, -1) == 0);
        close(ends[0]);
    } else {
        CHECK(!sgz_base_write_all(ends[1], data, LEN, -1));
        close(ends[1]);
    }
    __atomic_store_n(&stop, 1, __ATOMIC_RELAXED);
    pthread_join(thread, NULL);
    CHECK(!memcmp(data, back, LEN));
}

int main(void)
{
    struct sigaction interrupt = {.sa_handler = nothing}; /* without SA_RESTART */
    sigaction(SIGUSR1, &interrupt, NULL);
    signal(SIGPIPE, SIG_IGN);
    for (size_t i = 0; i < LEN; i++)
        data[i] = (uint8_t)below(256);
    through_pipe(0);
    through_pipe(1);

    /* In a file, at a place: the descriptor's position stays. */
    char name[] = "/tmp/sgz-test-file-XXXXXX";
    int fd = mkstemp(name);
    CHECK(fd >= 0 && !unlink(name));
    CHECK(!sgz_base_write_all(fd, data, 1000, 5000) && lseek(fd, 0, SEEK_CUR) == 0);
    CHECK(!sgz_base_write_all(fd, data, 100, -1) && lseek(fd, 0, SEEK_CUR) == 100);
    memset(back, 7, LEN);
    CHECK(sgz_base_read_all(fd, back, 2000, 5000) == 1000);
    CHECK(!memcmp(back, data, 1000) && back[1000] == 7);
    CHECK(sgz_base_read_all(fd, back, 10, 6000) == 0 && sgz_base_read_all(fd, back, 0, 0) == 0);
    CHECK(sgz_base_read_all(fd, back, 5000, -1) == 5000 && back[0] == 0 && back[4899] == 0);
    CHECK(back[4900] == data[0] && back[4999] == data[99]);
    close(fd);

    /* Failures. */
    CHECK(sgz_base_read_all(fd, back, 1, 0) == -EBADF);
    CHECK(sgz_base_write_all(fd, back, 1, 0) == -EBADF && !sgz_base_write_all(fd, back, 0, 0));
    fd = open("/dev/full", O_WRONLY | O_CLOEXEC);
    CHECK(fd >= 0 && sgz_base_write_all(fd, data, 10, -1) == -ENOSPC);
    close(fd);
    return 0;
}
