/*
 * Preloaded into a server, lets allocations, accept() and syncs of files fail where a test says so,
 * and counts them; and counts what is allocated and not freed.
 *
 * The test shares a file with it, named by FAULTS_FILE, which holds a struct faults and may be
 * written at any time. Allocations are counted over all threads, from main() on. Under
 * AddressSanitizer this library stands in front of ASan's allocator (verify_asan_link_order=0).
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

struct faults {
    _Atomic uint64_t calls;          /* allocations so far */
    _Atomic uint64_t from, until;    /* those from `from` (the first is 1) to before `until` fail */
    _Atomic uint64_t failed;         /* allocations that did */
    _Atomic uint64_t accept_error;   /* errno of every accept4(); 0: none fails */
    _Atomic uint64_t accepts_failed; /* accept4() that did */
    _Atomic uint64_t syncs;          /* fsync() and fdatasync() that did not fail */
    _Atomic uint64_t sync_error;     /* errno of every one; 0: none fails */
    _Atomic int64_t live_bytes;      /* that are allocated now, */
    _Atomic int64_t live_blocks;     /* in so many blocks; */
    _Atomic int64_t page_bytes;      /* and those that are SQLite's pages, by their size, */
    _Atomic int64_t pid;             /* by this process */
};

/* A page of SQLite, and what it notes of it. */
enum { PAGE_BYTES = 8192, PAGE_MORE_BYTES = 512 };

static struct faults *faults;
static bool is_counted;              /* what is live */
static _Thread_local bool is_exempt; /* what ASan asks of libc for itself must not fail */

static void *(*next_malloc)(size_t);
static void *(*next_calloc)(size_t, size_t);
static void *(*next_realloc)(void *, size_t);
static void (*next_free)(void *);
static void *(*next_memalign)(size_t, size_t);
static int (*next_posix_memalign)(void **, size_t, size_t);
static void *(*next_mmap)(void *, size_t, int, int, int, off_t);
static int (*next_accept4)(int, struct sockaddr *, socklen_t *, int);
static int (*next_fsync)(int);
static int (*next_fdatasync)(int);
static int (*next_pthread_getattr_np)(pthread_t, pthread_attr_t *);
static int (*next_pthread_create)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);

#define FIND(name) (*(void **)&next_##name = dlsym(RTLD_NEXT, #name))

static bool fails(void) {
    if (!faults || is_exempt)
        return false;
    uint64_t call = ++faults->calls;
    if (!faults->from || call < faults->from || call >= faults->until)
        return false;
    faults->failed++;
    errno = ENOMEM;
    return true;
}

/* Counts a block, or with -1 that it is gone. */
static void *count(void *block, int by) {
    if (!is_counted || !block)
        return block;
    int64_t bytes = (int64_t)malloc_usable_size(block);
    if (bytes > PAGE_BYTES && bytes < PAGE_BYTES + PAGE_MORE_BYTES) {
        faults->page_bytes += by * bytes;
    } else {
        faults->live_bytes += by * bytes;
        faults->live_blocks += by;
    }
    return block;
}

__attribute__((constructor)) static void start(void) {
    FIND(free);
    FIND(mmap);
    FIND(accept4);
    FIND(fsync);
    FIND(fdatasync);
    FIND(pthread_create);
    FIND(pthread_getattr_np);
    const char *path = getenv("FAULTS_FILE");
    int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    if (fd < 0)
        return;
    void *shared = next_mmap(NULL, sizeof *faults, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (shared == MAP_FAILED)
        return;
    faults = shared;
    is_counted = faults->pid != getppid(); /* the program that it may become is tried first */
    if (!is_counted)
        return;
    faults->live_bytes = faults->live_blocks = faults->page_bytes = 0;
    faults->pid = getpid();
}

void *malloc(size_t size) {
    if (!next_malloc)
        FIND(malloc);
    return fails() ? NULL : count(next_malloc(size), 1);
}

/* So may it want to be rid of some. */
void free(void *block) {
    static bool is_finding;
    if (!next_free && !is_finding) {
        is_finding = true;
        FIND(free);
    }
    if (next_free)
        next_free(count(block, -1));
}

/* dlsym() itself may want memory, before it can say where calloc() is. */
void *calloc(size_t n, size_t size) {
    static _Alignas(max_align_t) char early[4096];
    static size_t early_len;
    static bool is_finding;
    if (!next_calloc && is_finding) {
        void *at = early + early_len;
        early_len += (n * size + 15) & ~(size_t)15;
        return early_len <= sizeof early ? at : NULL;
    }
    if (!next_calloc) {
        is_finding = true;
        FIND(calloc);
    }
    return fails() ? NULL : count(next_calloc(n, size), 1);
}

void *realloc(void *old, size_t size) {
    if (!next_realloc)
        FIND(realloc);
    if (fails())
        return NULL;
    count(old, -1);
    void *block = next_realloc(old, size);
    count(block || !size ? block : old, 1);
    return block;
}

void *reallocarray(void *old, size_t n, size_t size) {
    size_t bytes;
    if (!__builtin_mul_overflow(n, size, &bytes))
        return realloc(old, bytes);
    errno = ENOMEM;
    return NULL;
}

void *memalign(size_t alignment, size_t size) {
    if (!next_memalign)
        FIND(memalign);
    return fails() ? NULL : count(next_memalign(alignment, size), 1);
}

void *aligned_alloc(size_t alignment, size_t size) {
    return memalign(alignment, size);
}

int posix_memalign(void **at, size_t alignment, size_t size) {
    if (!next_posix_memalign)
        FIND(posix_memalign);
    if (fails())
        return ENOMEM;
    int error = next_posix_memalign(at, alignment, size);
    if (!error)
        count(*at, 1);
    return error;
}

void *mmap(void *at, size_t len, int protection, int flags, int fd, off_t offset) {
    if (!next_mmap)
        FIND(mmap);
    return fails() ? MAP_FAILED : next_mmap(at, len, protection, flags, fd, offset);
}

void *mmap64(void *at, size_t len, int protection, int flags, int fd, off_t offset) {
    return mmap(at, len, protection, flags, fd, offset);
}

int pthread_getattr_np(pthread_t thread, pthread_attr_t *attributes) {
    if (!next_pthread_getattr_np)
        FIND(pthread_getattr_np);
    is_exempt = true;
    int error = next_pthread_getattr_np(thread, attributes);
    is_exempt = false;
    return error;
}

int pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*run)(void *),
                   void *context) {
    return fails() ? EAGAIN : next_pthread_create(thread, attributes, run, context);
}

int accept4(int fd, struct sockaddr *address, socklen_t *len, int flags) {
    int error = faults ? (int)faults->accept_error : 0;
    if (!error)
        return next_accept4(fd, address, len, flags);
    faults->accepts_failed++;
    errno = error;
    return -1;
}

static int sync_with(int (*next)(int), int fd) {
    int error = faults ? (int)faults->sync_error : 0;
    if (error) {
        errno = error;
        return -1;
    }
    int status = next(fd);
    if (faults && status == 0)
        faults->syncs++;
    return status;
}

int fsync(int fd) {
    return sync_with(next_fsync, fd);
}

int fdatasync(int fd) {
    return sync_with(next_fdatasync, fd);
}
