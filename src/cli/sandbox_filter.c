#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/sched.h>
#include <linux/mman.h>
#include <linux/seccomp.h>
#include <stdint.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <termios.h>
#include <unistd.h>

#include "cli/sandbox.h"

#if defined(__x86_64__)
#define MACHINE AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define MACHINE AUDIT_ARCH_AARCH64
#else
#define MACHINE 0 /* no filter is made */
#endif

/* A system call that is let through, perhaps only with an argument as it should be: its lower half
 * without some bits, with all of some bits, or one value. Several lines for one call: any will do.
 */
enum condition { ALWAYS, WITHOUT, WITH, EQUAL, OWN_PROCESS, NO_POINTER };

struct call {
    unsigned number;
    unsigned char condition, arg;
    unsigned value;
};

enum { OPEN_WRITES = O_WRONLY | O_RDWR | O_CREAT | O_TRUNC };

static const struct call calls[] = {
    {SYS_read, ALWAYS, 0, 0},
    {SYS_write, ALWAYS, 0, 0},
    {SYS_readv, ALWAYS, 0, 0},
    {SYS_writev, ALWAYS, 0, 0},
    {SYS_pread64, ALWAYS, 0, 0},
    {SYS_lseek, ALWAYS, 0, 0},
    {SYS_close, ALWAYS, 0, 0},
    {SYS_futex, ALWAYS, 0, 0},
    {SYS_sched_yield, ALWAYS, 0, 0},
    {SYS_clock_gettime, ALWAYS, 0, 0},

    /* looking at files; opening them to read */
    {SYS_openat, WITHOUT, 2, OPEN_WRITES},
    {SYS_fstat, ALWAYS, 0, 0},
    {SYS_newfstatat, ALWAYS, 0, 0},
    {SYS_statx, ALWAYS, 0, 0},
    {SYS_statfs, ALWAYS, 0, 0},
    {SYS_fstatfs, ALWAYS, 0, 0},
    {SYS_faccessat, ALWAYS, 0, 0},
#ifdef SYS_faccessat2
    {SYS_faccessat2, ALWAYS, 0, 0},
#endif
    {SYS_readlinkat, ALWAYS, 0, 0},
    {SYS_getdents64, ALWAYS, 0, 0},
    {SYS_getcwd, ALWAYS, 0, 0},
    {SYS_fadvise64, ALWAYS, 0, 0},
    {SYS_fcntl, EQUAL, 1, F_GETFD},
    {SYS_fcntl, EQUAL, 1, F_SETFD},
    {SYS_fcntl, EQUAL, 1, F_GETFL},
    {SYS_fcntl, EQUAL, 1, F_SETFL},
    {SYS_fcntl, EQUAL, 1, F_DUPFD_CLOEXEC},
#ifdef SYS_open
    {SYS_open, WITHOUT, 1, OPEN_WRITES},
    {SYS_stat, ALWAYS, 0, 0},
    {SYS_lstat, ALWAYS, 0, 0},
    {SYS_access, ALWAYS, 0, 0},
    {SYS_readlink, ALWAYS, 0, 0},
#endif

    /* memory, none of it executable */
    {SYS_brk, ALWAYS, 0, 0},
    {SYS_mmap, WITHOUT, 2, PROT_EXEC},
    {SYS_mprotect, WITHOUT, 2, PROT_EXEC},
    {SYS_munmap, ALWAYS, 0, 0},
    {SYS_mremap, ALWAYS, 0, 0},
    {SYS_madvise, ALWAYS, 0, 0},

    /* threads of this process */
    {SYS_clone, WITH, 0, CLONE_THREAD | CLONE_VM},
    {SYS_set_robust_list, ALWAYS, 0, 0},
#ifdef SYS_rseq
    {SYS_rseq, ALWAYS, 0, 0},
#endif
    {SYS_set_tid_address, ALWAYS, 0, 0},
    {SYS_membarrier, ALWAYS, 0, 0},
    {SYS_gettid, ALWAYS, 0, 0},
    {SYS_getpid, ALWAYS, 0, 0},
    {SYS_getppid, ALWAYS, 0, 0},
    {SYS_getpgid, ALWAYS, 0, 0},
    {SYS_getuid, ALWAYS, 0, 0},
    {SYS_geteuid, ALWAYS, 0, 0},
    {SYS_getgid, ALWAYS, 0, 0},
    {SYS_getegid, ALWAYS, 0, 0},
    {SYS_exit, ALWAYS, 0, 0},
    {SYS_exit_group, ALWAYS, 0, 0},

    /* the machine, limits, time, chance */
    {SYS_sched_getaffinity, ALWAYS, 0, 0},
    {SYS_getcpu, ALWAYS, 0, 0},
    {SYS_sysinfo, ALWAYS, 0, 0},
    {SYS_uname, ALWAYS, 0, 0},
    {SYS_getrusage, ALWAYS, 0, 0},
    {SYS_prlimit64, NO_POINTER, 2, 0},
    {SYS_clock_getres, ALWAYS, 0, 0},
    {SYS_clock_nanosleep, ALWAYS, 0, 0},
    {SYS_nanosleep, ALWAYS, 0, 0},
    {SYS_gettimeofday, ALWAYS, 0, 0},
    {SYS_getrandom, ALWAYS, 0, 0},
#ifdef SYS_time
    {SYS_time, ALWAYS, 0, 0},
    {SYS_getrlimit, ALWAYS, 0, 0},
    {SYS_getpgrp, ALWAYS, 0, 0},
#endif

    /* signals; to oneself only, and with 0 to the group, as an editor of lines does for Ctrl-Z */
    {SYS_rt_sigaction, ALWAYS, 0, 0},
    {SYS_rt_sigprocmask, ALWAYS, 0, 0},
    {SYS_rt_sigreturn, ALWAYS, 0, 0},
    {SYS_rt_sigpending, ALWAYS, 0, 0},
    {SYS_rt_sigtimedwait, ALWAYS, 0, 0},
    {SYS_rt_sigsuspend, ALWAYS, 0, 0},
    {SYS_sigaltstack, ALWAYS, 0, 0},
    {SYS_restart_syscall, ALWAYS, 0, 0},
    {SYS_tgkill, OWN_PROCESS, 0, 0},
    {SYS_kill, OWN_PROCESS, 0, 0},
    {SYS_kill, EQUAL, 0, 0},

    /* waiting for input; the terminal, but not making up what is typed */
    {SYS_ppoll, ALWAYS, 0, 0},
    {SYS_pselect6, ALWAYS, 0, 0},
#ifdef SYS_poll
    {SYS_poll, ALWAYS, 0, 0},
    {SYS_select, ALWAYS, 0, 0},
#endif
    {SYS_ioctl, EQUAL, 1, TCGETS},
    {SYS_ioctl, EQUAL, 1, TCSETS},
    {SYS_ioctl, EQUAL, 1, TCSETSW},
    {SYS_ioctl, EQUAL, 1, TCSETSF},
    {SYS_ioctl, EQUAL, 1, TCFLSH},
    {SYS_ioctl, EQUAL, 1, TIOCGWINSZ},
    {SYS_ioctl, EQUAL, 1, TIOCGPGRP},
    {SYS_ioctl, EQUAL, 1, FIONREAD},
};

/* Added where there are folders to write beneath. */
static const struct call writing[] = {
    {SYS_openat, ALWAYS, 0, 0},    {SYS_pwrite64, ALWAYS, 0, 0},   {SYS_ftruncate, ALWAYS, 0, 0},
    {SYS_fsync, ALWAYS, 0, 0},     {SYS_fdatasync, ALWAYS, 0, 0},  {SYS_fallocate, ALWAYS, 0, 0},
    {SYS_fchmod, ALWAYS, 0, 0},    {SYS_umask, ALWAYS, 0, 0},      {SYS_flock, ALWAYS, 0, 0},
    {SYS_mkdirat, ALWAYS, 0, 0},   {SYS_unlinkat, ALWAYS, 0, 0},   {SYS_renameat, ALWAYS, 0, 0},
    {SYS_renameat2, ALWAYS, 0, 0}, {SYS_fcntl, EQUAL, 1, F_SETLK}, {SYS_fcntl, EQUAL, 1, F_SETLKW},
#ifdef SYS_open
    {SYS_open, ALWAYS, 0, 0},      {SYS_rename, ALWAYS, 0, 0},     {SYS_unlink, ALWAYS, 0, 0},
    {SYS_mkdir, ALWAYS, 0, 0},
#endif
};

/* Calls whose arguments lie in memory, where no filter sees them: the C library does with older
 * ones when it is told that they do not exist. */
static const unsigned newer[] = {
#ifdef SYS_clone3
    SYS_clone3,
#endif
#ifdef SYS_openat2
    SYS_openat2,
#endif
};

enum { FIRST_UNKNOWN = 450 }; /* later ones are too new for the list: the same answer */

#define COUNT(array) (sizeof(array) / sizeof *(array))

enum { A_CALL = 8, PROGRAM_MAX = (COUNT(calls) + COUNT(writing) + COUNT(newer)) * A_CALL + 16 };

struct program {
    struct sock_filter items[PROGRAM_MAX];
    unsigned short count;
};

static void add(struct program *p, unsigned code, unsigned value, unsigned yes, unsigned no) {
    p->items[p->count++] =
        (struct sock_filter){(unsigned short)code, (unsigned char)yes, (unsigned char)no, value};
}

static void load(struct program *p, size_t offset) {
    add(p, BPF_LD | BPF_W | BPF_ABS, (unsigned)offset, 0, 0);
}

static void answer(struct program *p, unsigned value) {
    add(p, BPF_RET | BPF_K, value, 0, 0);
}

/* Lower or upper half of argument i: both machines are little endian. */
static size_t half_of(size_t i, size_t upper) {
    return offsetof(struct seccomp_data, args) + 8 * i + 4 * upper;
}

/* What follows a jump on the number: ends with RET, then with the number loaded again. */
static void add_condition(struct program *p, const struct call *c) {
    unsigned value = c->condition == OWN_PROCESS ? (unsigned)getpid() : c->value;
    load(p, half_of(c->arg, 0));
    if (c->condition == WITHOUT) {
        add(p, BPF_JMP | BPF_JSET | BPF_K, value, 1, 0);
    } else {
        if (c->condition == WITH) add(p, BPF_ALU | BPF_AND | BPF_K, value, 0, 0);
        if (c->condition == NO_POINTER) {
            add(p, BPF_JMP | BPF_JEQ | BPF_K, 0, 0, 3);
            load(p, half_of(c->arg, 1));
        }
        add(p, BPF_JMP | BPF_JEQ | BPF_K, value, 0, 1);
    }
    answer(p, SECCOMP_RET_ALLOW);
    load(p, offsetof(struct seccomp_data, nr));
}

static void add_call(struct program *p, const struct call *c) {
    unsigned short jump = p->count;
    add(p, BPF_JMP | BPF_JEQ | BPF_K, c->number, 0, 1);
    if (c->condition == ALWAYS)
        answer(p, SECCOMP_RET_ALLOW);
    else
        add_condition(p, c);
    p->items[jump].jf = (unsigned char)(p->count - jump - 1);
}

/* Another machine's calls have other numbers: a process can make 32-bit ones on some. Those of x32
 * are numbers far beyond the last. */
static void build(struct program *p, bool writes) {
    const unsigned refuse = SECCOMP_RET_ERRNO | EPERM, missing = SECCOMP_RET_ERRNO | ENOSYS;
    load(p, offsetof(struct seccomp_data, arch));
    add(p, BPF_JMP | BPF_JEQ | BPF_K, MACHINE, 1, 0);
    answer(p, refuse);
    load(p, offsetof(struct seccomp_data, nr));
    for (size_t i = 0; i < COUNT(calls); i++) add_call(p, &calls[i]);
    for (size_t i = 0; i < COUNT(writing) && writes; i++) add_call(p, &writing[i]);
    for (size_t i = 0; i < COUNT(newer); i++) {
        add(p, BPF_JMP | BPF_JEQ | BPF_K, newer[i], 0, 1);
        answer(p, missing);
    }
    add(p, BPF_JMP | BPF_JGE | BPF_K, FIRST_UNKNOWN, 0, 1);
    answer(p, missing);
    answer(p, refuse);
}

bool sandbox_filter_offered(void) {
    const unsigned action = SECCOMP_RET_ERRNO;
    return MACHINE && syscall(SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 0, &action) == 0;
}

bool sandbox_filter_enter(bool writes) {
    struct program p = {.count = 0};
    if (!MACHINE) return false;
    build(&p, writes);
    struct sock_fprog filter = {p.count, p.items};
    return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &filter) == 0;
}
