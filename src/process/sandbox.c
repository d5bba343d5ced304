#include "process/sandbox.h"
#include "base/log.h"
#include "base/slice.h"
#include "sandbox_filter.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <link.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* linux/landlock.h, which may be older than the kernel that we run on, or missing. */
enum {
    CREATE_RULESET = 444,
    ADD_RULE = 445,
    RESTRICT_SELF = 446,
    WANTS_VERSION = 1,
    PATH_BENEATH = 1,
};
enum {
    EXECUTE = 1 << 0,
    WRITE_FILE = 1 << 1,
    READ_FILE = 1 << 2,
    READ_DIR = 1 << 3,
    REMOVE_FILE = 1 << 5,
    MAKE_REG = 1 << 8,
    MAKE_SOCK = 1 << 9,
    TRUNCATE = 1 << 14,
    OF_FILES = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE, /* and not of folders */
    CONNECT_TCP = 1 << 1,
    ABSTRACT_SOCKETS = 1 << 0,
    SIGNALS = 1 << 1,
};
struct ruleset {
    uint64_t files, network, scopes;
};
struct rule {
    uint64_t allowed;
    int32_t parent;
} __attribute__((packed));

/* For the program that this one becomes: which of the two it is under, "1" or "3". */
#define INHERITED "LONGLINE_SANDBOX"
enum { FILES = 1, CALLS = 2 };

static struct {
    int version;          /* of Landlock; 0: there is none */
    int ruleset;          /* -1: none */
    uint64_t handled;     /* what the ruleset forbids unless a rule allows it */
    unsigned inherited;   /* FILES, CALLS */
    unsigned on;          /* the same, with those that are inherited */
    const char *no_files; /* why they are not; NULL: they are, or nobody wants them */
    const char *no_calls;
    char needed[PATH_MAX]; /* a folder without which there is no start */
} sandbox = {.ruleset = -1};

/* --- Files ------------------------------------------------------------------------------------ */

/* What the kernel has, by the version of Landlock. */
static uint64_t known_rights(int version) {
    enum { FIRST = 13 }; /* version 1 has so many */
    int count = FIRST + (version >= 2) + (version >= 3) + (version >= 5);
    return ((uint64_t)1 << count) - 1;
}

static size_t ruleset_size(int version) {
    return version >= 6 ? sizeof(struct ruleset) : version >= 4 ? 16 : 8;
}

/* systemd may listen on an abstract socket. */
static bool needs_abstract_sockets(void) {
    const char *notify = getenv("NOTIFY_SOCKET");
    return notify && *notify == '@';
}

static void make_ruleset(bool connects) {
    sandbox.version = (int)syscall(CREATE_RULESET, NULL, 0, WANTS_VERSION);
    if (sandbox.version <= 0) {
        sandbox.no_files = strerror(errno);
        sandbox.version = 0;
        return;
    }
    struct ruleset ruleset = {
        .files = known_rights(sandbox.version),
        .network = connects ? 0 : CONNECT_TCP,
        .scopes = SIGNALS | (needs_abstract_sockets() ? 0 : ABSTRACT_SOCKETS),
    };
    sandbox.handled = ruleset.files;
    sandbox.ruleset = (int)syscall(CREATE_RULESET, &ruleset, ruleset_size(sandbox.version), 0);
    if (sandbox.ruleset < 0)
        sandbox.no_files = strerror(errno);
}

static uint64_t rights_of(unsigned uses) {
    uint64_t rights = 0;
    if (uses & SANDBOX_READ)
        rights |= READ_FILE | READ_DIR;
    if (uses & SANDBOX_RUN)
        rights |= READ_FILE | READ_DIR | EXECUTE;
    if (uses & SANDBOX_WRITE)
        rights |= READ_FILE | READ_DIR | WRITE_FILE | TRUNCATE | MAKE_REG | REMOVE_FILE;
    if (uses & SANDBOX_BIND)
        rights |= MAKE_SOCK | REMOVE_FILE;
    return rights;
}

/* Without one of the rules, the others would forbid what the server needs. */
static void give_up_files(const char *why) {
    sandbox.no_files = why;
    close(sandbox.ruleset);
    sandbox.ruleset = -1;
}

void sandbox_allow(const char *path, unsigned uses) {
    struct stat status;
    struct rule rule = {.allowed = rights_of(uses) & sandbox.handled};
    rule.parent = sandbox.ruleset < 0 ? -1 : open(path, O_PATH | O_CLOEXEC);
    if (rule.parent < 0)
        return;
    if (fstat(rule.parent, &status) == 0 && !S_ISDIR(status.st_mode))
        rule.allowed &= OF_FILES;
    if (rule.allowed && syscall(ADD_RULE, sandbox.ruleset, PATH_BENEATH, &rule, 0) != 0)
        give_up_files(strerror(errno));
    close(rule.parent);
}

/* Cuts the last name off: "." when there is no other. */
static void cut_name(char path[PATH_MAX]) {
    char *slash = strrchr(path, '/');
    if (!slash)
        strcpy(path, ".");
    else
        slash[slash == path] = '\0';
}

void sandbox_allow_folder_of(const char *path, unsigned uses) {
    char folder[PATH_MAX];
    if (sandbox.ruleset < 0 || !*path)
        return;
    if (!(uses & SANDBOX_RUN) &&
        (size_t)snprintf(folder, sizeof folder, "%s", path) < sizeof folder) {
        cut_name(folder);
        sandbox_allow(folder, uses);
    }
    if (realpath(path, folder) || errno == ENOENT) { /* up to the name that is not there */
        cut_name(folder);
        sandbox_allow(folder, uses);
        if (uses & SANDBOX_WRITE)
            strcpy(sandbox.needed, folder);
    }
}

/* Of what is loaded now: libraries, and what is preloaded. The next program loads it again, by the
 * same loader. */
static int allow_loaded(struct dl_phdr_info *info, size_t size __attribute__((unused)),
                        void *context __attribute__((unused))) {
    for (int i = 0; i < info->dlpi_phnum; i++)
        if (info->dlpi_phdr[i].p_type == PT_INTERP)
            sandbox_allow_folder_of((const char *)(info->dlpi_addr + info->dlpi_phdr[i].p_vaddr),
                                    SANDBOX_RUN);
    if (*info->dlpi_name == '/')
        sandbox_allow_folder_of(info->dlpi_name, SANDBOX_READ);
    return 0;
}

static void allow_system(void) {
    static const char *const folders[] = {"/lib",
                                          "/lib64",
                                          "/usr/lib",
                                          "/usr/lib64",
                                          "/usr/local/lib",
                                          "/etc/hosts",
                                          "/etc/resolv.conf",
                                          "/etc/nsswitch.conf",
                                          "/etc/host.conf",
                                          "/etc/gai.conf",
                                          "/etc/ld.so.cache",
                                          "/etc/localtime",
                                          "/usr/share/zoneinfo",
                                          "/dev/urandom",
                                          SANDBOX_PROC};
    for (size_t i = 0; i < sizeof folders / sizeof *folders; i++)
        sandbox_allow(folders[i], SANDBOX_READ);
    sandbox_allow("/dev/null", SANDBOX_READ | SANDBOX_WRITE);
    dl_iterate_phdr(allow_loaded, NULL);
#ifdef SANDBOX_COVERAGE /* the next program counts there, too */
    sandbox_allow(SANDBOX_COVERAGE, SANDBOX_WRITE);
#endif
}

/* Names are looked up at any time, and files in /etc are replaced. */
static void allow_network(void) {
    static const char *const folders[] = {"/etc", "/usr/share/ca-certificates",
                                          "/usr/local/share/ca-certificates",
                                          "/var/lib/ca-certificates", "/usr/share/crypto-policies"};
    const char *file = getenv("SSL_CERT_FILE"), *list = getenv("SSL_CERT_DIR");
    struct slice rest = slice_of(list ? list : ""), folder;
    char path[PATH_MAX];
    for (size_t i = 0; i < sizeof folders / sizeof *folders; i++)
        sandbox_allow(folders[i], SANDBOX_READ);
    sandbox_allow_folder_of("/etc/resolv.conf", SANDBOX_READ);
    if (file && access(file, F_OK) == 0)
        sandbox_allow_folder_of(file, SANDBOX_READ);
    while (slice_cut(&rest, ':', &folder)) {
        int len = snprintf(path, sizeof path, "%.*s", (int)folder.len, folder.data);
        if (len < (int)sizeof path)
            sandbox_allow(path, SANDBOX_READ);
    }
}

void sandbox_begin(bool is_successor, bool connects) {
    const char *inherited = getenv(INHERITED);
    sandbox.inherited = is_successor && inherited ? (unsigned)atoi(inherited) & (FILES | CALLS) : 0;
    sandbox.on = sandbox.inherited;
    unsetenv(INHERITED);
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); /* both need it, but for root */
    if (sandbox.inherited & FILES)
        return;
    make_ruleset(connects);
    allow_system();
    if (connects)
        allow_network();
}

/* Whether the rules hold for a folder, which a child tries. On some file systems (9p) they never
 * do: there, who opens a folder gets an inode of their own. */
static bool rules_hold(const char *folder) {
    int status = 0;
    pid_t child = fork();
    if (child == 0)
        _exit(syscall(RESTRICT_SELF, sandbox.ruleset, 0) == 0 && open(folder, O_RDONLY) < 0);
    return child < 0 || waitpid(child, &status, 0) != child || status == 0;
}

void sandbox_restrict_files(void) {
    if (sandbox.ruleset < 0)
        return;
    if (*sandbox.needed && !rules_hold(sandbox.needed)) {
        give_up_files("no rule holds for the folder of the data");
        return;
    }
    if (syscall(RESTRICT_SELF, sandbox.ruleset, 0) == 0)
        sandbox.on |= FILES;
    else
        sandbox.no_files = strerror(errno);
    close(sandbox.ruleset);
    sandbox.ruleset = -1;
}

/* --- Calls ------------------------------------------------------------------------------------ */

/* Whether a file in memory can be one that is never run. */
static bool has_noexec_seal(void) {
    int fd = sandbox_memory_file("probe");
    bool has_seal = fd >= 0 && fcntl(fd, F_GET_SEALS) & 0x20 /* F_SEAL_EXEC */;
    if (fd >= 0)
        close(fd);
    return has_seal;
}

int sandbox_memory_file(const char *name) {
    int fd = memfd_create(name, MFD_CLOEXEC | 8 /* MFD_NOEXEC_SEAL */);
    return fd < 0 && errno == EINVAL ? memfd_create(name, MFD_CLOEXEC) : fd;
}

void sandbox_restrict_calls(void) {
    if (sandbox.inherited & CALLS)
        return;
#ifdef SANDBOX_FILTER
    static struct sock_filter filter[] = {SANDBOX_FILTER};
    static struct sock_filter older[] = {SANDBOX_FILTER_WITHOUT_SEAL};
    struct sock_fprog program = {.len = sizeof filter / sizeof *filter, .filter = filter};
    if (!has_noexec_seal())
        program = (struct sock_fprog){.len = sizeof older / sizeof *older, .filter = older};
    unsigned flags = SECCOMP_FILTER_FLAG_TSYNC;
    /* Kernels before 5.16 would slow all of it down, against Spectre; those before 4.17 have no
     * such flag. */
    long result = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER,
                          flags | SECCOMP_FILTER_FLAG_SPEC_ALLOW, &program);
    if (result < 0 && errno == EINVAL)
        result = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &program);
    if (result == 0)
        sandbox.on |= CALLS;
    else
        sandbox.no_calls = result < 0 ? strerror(errno) : "a thread has another filter";
#else
    sandbox.no_calls = "not made for this processor";
#endif
}

/* --- What is told ----------------------------------------------------------------------------- */

void sandbox_log(void) {
    const char *files = sandbox.no_files ? sandbox.no_files : "off";
    const char *calls = sandbox.no_calls ? sandbox.no_calls : "off";
    log_info("sandbox", "landlock", sandbox.on & FILES ? "on" : files, "seccomp",
             sandbox.on & CALLS ? "on" : calls, NULL);
}

void sandbox_hand_over(void) {
    char text[4];
    snprintf(text, sizeof text, "%u", sandbox.on & (FILES | CALLS));
    if (sandbox.on)
        setenv(INHERITED, text, 1);
}

void sandbox_forbid_core_dumps(void) {
    prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
    setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
}
