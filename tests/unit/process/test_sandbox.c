/*
 * What the server gives up on kernels of all ages, which are played here. Each case is a process of
 * its own, which says in its log how far it got.
 */
#include "support.h"

#include "base/log.h"
#include "process/sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { CREATE_RULESET = 444, ADD_RULE = 445, RESTRICT_SELF = 446, NOEXEC_SEAL = 8 };

/* What the kernel does; zeros mean that all goes well. */
struct kernel {
    int landlock;          /* its version; 0: there is none */
    int no_ruleset;        /* errno */
    int no_rule;           /* the same, of the third */
    int no_restriction;    /* the same */
    int no_seccomp;        /* the same */
    bool has_other_filter; /* in another thread */
    bool is_before_5_16;
    bool is_before_6_3; /* no seal, */
    bool has_no_memory_files;
    bool is_9p; /* no rule holds */
    bool has_no_processes;
};
static struct kernel kernel;

/* What it was asked for. */
static struct {
    size_t ruleset_bytes;
    int rules, filter_len;
    unsigned long filter_flags;
    unsigned memory_flags;
} asked;

static int fails_with(int error) {
    errno = error;
    return error ? -1 : 0;
}

static long create_ruleset(const void *ruleset, size_t size) {
    if (!ruleset)
        return kernel.landlock ? kernel.landlock : fails_with(EOPNOTSUPP);
    asked.ruleset_bytes = size;
    return kernel.no_ruleset ? fails_with(kernel.no_ruleset) : open("/dev/null", O_RDONLY);
}

static long seccomp(unsigned long flags, const struct sock_fprog *program) {
    asked.filter_len = program->len;
    asked.filter_flags = flags;
    if (kernel.is_before_5_16 && flags & SECCOMP_FILTER_FLAG_SPEC_ALLOW)
        return fails_with(EINVAL);
    return kernel.no_seccomp ? fails_with(kernel.no_seccomp) : kernel.has_other_filter ? 4711 : 0;
}

long __wrap_syscall(long number, ...);
long __wrap_syscall(long number, ...) {
    va_list list;
    va_start(list, number);
    long arguments[4];
    for (int i = 0; i < 4; i++)
        arguments[i] = va_arg(list, long);
    va_end(list);
    switch (number) {
    case CREATE_RULESET: return create_ruleset((void *)arguments[0], (size_t)arguments[1]);
    case ADD_RULE: return ++asked.rules == 3 ? fails_with(kernel.no_rule) : 0;
    case RESTRICT_SELF: return fails_with(kernel.no_restriction);
    case SYS_seccomp: return seccomp((unsigned long)arguments[1], (void *)arguments[2]);
    default: abort();
    }
}

int __real_memfd_create(const char *name, unsigned flags);
int __wrap_memfd_create(const char *name, unsigned flags);
int __wrap_memfd_create(const char *name, unsigned flags) {
    asked.memory_flags = flags;
    if (kernel.has_no_memory_files)
        return fails_with(ENFILE);
    if (kernel.is_before_6_3 && flags & NOEXEC_SEAL)
        return fails_with(EINVAL);
    int fd = __real_memfd_create(name, flags);
    return fd < 0 ? __real_memfd_create(name, flags & ~(unsigned)NOEXEC_SEAL) : fd;
}

int __real_open64(const char *path, int flags, ...);
int __wrap_open64(const char *path, int flags, ...);
int __wrap_open64(const char *path, int flags, ...) {
    if (kernel.is_9p && flags == O_RDONLY && strcmp(path, "/tmp") == 0)
        return fails_with(EACCES);
    return __real_open64(path, flags);
}

pid_t __real_fork(void);
pid_t __wrap_fork(void);
pid_t __wrap_fork(void) {
    return kernel.has_no_processes ? fails_with(EAGAIN) : __real_fork();
}

/* --- A process of its own --------------------------------------------------------------------- */

/* As serve.c does it. */
static void play(bool is_successor) {
    sandbox_begin(is_successor, true);
    sandbox_allow_folder_of("/bin/longline", SANDBOX_RUN);
    sandbox_allow_folder_of("/tmp/longline.db", SANDBOX_WRITE);
    sandbox_allow_folder_of("", SANDBOX_READ);
    sandbox_allow_folder_of("socket", SANDBOX_BIND);
    sandbox_restrict_files();
    sandbox_restrict_calls();
    sandbox_log();
    sandbox_hand_over();
    const char *inherited = getenv("LONGLINE_SANDBOX");
    fprintf(stderr, "inherits=%s size=%zu %s\n", inherited ? inherited : "", asked.ruleset_bytes,
            asked.rules > 10 ? "many rules" : "few rules");
}

/* What such a process says. */
static const char *said_by(const struct kernel *of, bool is_successor) {
    static char text[4096];
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    pid_t child = fork();
    if (child == 0) {
        dup2(ends[1], STDERR_FILENO);
        kernel = *of;
        play(is_successor);
        fprintf(stderr, "filter=%d\n", asked.filter_len);
        _exit(0);
    }
    close(ends[1]);
    size_t len = 0;
    ssize_t more;
    while ((more = read(ends[0], text + len, sizeof text - 1 - len)) > 0)
        len += (size_t)more;
    text[len] = '\0';
    close(ends[0]);
    int status = 1;
    waitpid(child, &status, 0);
    assert_int_equal(status, 0);
    return text;
}

static void check_said(const struct kernel *of, bool is_successor, const char *wanted) {
    const char *said = said_by(of, is_successor);
    if (!strstr(said, wanted))
        fail_msg("wanted: %s\nsaid:   %s", wanted, said);
}

#define BOTH "landlock=on seccomp=on\ninherits=3 "
#define NO_FILES(why) "landlock=\"" why "\" seccomp=on\ninherits=2 "
#define NO_CALLS(why) "landlock=on seccomp=\"" why "\"\ninherits=1 "

static void test_kernels(void **state) {
    (void)state;
    static const struct {
        struct kernel kernel;
        const char *said;
    } cases[] = {
        {{.landlock = 1}, BOTH "size=8 many rules"},
        {{.landlock = 3}, BOTH "size=8 many rules"},
        {{.landlock = 4}, BOTH "size=16 many rules"},
        {{.landlock = 7}, BOTH "size=24 many rules"},
        {{.landlock = 0}, NO_FILES("Operation not supported") "size=0 few rules"},
        {{.landlock = 6, .no_ruleset = EMFILE}, NO_FILES("Too many open files") "size=24 few"},
        {{.landlock = 6, .no_rule = ENOMEM}, NO_FILES("Cannot allocate memory") "size=24 few"},
        {{.landlock = 6, .no_restriction = E2BIG}, NO_FILES("Argument list too long")},
        {{.landlock = 6, .is_9p = true}, NO_FILES("no rule holds for the folder of the data")},
        {{.landlock = 6, .has_no_processes = true}, BOTH},
        {{.landlock = 6, .is_before_5_16 = true}, BOTH},
        {{.landlock = 6, .no_seccomp = EINVAL}, NO_CALLS("Invalid argument")},
        {{.landlock = 6, .no_seccomp = ENOMEM}, NO_CALLS("Cannot allocate memory")},
        {{.landlock = 6, .has_other_filter = true}, NO_CALLS("a thread has another filter")},
        {{.landlock = 0, .no_seccomp = ENOSYS},
         "landlock=\"Operation not supported\" seccomp=\"Function not implemented\"\ninherits= "},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        check_said(&cases[i].kernel, false, cases[i].said);
}

/* Where a file in memory cannot be kept from being run, the filter does without that. */
static void test_memory_files(void **state) {
    (void)state;
    struct kernel older = {.landlock = 6, .is_before_6_3 = true},
                  none = {.landlock = 6, .has_no_memory_files = true};
    char filter[64];
    const char *at = strstr(said_by(&older, false), "filter=");
    assert_non_null(at);
    snprintf(filter, sizeof filter, "%s", at);
    assert_string_not_equal(filter, "filter=0\n");
    check_said(&none, false, filter);
    kernel = none;
    assert_int_equal(sandbox_memory_file("test"), -1);
    assert_int_equal(errno, ENFILE);
    kernel = older;
    int fd = sandbox_memory_file("test");
    assert_true(fd >= 0);
    close(fd);
    kernel = (struct kernel){0};
    close(sandbox_memory_file("test"));
    assert_int_equal(asked.memory_flags, MFD_CLOEXEC | NOEXEC_SEAL);
}

/* No thread is left out, and none of it can be undone. */
static void test_the_process(void **state) {
    (void)state;
    enum { DUMPS = 1, GAINS = 2, LEAVES_THREADS_OUT = 4 };
    int status = -1;
    pid_t child = fork();
    if (child == 0) {
        kernel = (struct kernel){.landlock = 6};
        sandbox_forbid_core_dumps();
        sandbox_begin(false, false);
        sandbox_restrict_calls();
        bool is_for_all = asked.filter_flags & SECCOMP_FILTER_FLAG_TSYNC;
        _exit((prctl(PR_GET_DUMPABLE) ? DUMPS : 0) |
              (prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) ? 0 : GAINS) |
              (is_for_all ? 0 : LEAVES_THREADS_OUT));
    }
    waitpid(child, &status, 0);
    assert_int_equal(status, 0);
}

/* What the program before had given up stays given up. */
static void test_a_successor(void **state) {
    (void)state;
    struct kernel nothing = {.landlock = 0, .no_seccomp = ENOSYS};
    setenv("LONGLINE_SANDBOX", "3", 1);
    check_said(&nothing, true, BOTH "size=0 few rules\nfilter=0");
    setenv("LONGLINE_SANDBOX", "2", 1);
    check_said(&nothing, true, NO_FILES("Operation not supported"));
    setenv("LONGLINE_SANDBOX", "3", 1);
    check_said(&nothing, false, "seccomp=\"Function not implemented\"\ninherits= ");
    unsetenv("LONGLINE_SANDBOX");
    check_said(&nothing, true, "seccomp=\"Function not implemented\"\ninherits= ");
}

/* Places that cannot be named, or are not there, get no rule, and the others do. */
static void test_places(void **state) {
    (void)state;
    struct kernel good = {.landlock = 6};
    char *list = malloc(2 * PATH_MAX), *path = malloc(2 * PATH_MAX);
    memset(list, 'x', 2 * PATH_MAX);
    strcpy(list + 2 * PATH_MAX - sizeof ":/etc", ":/etc");
    setenv("SSL_CERT_FILE", "/no/such/file", 1);
    setenv("SSL_CERT_DIR", list, 1);
    check_said(&good, false, BOTH);
    setenv("SSL_CERT_FILE", "/etc/hosts", 1);
    check_said(&good, false, BOTH);
    memset(path, 'x', 2 * PATH_MAX);
    *path = '/';
    strcpy(path + 2 * PATH_MAX - sizeof "/x", "/x");
    kernel = good;
    sandbox_begin(false, false);
    int rules = asked.rules;
    sandbox_allow_folder_of(path, SANDBOX_READ);
    assert_int_equal(asked.rules, rules);
    sandbox_allow_folder_of("/etc/hosts", SANDBOX_READ);
    assert_true(asked.rules > rules);
    sandbox_restrict_files();
    unsetenv("SSL_CERT_FILE");
    unsetenv("SSL_CERT_DIR");
    free(list);
    free(path);
}

int main(void) {
    log_init(LOG_LEVEL_INFO, false);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_kernels),     cmocka_unit_test(test_memory_files),
        cmocka_unit_test(test_the_process), cmocka_unit_test(test_a_successor),
        cmocka_unit_test(test_places),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
