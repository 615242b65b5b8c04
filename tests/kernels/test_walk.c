/* Walks: the order, what is said of each entry, trees that are deep, wide or change. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "check.h"
#include "pack/walk.h"

static sgz_error err;
static char top[40];

/* In memory, if it can be, for trees that take a disk seconds. */
static int new_root(const char *where)
{
    int fd;
    sprintf(top, "%s/sgz-walk-XXXXXX", access(where, W_OK) ? "/tmp" : where);
    CHECK(mkdtemp(top) && (fd = open(top, O_RDONLY | O_DIRECTORY | O_CLOEXEC)) >= 0);
    return fd;
}

static void remove_root(int fd)
{
    char command[64];
    sprintf(command, "rm -rf %s", top);
    CHECK(!close(fd) && !system(command));
}

static void put(int root, const char *name, const char *text)
{
    int fd = openat(root, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0640);
    CHECK(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text) && !close(fd));
}

static const char *name_of(const sgz_pack_walk *w, size_t i)
{
    const sgz_pack_walk_entry *e = &w->entries[i];
    CHECK(strlen(w->arena + e->name_off) == e->name_len);
    return w->arena + e->name_off;
}

static const sgz_pack_walk_entry *find(const sgz_pack_walk *w, const char *name)
{
    for (size_t i = 0; i < w->count; i++)
        if (!strcmp(name_of(w, i), name))
            return &w->entries[i];
    return NULL;
}

static void expect(const sgz_pack_walk *w, const char *names)
{
    char all[4096] = "";
    for (size_t i = 0; i < w->count; i++) {
        strcat(all, i ? " " : "");
        strcat(all, name_of(w, i));
    }
    if (strcmp(all, names))
        fprintf(stderr, "%s\n", all);
    CHECK(!strcmp(all, names));
}

static sgz_status try(int root, const sgz_pack_walk_options *o, sgz_pack_walk *w, int cancelled)
{
    sgz_base_job job;
    sgz_pack_walk_state *state;
    memset(w, 0, sizeof *w);
    sgz_base_job_init(&job);
    if (cancelled)
        sgz_base_job_cancel(&job);
    sgz_status status = sgz_pack_walk_start(&state, &job, root, o, &err);
    if (!status)
        status = sgz_pack_walk_finish(state, w, &err);
    sgz_base_job_free(&job);
    return status;
}

static void walk(int root, const sgz_pack_walk_options *o, sgz_pack_walk *w)
{
    sgz_status status = try(root, o, w, 0);
    if (status)
        fprintf(stderr, "%s: %s (%d)\n", err.name, err.message, err.sys_errno);
    CHECK(!status);
}

static void kinds(void)
{
    int root = new_root("/tmp"), sock = socket(AF_UNIX, SOCK_STREAM, 0);
    struct sockaddr_un where = {.sun_family = AF_UNIX};
    struct timespec old[2] = {{.tv_sec = -5, .tv_nsec = 7}, {.tv_sec = -5, .tv_nsec = 7}};
    sgz_pack_walk w;
    put(root, "a.txt", "hello");
    CHECK(!mkdirat(root, "a", 02751) && !fchmodat(root, "a", 02751, 0));
    CHECK(!mkdirat(root, "a/\xff", 0700));
    put(root, "a/z", "");
    put(root, "a-b", "12");
    CHECK(!linkat(root, "a.txt", root, "a/y", 0) && !linkat(root, "a.txt", root, "z", 0));
    CHECK(!symlinkat("../no where", root, "a/link"));
    CHECK(!mkfifoat(root, "pipe", 0600));
    sprintf(where.sun_path, "%s/sock", top);
    CHECK(sock >= 0 && !bind(sock, (void *)&where, sizeof where) && !close(sock));
    CHECK(!utimensat(root, "a-b", old, 0));
    int device = !mknodat(root, "null", S_IFCHR | 0666, makedev(1, 3));
    int f = openat(root, "a-b", O_RDONLY | O_CLOEXEC);
    int xattrs = !fsetxattr(f, "user.b", "two", 3, 0) && !fsetxattr(f, "user.a", "", 0, 0);
    char large[1000];
    memset(large, 'x', sizeof large);
    CHECK(!xattrs || !fsetxattr(f, "user.large", large, sizeof large, 0));
    close(f);
    for (int threads = 1; threads < 4; threads++) {
        walk(root, &(sgz_pack_walk_options){.threads = threads}, &w);
        expect(&w, device ? "a a/link a/y a/z a/\xff a-b a.txt null pipe z"
                          : "a a/link a/y a/z a/\xff a-b a.txt pipe z");
        CHECK(w.sockets == 1 && !strcmp(w.first_socket, "sock"));
        CHECK(find(&w, "a")->type == '5' && find(&w, "a")->size == 0);
        CHECK(find(&w, "a")->mode == 02751);
        const sgz_pack_walk_entry *y = find(&w, "a/y"), *txt = find(&w, "a.txt"),
                                  *z = find(&w, "z");
        CHECK(y->type == '0' && y->size == 5 && y->nlink == 3 && y->target == SGZ_WALK_NONE);
        CHECK(txt->type == '1' && txt->size == 0 && &w.entries[txt->target] == y);
        CHECK(z->type == '1' && &w.entries[z->target] == y && z->ino == y->ino);
        const sgz_pack_walk_entry *link = find(&w, "a/link"), *ab = find(&w, "a-b");
        CHECK(link->type == '2' && link->size == 0 && link->link_len == 11);
        CHECK(!memcmp(w.arena + link->link_off, "../no where", 11));
        CHECK(ab->mtime == -5 && ab->mtime_nsec == 7 && ab->mode == 0640 && ab->size == 2);
        CHECK(ab->known == SGZ_WALK_NONE && find(&w, "pipe")->type == '6');
        if (device) {
            const sgz_pack_walk_entry *null = find(&w, "null");
            CHECK(null->type == '3' && null->dev_major == 1 && null->dev_minor == 3);
        }
        if (xattrs) { /* sorted, and the large one whole */
            const char *x = w.arena + ab->xattr_off;
            CHECK(ab->xattr_len == 14 + 17 + 8 + 10 + sizeof large);
            CHECK(!memcmp(x, "\6\0\0\0\0\0\0\0user.a\6\0\0\0\3\0\0\0user.btwo", 31));
            CHECK(!memcmp(x + 31 + 8, "user.large", 10));
            CHECK(!memcmp(x + 31 + 18, large, sizeof large));
        }
        CHECK(find(&w, "a")->xattr_len == 0 && z->xattr_len == 0);
        sgz_pack_walk_free(&w);
    }
    remove_root(root);
}

static int by_name(void *arg, const char *name, size_t len, int is_dir)
{
    static char last[100];
    const char *slash = strrchr(name, '/');
    CHECK(strlen(name) == len);
    if (arg) { /* parents were asked about before */
        CHECK(!slash || !strstr(name, "no/"));
        snprintf(last, sizeof last, "%s", name);
    }
    const char *base = slash ? slash + 1 : name;
    CHECK(is_dir == (strchr("dnm", *base) != NULL));
    return !strcmp(base, "no") ? 2 : !strcmp(base, "maybe") || !strcmp(base, "x") ? 1
           : !strcmp(base, "error") ? -1 : 0;
}

static uint32_t knows(void *arg, const sgz_pack_walk_entry *e, const char *name)
{
    __atomic_fetch_add((int *)arg, 1, __ATOMIC_RELAXED);
    CHECK(e->name_len == strlen(name) && e->nlink && e->ino);
    return !strcmp(name, "d/link") ? 77 : SGZ_WALK_NONE;
}

static void callbacks(void)
{
    int root = new_root("/tmp"), asked = 0;
    sgz_pack_walk w;
    const char *dirs[] = {"d", "d/maybe", "d/maybe/maybe", "maybe", "maybe/no", "no", "no/d"};
    for (int i = 0; i < 7; i++)
        CHECK(!mkdirat(root, dirs[i], 0755));
    put(root, "d/x", "");
    put(root, "d/maybe/maybe/file", "");
    put(root, "maybe/x", "");
    put(root, "maybe/no/file", "");
    put(root, "no/file", "");
    CHECK(!symlinkat("target", root, "d/link"));
    sgz_pack_walk_options o = {.threads = 2,
                               .ignore = by_name,
                               .ignore_arg = &asked,
                               .known = knows,
                               .known_arg = &asked};
    walk(root, &o, &w);
    expect(&w, "d d/link d/maybe d/maybe/maybe d/maybe/maybe/file");
    CHECK(find(&w, "d/link")->known == 77 && find(&w, "d/link")->link_len == 0);
    CHECK(find(&w, "d")->known == SGZ_WALK_NONE && asked == 6); /* `maybe` too */
    sgz_pack_walk_free(&w);
    put(root, "d/error", "");
    CHECK(try(root, &o, &w, 0) == SGZ_ECALLBACK && !w.entries && !w.arena);
    o = (sgz_pack_walk_options){.threads = 1};
    CHECK(try(root, &o, &w, 1) == SGZ_ECANCELLED);
    remove_root(root);
}

/* Deeper than there are descriptors, longer than PATH_MAX, with two subdirectories each; and
 * wide. */
static void shapes(void)
{
    enum { DEPTH = 1500, WIDTH = 3000 };
    struct rlimit limit, few = {64, 64};
    sgz_pack_walk w;
    int root = new_root("/dev/shm"), at = dup(root);
    for (int i = 0; i < DEPTH; i++) {
        CHECK(!mkdirat(at, "deep", 0755) && !mkdirat(at, "other", 0755));
        put(at, "other/file", "x");
        int next = openat(at, "deep", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        CHECK(next >= 0 && !close(at));
        at = next;
    }
    for (int i = 0; i < WIDTH; i++) {
        char name[20];
        sprintf(name, "%d", i);
        CHECK(!mkdirat(at, name, 0755));
    }
    close(at);
    CHECK(!getrlimit(RLIMIT_NOFILE, &limit));
    few.rlim_max = limit.rlim_max;
    for (int round = 0; round < 4; round++) {
        CHECK(!setrlimit(RLIMIT_NOFILE, round & 1 ? &few : &limit));
        walk(root, &(sgz_pack_walk_options){.threads = round / 2 + 1}, &w);
        CHECK(w.count == DEPTH * 3 + WIDTH);
        size_t i = 0;
        for (; i < DEPTH; i++)
            CHECK(w.entries[i].name_len == i * 5 + 4);
        for (; i < DEPTH + WIDTH; i++)
            CHECK(w.entries[i].name_len > DEPTH * 5);
        for (; i < w.count; i++) {
            const char *name = name_of(&w, i);
            size_t up = (w.count - 1 - i) / 2;
            CHECK(!strcmp(name + up * 5, w.entries[i].type == '5' ? "other" : "other/file"));
        }
        sgz_pack_walk_free(&w);
    }
    CHECK(!setrlimit(RLIMIT_NOFILE, &limit));
    remove_root(root);
}

static volatile int changing;

static void *change(void *arg)
{
    int root = *(int *)arg;
    for (unsigned n = 0; changing; n++) {
        char name[40], other[40];
        sprintf(name, "d%u/s%u", n % 20, n % 3);
        sprintf(other, "d%u", n % 20);
        mkdirat(root, other, 0755);
        switch (n / 20 % 5) {
        case 0: mkdirat(root, name, 0755); break;
        case 1: unlinkat(root, name, AT_REMOVEDIR); symlinkat("..", root, name); break;
        case 2: unlinkat(root, name, 0); mkfifoat(root, name, 0600); break;
        case 3: unlinkat(root, name, 0); unlinkat(root, other, AT_REMOVEDIR); break;
        case 4: renameat(root, "fixed/y", root, name); mkdirat(root, "fixed/y", 0700); break;
        }
    }
    return NULL;
}

/* Whatever a tree does meanwhile, what stays in it is found, and no link is followed. */
static void changes(void)
{
    int root = new_root("/dev/shm");
    pthread_t thread;
    CHECK(!mkdirat(root, "fixed", 0755) && !mkdirat(root, "fixed/y", 0755));
    put(root, "fixed/z", "z");
    changing = 1;
    CHECK(!pthread_create(&thread, NULL, change, &root));
    for (int i = 0; i < 150; i++) {
        sgz_pack_walk w;
        walk(root, &(sgz_pack_walk_options){.threads = 2}, &w);
        CHECK(find(&w, "fixed/z") && find(&w, "fixed"));
        for (size_t k = 0; k < w.count; k++) {
            const char *name = name_of(&w, k);
            int slashes = 0;
            for (; *name; name++)
                slashes += *name == '/';
            CHECK(slashes < 3 && (!k || strcmp(name_of(&w, k - 1), name_of(&w, k))));
        }
        sgz_pack_walk_free(&w);
    }
    changing = 0;
    pthread_join(thread, NULL);
    remove_root(root);
}

static int in_child(void (*test)(int), int root)
{
    int status;
    pid_t pid = fork();
    if (!pid) {
        test(root);
        _exit(0);
    }
    CHECK(pid > 0 && waitpid(pid, &status, 0) == pid);
    return status;
}

static void as_nobody(int root)
{
    sgz_pack_walk w;
    CHECK(!setgid(65534) && !setuid(65534));
    CHECK(try(root, &(sgz_pack_walk_options){.threads = 2}, &w, 0) == SGZ_EIO);
    CHECK(err.sys_errno == EACCES && !strcmp(err.name, "open/secret") && !w.entries);
}

static void readable_only(int root)
{
    sgz_pack_walk w;
    CHECK(!setgid(65534) && !setuid(65534));
    walk(root, &(sgz_pack_walk_options){.threads = 1}, &w);
    expect(&w, "empty open");
}

static void on_one_file_system(int root)
{
    char path[64];
    sgz_pack_walk w;
    sprintf(path, "%s/open", top);
    if (unshare(CLONE_NEWNS) || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
        mount("none", path, "tmpfs", 0, NULL)) {
        fprintf(stderr, "test_walk: no mounts here\n");
        return;
    }
    root = open(top, O_RDONLY | O_DIRECTORY); /* the one before leads past the mount */
    CHECK(root >= 0);
    put(root, "open/file", "");
    walk(root, &(sgz_pack_walk_options){.threads = 1}, &w);
    expect(&w, "empty open open/file");
    CHECK(w.entries[1].dev != w.entries[0].dev);
    sgz_pack_walk_free(&w);
    walk(root, &(sgz_pack_walk_options){.threads = 1, .one_file_system = 1}, &w);
    expect(&w, "empty open");
    sgz_pack_walk_free(&w);
}

static void rights(void)
{
    if (geteuid()) {
        fprintf(stderr, "test_walk: not root, so nothing is unreadable\n");
        return;
    }
    int root = new_root("/dev/shm");
    CHECK(!fchmod(root, 0755) && !mkdirat(root, "open", 0755));
    CHECK(!mkdirat(root, "open/secret", 0700));
    CHECK(!in_child(as_nobody, root));
    CHECK(!unlinkat(root, "open/secret", AT_REMOVEDIR));
    CHECK(!mkdirat(root, "empty", 0744) && !fchmodat(root, "empty", 0744, 0));
    CHECK(!in_child(readable_only, root));
    CHECK(!in_child(on_one_file_system, root));
    remove_root(root);
}

int main(void)
{
    sgz_pack_walk w;
    char before[4096], after[4096];
    CHECK(getcwd(before, sizeof before));
    CHECK(try(-1, &(sgz_pack_walk_options){.threads = 1}, &w, 0) == SGZ_EIO);
    int root = new_root("/tmp");
    walk(root, &(sgz_pack_walk_options){.threads = 8}, &w);
    CHECK(!w.count && !w.sockets);
    sgz_pack_walk_free(&w);
    remove_root(root);
    kinds();
    callbacks();
    shapes();
    changes();
    rights();
    CHECK(getcwd(after, sizeof after) && !strcmp(before, after));
    return 0;
}
