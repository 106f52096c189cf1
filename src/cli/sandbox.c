#include "cli/sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/landlock.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "cli/message.h"

/* What is read after a model is open: memory and limits (/proc, /sys), the terminal's abilities,
 * time zone and locale. /proc tells nothing of other processes that landlock would not: it keeps us
 * from whatever needs the right to trace them. */
static const char *const readable[] = {"/proc",
                                       "/sys/devices/system",
                                       "/sys/fs/cgroup",
                                       "/etc/localtime",
                                       "/etc/terminfo",
                                       "/lib/terminfo",
                                       "/usr/lib/terminfo",
                                       "/usr/share",
                                       NULL};

/* Rights that the system's headers may be too old for, by the version that brought them. */
enum {
    ACCESS_REFER = 1 << 13,     /* 2 */
    ACCESS_TRUNCATE = 1 << 14,  /* 3 */
    ACCESS_IOCTL_DEV = 1 << 15, /* 5 */
    NET_BIND_CONNECT = 3,       /* 4 */
    SCOPE_SOCKETS_SIGNALS = 3,  /* 6 */
};

enum {
    READ = LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR,
    WRITE = LANDLOCK_ACCESS_FS_WRITE_FILE | LANDLOCK_ACCESS_FS_REMOVE_DIR |
            LANDLOCK_ACCESS_FS_REMOVE_FILE | LANDLOCK_ACCESS_FS_MAKE_DIR |
            LANDLOCK_ACCESS_FS_MAKE_REG | ACCESS_REFER | ACCESS_TRUNCATE,
    ON_FILES = LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_WRITE_FILE | ACCESS_TRUNCATE,
    NEVER = LANDLOCK_ACCESS_FS_EXECUTE | LANDLOCK_ACCESS_FS_MAKE_CHAR |
            LANDLOCK_ACCESS_FS_MAKE_SOCK | LANDLOCK_ACCESS_FS_MAKE_FIFO |
            LANDLOCK_ACCESS_FS_MAKE_BLOCK | LANDLOCK_ACCESS_FS_MAKE_SYM,
};

/* As the kernel has it now; an older one takes the first members only. */
struct ruleset {
    uint64_t files, net, scoped;
};

/* 0 if the kernel has no landlock, or has it switched off. */
static int landlock_version(void) {
    long version = syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);
    return version > 0 ? (int)version : 0;
}

static uint64_t rights_known(int version) {
    uint64_t rights = READ | WRITE | NEVER;
    if (version < 2) rights &= ~(uint64_t)ACCESS_REFER;
    if (version < 3) rights &= ~(uint64_t)ACCESS_TRUNCATE;
    if (version >= 5) rights |= ACCESS_IOCTL_DEV;
    return rights;
}

/* What is not there, or may not be looked into, needs no rule. False, with errno set, if there can
 * be none, as where no descriptor is left. */
static bool allow(int ruleset, const char *path, uint64_t rights) {
    struct stat st;
    int fd = open(path, O_PATH | O_CLOEXEC);
    if (fd < 0) return errno != EMFILE && errno != ENFILE;
    bool ok = fstat(fd, &st) == 0;
    if (ok) {
        if (!S_ISDIR(st.st_mode)) rights &= ON_FILES;
        struct landlock_path_beneath_attr rule = {.allowed_access = rights, .parent_fd = fd};
        ok = syscall(SYS_landlock_add_rule, ruleset, LANDLOCK_RULE_PATH_BENEATH, &rule, 0) == 0;
    }
    int why = errno;
    close(fd);
    errno = why;
    return ok;
}

static bool enter_landlock(const char *const *folders) {
    int version = landlock_version();
    if (!version) return false;
    uint64_t known = rights_known(version);
    struct ruleset rules = {known, NET_BIND_CONNECT, SCOPE_SOCKETS_SIGNALS};
    size_t size = version >= 6 ? sizeof rules : version >= 4 ? 16 : 8;
    int ruleset = (int)syscall(SYS_landlock_create_ruleset, &rules, size, 0);
    if (ruleset < 0) {
        message_note("the sandbox is without landlock: %s", strerror(errno));
        return false;
    }
    bool ok = true;
    for (; ok && *folders; folders++) ok = allow(ruleset, *folders, (READ | WRITE) & known);
    for (const char *const *path = readable; ok && *path; path++) ok = allow(ruleset, *path, READ);
    if (!ok) message_note("the sandbox keeps more shut than it should: %s", strerror(errno));
    bool entered = syscall(SYS_landlock_restrict_self, ruleset, 0) == 0;
    if (!entered) message_note("the sandbox is without landlock: %s", strerror(errno));
    close(ruleset);
    return entered;
}

int sandbox_enter(const char *const *folders) {
    int means = 0;
    bool writes = *folders != NULL;
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return 0;
    if (enter_landlock(folders)) means |= SANDBOX_LANDLOCK;
    if (sandbox_filter_enter(writes)) means |= SANDBOX_SECCOMP;
    return means;
}

bool sandbox_by_default(void) {
#ifdef SANDBOX_OFF
    return false;
#else
    return true;
#endif
}

void sandbox_describe(char *text, size_t size) {
    int version = landlock_version();
    bool filter = sandbox_filter_offered();
    if (!sandbox_by_default())
        snprintf(text, size, "off: this build's instruments need what it refuses");
    else if (version && filter)
        snprintf(text, size, "seccomp and landlock (version %d)", version);
    else if (filter)
        snprintf(text, size, "seccomp; this kernel offers no landlock");
    else if (version)
        snprintf(text, size, "landlock (version %d); this kernel offers no seccomp", version);
    else
        snprintf(text, size, "none: this kernel offers neither seccomp nor landlock");
}
