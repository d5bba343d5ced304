/*
 * Writes the seccomp filter of the server, as C, at build time: `filter ARCHITECTURE [sanitized]`.
 * So the server neither links libseccomp nor allocates for it.
 *
 * What is not in the lists gets ENOSYS, as from a kernel that is older than the call: glibc and
 * libuv then do without. A call in the wrong architecture's way kills.
 */
#include <errno.h>
#include <linux/sched.h>
#include <linux/sockios.h>
#include <seccomp.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

struct bpf {
    uint16_t code;
    uint8_t if_true, if_false;
    uint32_t k;
};

static const char *const allowed[] = {
    /* files */
    "access", "chmod", "close", "close_range", "dup", "dup2", "dup3", "faccessat", "faccessat2",
    "fadvise64", "fallocate", "fchmod", "fchmodat", "fchown", "fcntl", "fdatasync", "flock",
    "fstat", "fstatfs", "fsync", "ftruncate", "getcwd", "getdents64", "lseek", "lstat", "mkdir",
    "mkdirat", "newfstatat", "open", "openat", "pread64", "preadv", "preadv2", "pwrite64",
    "pwritev", "pwritev2", "read", "readlink", "readlinkat", "readv", "rename", "renameat",
    "renameat2", "stat", "statfs", "statx", "sync_file_range", "umask", "unlink", "unlinkat",
    "write", "writev",
    /* sockets; the next program listens on those that it is given */
    "accept", "accept4", "connect", "getpeername", "getsockname", "getsockopt", "listen",
    "recvfrom", "recvmmsg", "recvmsg", "sendmmsg", "sendmsg", "sendto", "setsockopt", "shutdown",
    /* waiting */
    "clock_nanosleep", "epoll_create1", "epoll_ctl", "epoll_pwait", "epoll_wait", "eventfd2",
    "futex", "io_uring_enter", "nanosleep", "pipe", "pipe2", "poll", "ppoll", "pselect6",
    "restart_syscall", "select",
    /* memory; what can make code of it is below */
    "brk", "madvise", "membarrier", "mremap", "msync", "munmap",
    /* clocks and numbers */
    "clock_getres", "clock_gettime", "getrandom", "getrusage", "gettimeofday", "sysinfo", "time",
    "times", "uname",
    /* threads, processes, signals: the check of an upgrade is a child */
    "arch_prctl", "execve", "execveat", "exit", "exit_group", "fork", "get_robust_list", "getegid",
    "geteuid", "getgid", "getgroups", "getpgid", "getpid", "getppid", "getresgid", "getresuid",
    "getrlimit", "getsid", "gettid", "getuid", "kill", "prlimit64", "rseq", "rt_sigaction",
    "rt_sigpending", "rt_sigprocmask", "rt_sigreturn", "rt_sigsuspend", "rt_sigtimedwait",
    "sched_get_priority_max", "sched_get_priority_min", "sched_getaffinity", "sched_getparam",
    "sched_getscheduler", "sched_yield", "set_robust_list", "set_tid_address", "setrlimit",
    "setsid", "sigaltstack", "tgkill", "vfork", "wait4", "waitid",
    /* the next program may leave itself even less */
    "landlock_add_rule", "landlock_create_ruleset", "landlock_restrict_self", "seccomp"};

/* What the sanitizers need, at the latest when they look for leaks at the end. */
static const char *const allowed_to_sanitizers[] = {"getdents",         "personality", "prctl",
                                                    "process_vm_readv", "ptrace",      "tkill"};

enum { NOEXEC_SEAL = 8 }; /* MFD_NOEXEC_SEAL, since Linux 6.3 */
static const uint64_t namespaces = CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC |
                                   CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWTIME;
static const uint64_t prctls[] = {PR_SET_NAME,         PR_GET_NAME,         PR_GET_DUMPABLE,
                                  PR_SET_NO_NEW_PRIVS, PR_GET_NO_NEW_PRIVS, PR_GET_SECCOMP,
                                  PR_CAPBSET_READ,     PR_SET_VMA /* names for memory */};
static const uint64_t ioctls[] = {
    FIONREAD,    FIONBIO, FIONCLEX, FIOCLEX, TCGETS, TIOCGWINSZ, SIOCOUTQ, 0x802c542a /* TCGETS2 */,
    SIOCGIFINDEX /* of fe80::1%eth0, as the address of a name server can be */};

static scmp_filter_ctx filter;
static uint32_t architecture;
static int failed;

/* A call of the architecture, with what its arguments must be. */
static void allow(const char *name, unsigned count, const struct scmp_arg_cmp *arguments) {
    int call = seccomp_syscall_resolve_name(name); /* here: a rule is translated */
    int error =
        call < 0 ? 0 : seccomp_rule_add_array(filter, SCMP_ACT_ALLOW, call, count, arguments);
    if (error)
        fprintf(stderr, "%s: %s\n", name, strerror(-error));
    failed = failed ? failed : error;
}

static void allow_value(const char *name, unsigned argument, uint64_t value) {
    allow(name, 1, &SCMP_CMP(argument, SCMP_CMP_EQ, value));
}

/* If none of the bits is set. */
static void allow_without(const char *name, unsigned argument, uint64_t bits) {
    allow(name, 1, &SCMP_CMP(argument, SCMP_CMP_MASKED_EQ, bits, 0));
}

/* SOCK_PACKET would be a packet socket under the name of AF_INET. */
static void allow_sockets(const char *name, int family) {
    for (int type = SOCK_STREAM; type <= SOCK_DGRAM; type++) {
        struct scmp_arg_cmp arguments[] = {
            SCMP_CMP(0, SCMP_CMP_EQ, (uint64_t)family),
            SCMP_CMP(1, SCMP_CMP_MASKED_EQ, (uint64_t)(uint32_t)~(SOCK_CLOEXEC | SOCK_NONBLOCK),
                     (uint64_t)type)};
        allow(name, 2, arguments);
    }
}

/* Memory that is code comes from a file, and cannot be written. A file in memory cannot be run,
 * where the kernel can promise that. */
static void allow_memory(int has_noexec_seal) {
    if (has_noexec_seal)
        allow("memfd_create", 1, &SCMP_CMP(1, SCMP_CMP_MASKED_EQ, NOEXEC_SEAL, NOEXEC_SEAL));
    else
        allow("memfd_create", 0, NULL);
    allow_without("mprotect", 2, PROT_EXEC);
    allow_without("mmap", 2, PROT_EXEC);
    struct scmp_arg_cmp of_file[] = {
        SCMP_CMP(2, SCMP_CMP_MASKED_EQ, PROT_EXEC | PROT_WRITE, PROT_EXEC),
        SCMP_CMP(3, SCMP_CMP_MASKED_EQ, MAP_ANONYMOUS, 0)};
    allow("mmap", 2, of_file);
}

static void allow_all(int is_sanitized, int has_noexec_seal) {
    for (size_t i = 0; i < sizeof allowed / sizeof *allowed; i++)
        allow(allowed[i], 0, NULL);
    for (size_t i = 0; i < sizeof allowed_to_sanitizers / sizeof *allowed_to_sanitizers; i++)
        if (is_sanitized)
            allow(allowed_to_sanitizers[i], 0, NULL);
    for (size_t i = 0; i < sizeof prctls / sizeof *prctls && !is_sanitized; i++)
        allow_value("prctl", 0, prctls[i]);
    for (size_t i = 0; i < sizeof ioctls / sizeof *ioctls; i++)
        allow_value("ioctl", 1, ioctls[i]);
    allow_sockets("socket", AF_INET);
    allow_sockets("socket", AF_INET6);
    allow_sockets("socket", AF_UNIX);
    allow_sockets("socketpair", AF_UNIX);
    allow_without("clone", 0, namespaces);
    allow_memory(has_noexec_seal);
    if (!is_sanitized) { /* dumpable: 0, never 1 */
        struct scmp_arg_cmp arguments[] = {SCMP_CMP(0, SCMP_CMP_EQ, PR_SET_DUMPABLE),
                                           SCMP_CMP(1, SCMP_CMP_EQ, 0)};
        allow("prctl", 2, arguments);
    }
}

/* The instructions as elements of an array. */
static int print_filter(const char *name) {
    struct bpf code;
    int file = memfd_create("filter", 0);
    if (seccomp_export_bpf(filter, file) != 0 || lseek(file, 0, SEEK_SET) != 0)
        return 1;
    printf("#define %s \\\n", name);
    while (read(file, &code, sizeof code) == sizeof code)
        printf("    {0x%02x, %u, %u, 0x%08x}, \\\n", code.code, code.if_true, code.if_false,
               code.k);
    puts("");
    return close(file);
}

static int make_filter(const char *name, int is_sanitized, int has_noexec_seal) {
    filter = seccomp_init(SCMP_ACT_ERRNO(ENOSYS));
    if (!filter || (seccomp_arch_native() != architecture &&
                    (seccomp_arch_add(filter, architecture) != 0 ||
                     seccomp_arch_remove(filter, SCMP_ARCH_NATIVE) != 0)))
        return 1;
    seccomp_attr_set(filter, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS);
    seccomp_attr_set(filter, SCMP_FLTATR_CTL_OPTIMIZE, 2);
    allow_all(is_sanitized, has_noexec_seal);
    if (!failed)
        failed = print_filter(name);
    seccomp_release(filter);
    return failed;
}

int main(int argc, char **argv) {
    int is_arm = argc > 1 && strcmp(argv[1], "aarch64") == 0;
    if (argc < 2 || (!is_arm && strcmp(argv[1], "x86_64") != 0))
        return puts("/* There is no filter for this processor. */") < 0;
    architecture = is_arm ? SCMP_ARCH_AARCH64 : SCMP_ARCH_X86_64;
    int is_sanitized = argc > 2 && strcmp(argv[2], "sanitized") == 0;
    puts("/* Made by filter.c. */");
    return make_filter("SANDBOX_FILTER", is_sanitized, 1) ||
           make_filter("SANDBOX_FILTER_WITHOUT_SEAL", is_sanitized, 0);
}
