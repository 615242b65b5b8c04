/* Preloaded by tests/failing.py: lets a chosen call on files below a folder fail, or be the last
 * thing that the process does. The same for threads, and for memory that kernels ask for, in any
 * module of stargz/_engine; of these blocks it knows which have not been freed.
 *
 * Calls are counted by kind in memory that a forked child shares, so that whoever forked it sees
 * how far it came. Of a write that fails half is written first; a close that fails has closed. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <link.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

enum { OPEN, WRITE, SYNC, RENAME, LINK, CLOSE, TRUNCATE, MKDIR, ANY, MEMORY, THREAD, KINDS };

struct failing {
    atomic_long seen[KINDS];     /* of ANY: all calls on files */
    atomic_long hit;             /* how often a call failed */
    atomic_long live;            /* blocks of memory that are not freed yet */
    long kind;                   /* which are to fail; -1 for none */
    long at;                     /* the one to fail, from 0 */
    long on;                     /* and all behind it */
    long error;                  /* errno, or 0: SIGKILL */
    char below[PATH_MAX];
};

static struct failing *failing;

struct failing *failing_state(void)
{
    return failing;
}

__attribute__((constructor)) static void begin(void)
{
    failing = mmap(NULL, sizeof *failing, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (failing == MAP_FAILED)
        failing = NULL;
    else
        failing->kind = -1;
}

static int below(const char *path)
{
    size_t len = strlen(failing->below);
    return !strncmp(path, failing->below, len) && (path[len] == '/' || !path[len]);
}

static int fd_below(int fd)
{
    char link[64], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t len = readlink(link, path, sizeof path - 1);
    if (len < 0)
        return 0;
    path[len] = 0;
    return below(path);
}

static int path_below(int dir, const char *path)
{
    int fd;
    if (sscanf(path, "/proc/self/fd/%d", &fd) == 1)
        return fd_below(fd);
    if (path[0] == '/')
        return below(path);
    char here[PATH_MAX];
    return dir == AT_FDCWD ? getcwd(here, sizeof here) && below(here) : fd_below(dir);
}

/* Count a call; whether it is to fail, with errno set. */
static int fails(int kind)
{
    long number = atomic_fetch_add(&failing->seen[kind], 1);
    long of_all = kind < ANY ? atomic_fetch_add(&failing->seen[ANY], 1) : -1;
    if (failing->kind != kind && (failing->kind != ANY || kind > ANY))
        return 0;
    if (failing->kind == ANY)
        number = of_all;
    if (number != failing->at && !(failing->on && number > failing->at))
        return 0;
    atomic_fetch_add(&failing->hit, 1);
    if (!failing->error) {
        kill(getpid(), SIGKILL);
        for (;;)
            pause();
    }
    errno = (int)failing->error;
    return 1;
}

static int armed(void)
{
    return failing && failing->below[0];
}

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

#define WRITES(name, result, arguments, fd, call, half)                                            \
    result name arguments                                                                          \
    {                                                                                              \
        if (armed() && fd_below(fd) && fails(WRITE)) {                                             \
            int error = errno;                                                                     \
            half;                                                                                  \
            errno = error;                                                                         \
            return -1;                                                                             \
        }                                                                                          \
        return call;                                                                               \
    }

WRITES(write, ssize_t, (int fd, const void *data, size_t len), fd, NEXT(write)(fd, data, len),
       (void)!NEXT(write)(fd, data, len / 2))
WRITES(pwrite, ssize_t, (int fd, const void *data, size_t len, off_t at), fd,
       NEXT(pwrite)(fd, data, len, at), (void)!NEXT(pwrite)(fd, data, len / 2, at))
WRITES(pwrite64, ssize_t, (int fd, const void *data, size_t len, off64_t at), fd,
       NEXT(pwrite64)(fd, data, len, at), (void)!NEXT(pwrite64)(fd, data, len / 2, at))
WRITES(writev, ssize_t, (int fd, const struct iovec *data, int n), fd, NEXT(writev)(fd, data, n), )
WRITES(copy_file_range, ssize_t,
       (int in, off64_t *from, int out, off64_t *to, size_t len, unsigned flags), out,
       NEXT(copy_file_range)(in, from, out, to, len, flags), )
WRITES(sendfile, ssize_t, (int out, int in, off_t *at, size_t len), out,
       NEXT(sendfile)(out, in, at, len), )
WRITES(sendfile64, ssize_t, (int out, int in, off64_t *at, size_t len), out,
       NEXT(sendfile64)(out, in, at, len), )

#define OTHER(kind, name, arguments, where, call)                                                  \
    int name arguments                                                                             \
    {                                                                                              \
        return armed() && (where) && fails(kind) ? -1 : call;                                      \
    }

OTHER(SYNC, fsync, (int fd), fd_below(fd), NEXT(fsync)(fd))
OTHER(SYNC, fdatasync, (int fd), fd_below(fd), NEXT(fdatasync)(fd))
OTHER(RENAME, rename, (const char *from, const char *to), path_below(AT_FDCWD, to),
      NEXT(rename)(from, to))
OTHER(RENAME, renameat, (int old, const char *from, int dir, const char *to), path_below(dir, to),
      NEXT(renameat)(old, from, dir, to))
OTHER(RENAME, renameat2, (int old, const char *from, int dir, const char *to, unsigned flags),
      path_below(dir, to), NEXT(renameat2)(old, from, dir, to, flags))
OTHER(LINK, link, (const char *from, const char *to), path_below(AT_FDCWD, to),
      NEXT(link)(from, to))
OTHER(LINK, linkat, (int old, const char *from, int dir, const char *to, int flags),
      path_below(dir, to), NEXT(linkat)(old, from, dir, to, flags))
OTHER(TRUNCATE, ftruncate, (int fd, off_t size), fd_below(fd), NEXT(ftruncate)(fd, size))
OTHER(TRUNCATE, ftruncate64, (int fd, off64_t size), fd_below(fd), NEXT(ftruncate64)(fd, size))
OTHER(MKDIR, mkdir, (const char *path, mode_t mode), path_below(AT_FDCWD, path),
      NEXT(mkdir)(path, mode))
OTHER(MKDIR, mkdirat, (int dir, const char *path, mode_t mode), path_below(dir, path),
      NEXT(mkdirat)(dir, path, mode))

int close(int fd)
{
    int written = armed() && fd_below(fd) && (fcntl(fd, F_GETFL) & O_ACCMODE) != O_RDONLY;
    int failed = written && fails(CLOSE), error = errno;
    int result = NEXT(close)(fd);
    if (!failed)
        return result;
    errno = error;
    return -1;
}

/* Those for writing, and of folders. */
#define OPENS(name, parameters, dir, path, flags, call)                                            \
    int name parameters                                                                            \
    {                                                                                              \
        mode_t mode = 0;                                                                           \
        if (flags & O_CREAT || (flags & O_TMPFILE) == O_TMPFILE) {                                                     \
            va_list more;                                                                          \
            va_start(more, flags);                                                                 \
            mode = va_arg(more, mode_t);                                                           \
            va_end(more);                                                                          \
        }                                                                                          \
        if (armed() && flags & (O_ACCMODE | O_CREAT | O_DIRECTORY) && path_below(dir, path) &&     \
            fails(OPEN))                                                                           \
            return -1;                                                                             \
        return call;                                                                               \
    }

OPENS(open, (const char *path, int flags, ...), AT_FDCWD, path, flags, NEXT(open)(path, flags, mode))
OPENS(open64, (const char *path, int flags, ...), AT_FDCWD, path, flags,
      NEXT(open64)(path, flags, mode))
OPENS(openat, (int dir, const char *path, int flags, ...), dir, path, flags,
      NEXT(openat)(dir, path, flags, mode))
OPENS(openat64, (int dir, const char *path, int flags, ...), dir, path, flags,
      NEXT(openat64)(dir, path, flags, mode))

/* --- threads, and memory of the kernels -------------------------------------------------------- */

#define MODULES 32
static struct { uintptr_t begin, end; } modules[MODULES];
static int n_modules;

static int is_module(struct dl_phdr_info *info, size_t size, void *unused)
{
    (void)size, (void)unused;
    for (int i = 0; strstr(info->dlpi_name, "/stargz/_engine/") && i < info->dlpi_phnum; i++)
        if (info->dlpi_phdr[i].p_flags & PF_X && n_modules < MODULES) {
            modules[n_modules].begin = info->dlpi_addr + info->dlpi_phdr[i].p_vaddr;
            modules[n_modules].end = modules[n_modules].begin + info->dlpi_phdr[i].p_memsz;
            n_modules++;
        }
    return 0;
}

/* Once all modules are there: how many. */
int failing_modules(void)
{
    n_modules = 0;
    dl_iterate_phdr(is_module, NULL);
    return n_modules;
}

/* Blocks that kernels have, and who asked for each. A hash table, of which a place that was freed
 * is not empty again. */
#define BLOCKS (1u << 18)
#define FREED 1
static struct { uintptr_t block, caller; } blocks[BLOCKS];
static atomic_flag busy = ATOMIC_FLAG_INIT;
static atomic_long noted;

static size_t place(uintptr_t block)
{
    return block / 16 * 0x9E3779B97F4A7C15u >> 46;
}

static void lock(void)
{
    while (atomic_flag_test_and_set(&busy))
        ;
}

static void note(void *block, uintptr_t caller)
{
    if (!block || !failing)
        return;
    lock();
    size_t at = place((uintptr_t)block), tries = 0;
    while (blocks[at].block > FREED && tries++ < BLOCKS)
        at = (at + 1) % BLOCKS;
    blocks[at].block = (uintptr_t)block;
    blocks[at].caller = caller;
    atomic_fetch_add(&noted, 1);
    atomic_fetch_add(&failing->live, 1);
    atomic_flag_clear(&busy);
}

static void forget(void *block)
{
    if (!block || !noted)
        return;
    lock();
    size_t at = place((uintptr_t)block), tries = 0;
    while (blocks[at].block && blocks[at].block != (uintptr_t)block && tries++ < BLOCKS)
        at = (at + 1) % BLOCKS;
    if (blocks[at].block == (uintptr_t)block) {
        blocks[at].block = FREED;
        atomic_fetch_sub(&failing->live, 1);
    }
    atomic_flag_clear(&busy);
}

/* Who asked for blocks that are not freed yet: "MODULE+OFFSET ..." */
void failing_live(char *text, size_t room)
{
    text[0] = 0;
    for (size_t at = 0, len = 0; at < BLOCKS; at++) {
        Dl_info info;
        if (blocks[at].block <= FREED || !dladdr((void *)blocks[at].caller, &info))
            continue;
        const char *name = strrchr(info.dli_fname, '/');
        len += (size_t)snprintf(text + len, room - len, "%s+%#lx ", name ? name + 1 : "?",
                                (long)(blocks[at].caller - (uintptr_t)info.dli_fbase));
        if (len + 100 > room)
            return;
    }
}

static int by_kernel(uintptr_t caller)
{
    for (int i = 0; i < n_modules && armed(); i++)
        if (caller >= modules[i].begin && caller < modules[i].end)
            return 1;
    return 0;
}

/* glibc's own, which are there before dlsym can be called. */
extern void *__libc_malloc(size_t), *__libc_calloc(size_t, size_t), *__libc_realloc(void *, size_t);
extern void *__libc_memalign(size_t, size_t), __libc_free(void *);

#define ALLOCATES(name, arguments, failed, call)                                                   \
    void *name arguments                                                                           \
    {                                                                                              \
        uintptr_t caller = (uintptr_t)__builtin_return_address(0);                                 \
        int kernel = by_kernel(caller);                                                            \
        if (kernel && fails(MEMORY))                                                               \
            return failed;                                                                         \
        void *block = call;                                                                        \
        if (kernel && block != failed)                                                             \
            note(block, caller);                                                                   \
        return block;                                                                              \
    }

ALLOCATES(malloc, (size_t size), NULL, __libc_malloc(size))
ALLOCATES(calloc, (size_t n, size_t size), NULL, __libc_calloc(n, size))
ALLOCATES(aligned_alloc, (size_t alignment, size_t size), NULL, __libc_memalign(alignment, size))
ALLOCATES(mmap, (void *at, size_t len, int prot, int flags, int fd, off_t offset), MAP_FAILED,
          NEXT(mmap)(at, len, prot, flags, fd, offset))

void *realloc(void *old, size_t size)
{
    uintptr_t caller = (uintptr_t)__builtin_return_address(0);
    int kernel = by_kernel(caller);
    if (kernel && fails(MEMORY))
        return NULL;
    forget(old);
    void *block = __libc_realloc(old, size);
    if (kernel)
        note(block, caller);
    return block;
}

void free(void *block)
{
    int error = errno;
    forget(block);
    __libc_free(block);
    errno = error;
}

int munmap(void *block, size_t len)
{
    forget(block);
    return NEXT(munmap)(block, len);
}

int pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*run)(void *), void *arg)
{
    return armed() && fails(THREAD) ? errno : NEXT(pthread_create)(thread, attr, run, arg);
}
