/*
 * Preloaded into a server, it does what somebody would do who had got into it: on one of its own
 * threads, when the test says so.
 *
 * The test shares a file with it, named by INTRUDER_FILE, which holds a struct intruder.
 * INTRUDER_PORT is a port of this machine where somebody listens, INTRUDER_OUTSIDE a file that is
 * not there, in a folder that is none of the server's.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/io_uring.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

enum { TRIES_MAX = 64, NAME_BYTES = 24 };

struct intruder {
    _Atomic uint64_t wanted; /* 1: by the loop's thread, 2: by the store's */
    _Atomic uint64_t done;
    struct {
        char name[NAME_BYTES];
        int64_t error; /* errno; 0: it worked */
    } tries[TRIES_MAX];
};

static struct intruder *intruder;

static bool closes(long fd) {
    return fd >= 0 && close((int)fd) == 0;
}

/* --- Programs and processes ------------------------------------------------------------------- */

/* Runs it in a child. */
static bool in_child(bool (*attempt)(void)) {
    int status = 0;
    pid_t child = (pid_t)syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, NULL);
    if (child == 0)
        _exit(attempt() ? 0 : errno);
    waitpid(child, &status, 0);
    errno = WIFEXITED(status) ? WEXITSTATUS(status) : EINTR;
    return errno == 0;
}

static bool run_shell(void) {
    execl("/bin/sh", "sh", "-c", "exit 0", NULL);
    return false;
}
static bool run_downloaded(void) {
    char piece[65536];
    ssize_t len;
    int own = open("/proc/self/exe", O_RDONLY), memory = memfd_create("program", 0);
    while ((len = read(own, piece, sizeof piece)) > 0)
        if (write(memory, piece, (size_t)len) != len)
            return false;
    char *arguments[] = {"longline", "--version", NULL}, *nothing[] = {NULL};
    syscall(SYS_execveat, memory, "", arguments, nothing, AT_EMPTY_PATH);
    return false;
}
static bool be_traced(void) {
    return syscall(SYS_ptrace, PTRACE_TRACEME, 0, 0, 0) == 0;
}
static bool leave_namespace(void) {
    return syscall(SYS_unshare, CLONE_NEWUSER) == 0;
}
static bool read_memory(void) {
    char to[8], from[8] = "secret";
    struct iovec into = {to, sizeof to}, out_of = {from, sizeof from};
    return process_vm_readv(getpid(), &into, 1, &out_of, 1, 0) > 0;
}
static bool make_namespace(void) {
    pid_t child = (pid_t)syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, NULL, NULL, NULL, NULL);
    if (child == 0)
        _exit(0);
    return child > 0 && waitpid(child, NULL, 0) == child;
}
static bool signal_parent(void) {
    return kill(getppid(), 0) == 0;
}
static bool be_dumpable(void) {
    return prctl(PR_SET_DUMPABLE, 1, 0, 0, 0) == 0;
}
static bool leave_core_dump(void) {
    int is_dumpable = prctl(PR_GET_DUMPABLE, 0, 0, 0, 0);
    errno = EACCES; /* the call itself works */
    return is_dumpable == 1;
}
static bool be_another_user(void) {
    return syscall(SYS_setuid, getuid()) == 0;
}

/* --- Files ------------------------------------------------------------------------------------ */

static bool read_passwd(void) {
    return closes(open("/etc/passwd", O_RDONLY));
}
static bool read_process(void) {
    return closes(open("/proc/1/status", O_RDONLY));
}
static bool write_outside(void) {
    return closes(open(getenv("INTRUDER_OUTSIDE"), O_WRONLY | O_CREAT, 0600));
}
static bool be_in_another_root(void) {
    return syscall(SYS_chroot, "/") == 0;
}

/* --- Memory ----------------------------------------------------------------------------------- */

enum { PAGE = 4096 };

static bool map(int protection) {
    void *page = mmap(NULL, PAGE, protection, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return page != MAP_FAILED && munmap(page, PAGE) == 0;
}
static bool map_code(void) {
    return map(PROT_READ | PROT_EXEC);
}
static bool map_code_to_write(void) {
    return map(PROT_READ | PROT_WRITE | PROT_EXEC);
}
static bool make_code(void) {
    void *page = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    bool ok = mprotect(page, PAGE, PROT_READ | PROT_EXEC) == 0;
    int error = errno;
    munmap(page, PAGE);
    errno = error;
    return ok;
}

/* --- Sockets ---------------------------------------------------------------------------------- */

static bool packet_socket(void) {
    return closes(socket(AF_PACKET, SOCK_RAW, 0));
}
static bool packet_socket_renamed(void) {
    return closes(socket(AF_INET, SOCK_PACKET, 0));
}
static bool raw_socket(void) {
    return closes(socket(AF_INET, SOCK_RAW, IPPROTO_ICMP));
}
static bool netlink_socket(void) {
    return closes(socket(AF_NETLINK, SOCK_RAW, 0));
}
static bool with_address(int (*call)(int, const struct sockaddr *, socklen_t), int port) {
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons((uint16_t)port),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    bool ok = call(fd, (struct sockaddr *)&address, sizeof address) == 0;
    int error = errno;
    close(fd);
    errno = error;
    return ok;
}
static bool connect_out(void) {
    return with_address(connect, atoi(getenv("INTRUDER_PORT")));
}
static bool find_interface(void) {
    return if_nametoindex("lo") != 0;
}
static bool bind_port(void) {
    return with_address(bind, 0);
}

/* --- The kernel ------------------------------------------------------------------------------- */

static bool make_ring(void) {
    struct io_uring_params parameters = {0};
    return closes(syscall(SYS_io_uring_setup, 1, &parameters));
}
/* A call that the kernel knows refuses these with another error. */
static bool use_bpf(void) {
    return syscall(SYS_bpf, -1, NULL, 0) == 0 || errno == EINVAL || errno == EPERM;
}
static bool use_keys(void) {
    return syscall(SYS_keyctl, 0, -2, 1) >= 0;
}
static bool type_for_others(void) {
    return ioctl(STDERR_FILENO, TIOCSTI, "x") == 0 || errno != ENOSYS;
}

static const struct {
    const char *name;
    bool (*attempt)(void);
    bool is_child; /* it is done there, or it would change this process */
} tries[TRIES_MAX] = {
    {"shell", run_shell, true},
    {"downloaded program", run_downloaded, true},
    {"ptrace", be_traced, true},
    {"unshare", leave_namespace, true},
    {"process_vm_readv", read_memory, false},
    {"namespace", make_namespace, false},
    {"signal", signal_parent, false},
    {"dumpable", be_dumpable, true},
    {"core dump", leave_core_dump, false},
    {"setuid", be_another_user, true},
    {"passwd", read_passwd, false},
    {"another process", read_process, false},
    {"write outside", write_outside, false},
    {"chroot", be_in_another_root, true},
    {"code", map_code, false},
    {"writable code", map_code_to_write, false},
    {"mprotect", make_code, false},
    {"AF_PACKET", packet_socket, false},
    {"SOCK_PACKET", packet_socket_renamed, false},
    {"SOCK_RAW", raw_socket, false},
    {"AF_NETLINK", netlink_socket, false},
    {"connect", connect_out, false},
    {"bind", bind_port, false},
    {"interface", find_interface, false},
    {"io_uring", make_ring, false},
    {"bpf", use_bpf, false},
    {"keyctl", use_keys, false},
    {"TIOCSTI", type_for_others, false},
};

static void intrude(uint64_t thread) {
    if (!intruder || intruder->wanted != thread)
        return;
    int before = errno;
    intruder->wanted = 0;
    for (size_t i = 0; i < TRIES_MAX && tries[i].name; i++) {
        errno = 0;
        bool ok = tries[i].is_child ? in_child(tries[i].attempt) : tries[i].attempt();
        intruder->tries[i].error = ok ? 0 : errno;
        strncpy(intruder->tries[i].name, tries[i].name, NAME_BYTES - 1);
    }
    intruder->done++;
    errno = before;
}

int accept4(int fd, struct sockaddr *restrict address, socklen_t *restrict len, int flags) {
    static int (*next)(int, struct sockaddr *, socklen_t *, int);
    if (!next)
        *(void **)&next = dlsym(RTLD_NEXT, "accept4");
    intrude(1);
    return next(fd, address, len, flags);
}

int fdatasync(int fd) {
    static int (*next)(int);
    if (!next)
        *(void **)&next = dlsym(RTLD_NEXT, "fdatasync");
    intrude(2);
    return next(fd);
}

__attribute__((constructor)) static void begin(void) {
    int fd = open(getenv("INTRUDER_FILE"), O_RDWR | O_CLOEXEC);
    void *shared = mmap(NULL, sizeof *intruder, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (fd < 0 || shared == MAP_FAILED)
        abort();
    close(fd);
    intruder = shared;
}
