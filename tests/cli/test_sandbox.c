/* The sandbox: each thing that it must refuse is tried in a process of its own, once without it,
 * where it must work, and once inside. */
#include "cli/sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>

#include "check.h"
#include "scratch.h"

static const char *inside, *outside; /* folders; the first is named to the sandbox */

/* A try returns 0, or what errno says. */
typedef int try_fn(void);

static int failed(bool yes) {
    return yes ? errno : 0;
}

static const char *in(const char *folder, const char *name) {
    static char paths[2][1100];
    static int next;
    char *path = paths[next++ % 2];
    snprintf(path, sizeof paths[0], "%s/%s", folder, name);
    return path;
}

/* --- what may be tried ------------------------------------------------------------------------ */

static int open_in(const char *folder, const char *name, int flags) {
    int fd = open(in(folder, name), flags | O_CLOEXEC, 0600);
    int code = failed(fd < 0);
    if (fd >= 0) close(fd);
    return code;
}

static int write_there(void) {
    return open_in(outside, "file", O_WRONLY);
}
static int update_there(void) {
    return open_in(outside, "file", O_RDWR);
}
static int empty_there(void) {
    return open_in(outside, "file", O_RDONLY | O_TRUNC);
}
static int make_there(void) {
    return open_in(outside, "new", O_WRONLY | O_CREAT | O_EXCL);
}
static int make_to_read(void) {
    return open_in(outside, "new", O_RDONLY | O_CREAT);
}
static int make_unnamed(void) {
    return open_in(outside, ".", O_WRONLY | O_TMPFILE);
}
static int read_there(void) {
    return open_in(outside, "file", O_RDONLY);
}
static int list_there(void) {
    return open_in(outside, ".", O_RDONLY | O_DIRECTORY);
}
static int creat_there(void) {
    return failed(creat(in(outside, "new"), 0600) < 0);
}
static int cut_there(void) {
    return failed(truncate(in(outside, "file"), 1) != 0);
}
static int remove_there(void) {
    return failed(unlink(in(outside, "file")) != 0);
}
static int rename_there(void) {
    return failed(rename(in(outside, "file"), in(outside, "other")) != 0);
}
static int folder_there(void) {
    return failed(mkdir(in(outside, "folder"), 0700) != 0);
}
static int link_there(void) {
    return failed(link(in(outside, "file"), in(outside, "l")) != 0);
}
static int symlink_there(void) {
    return failed(symlink("file", in(outside, "s")) != 0);
}
static int fifo_there(void) {
    return failed(mkfifo(in(outside, "fifo"), 0600) != 0);
}
static int mode_there(void) {
    return failed(chmod(in(outside, "file"), 0777) != 0);
}
static int times_there(void) {
    return failed(utimensat(AT_FDCWD, in(outside, "file"), NULL, 0));
}

static int write_here(void) {
    return open_in(inside, "file", O_RDWR | O_CREAT | O_TRUNC);
}
static int rename_here(void) {
    return write_here() ? errno : failed(rename(in(inside, "file"), in(inside, "b")) != 0);
}
static int remove_here(void) {
    return write_here() ? errno : failed(unlink(in(inside, "file")) != 0);
}
static int folder_here(void) {
    return failed(mkdir(in(inside, "folder"), 0700) != 0);
}
static int carry_out(void) {
    return write_here() ? errno : failed(rename(in(inside, "file"), in(outside, "new")) != 0);
}
static int symlink_here(void) {
    return failed(symlink("/etc", in(inside, "s")) != 0);
}

static int socket_of(int family, int type) {
    return failed(socket(family, type, 0) < 0);
}
static int socket_inet(void) {
    return socket_of(AF_INET, SOCK_STREAM);
}
static int socket_inet6(void) {
    return socket_of(AF_INET6, SOCK_DGRAM);
}
static int socket_unix(void) {
    return socket_of(AF_UNIX, SOCK_STREAM);
}
static int socket_netlink(void) {
    return socket_of(AF_NETLINK, SOCK_RAW);
}
static int socket_pair(void) {
    int pair[2];
    return failed(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) != 0);
}

static int start_program(void) {
    execl("/bin/true", "true", (char *)NULL);
    return errno;
}

static int start_process(void) {
    pid_t child = fork();
    if (child == 0) _exit(0);
    return failed(child < 0);
}

static int old_start_process(void) {
    long child = syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
    if (child == 0) _exit(0);
    return failed(child < 0);
}

static int be_traced(void) {
    return failed(ptrace(PTRACE_TRACEME, 0, NULL, NULL) != 0);
}
static int read_memory(void) {
    char from = 1, to;
    struct iovec local = {&to, 1}, remote = {&from, 1};
    return failed(process_vm_readv(getpid(), &local, 1, &remote, 1, 0) != 1);
}
static int signal_other(void) {
    return failed(kill(getppid(), SIGCONT) != 0);
}
static int signal_self(void) {
    return failed(kill(getpid(), 0) != 0);
}
static int raise_limit(void) {
    struct rlimit limit = {0, 0};
    return failed(setrlimit(RLIMIT_CORE, &limit) != 0);
}
static int own_namespace(void) {
    return failed(unshare(CLONE_FILES) != 0);
}
static int memory_file(void) {
    return failed(memfd_create("m", 0) < 0);
}
static int dumpable(void) {
    return failed(prctl(PR_SET_DUMPABLE, 1, 0, 0, 0) != 0);
}

static int map_code(void) {
    int rights = PROT_READ | PROT_WRITE | PROT_EXEC;
    return failed(mmap(NULL, 4096, rights, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED);
}
static int turn_into_code(void) {
    void *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return failed(mprotect(page, 4096, PROT_READ | PROT_EXEC) != 0);
}

static int terminal; /* opened before anything is tried */
static int type_for_user(void) {
    return failed(ioctl(terminal, TIOCSTI, "x") != 0);
}

static int ring(void) {
    char parameters[256] = {0};
    return failed(syscall(SYS_io_uring_setup, 1, parameters) < 0);
}

#ifdef __x86_64__
/* The number of a 32-bit getpid; a kernel without such calls answers with a signal. */
static int call_32_bit(void) {
    long answer;
    __asm__ volatile("int $0x80" : "=a"(answer) : "a"(20L) : "memory");
    return answer < 0 ? (int)-answer : 0;
}

static int call_x32(void) {
    return failed(syscall(0x40000000 | SYS_socket, AF_UNIX, 1, 0) < 0);
}
#endif

/* --- what must go on working ------------------------------------------------------------------ */

static void *return_it(void *arg) {
    return arg;
}
static int start_thread(void) {
    pthread_t thread;
    int code = pthread_create(&thread, NULL, return_it, NULL);
    return code ? code : pthread_join(thread, NULL);
}
static int take_memory(void) {
    char *block = malloc(64 << 20);
    if (!block) return ENOMEM;
    memset(block, 1, 64 << 20);
    free(block);
    return 0;
}
static int read_proc(void) {
    return failed(open("/proc/self/status", O_RDONLY) < 0);
}
static int tell_time(void) {
    struct timespec t;
    time_t now = time(NULL);
    return failed(clock_gettime(CLOCK_MONOTONIC, &t) != 0 || !localtime(&now));
}
static int sleep_a_bit(void) {
    return failed(usleep(1000) != 0);
}
static int raise_signal(void) {
    signal(SIGUSR1, SIG_IGN);
    return failed(raise(SIGUSR1) != 0);
}
static int write_open_file(void) {
    return failed(write(STDERR_FILENO, "", 0) != 0);
}

/* --- the tables ------------------------------------------------------------------------------- */

/* Who refuses it: the filter alone, or landlock where the kernel has it; and whether that is so
 * where a folder is named. */
enum { FILTER = 1, LANDLOCK = 2, EVEN_SO = 4 };

static const struct attempt {
    const char *name;
    try_fn *fn;
    int refused;
} attempts[] = {
    {"write", write_there, FILTER | LANDLOCK | EVEN_SO},
    {"update", update_there, FILTER | LANDLOCK | EVEN_SO},
    {"empty", empty_there, FILTER | LANDLOCK | EVEN_SO},
    {"make", make_there, FILTER | LANDLOCK | EVEN_SO},
    {"make to read", make_to_read, FILTER | LANDLOCK | EVEN_SO},
    {"make unnamed", make_unnamed, FILTER | LANDLOCK | EVEN_SO},
    {"creat", creat_there, FILTER | LANDLOCK | EVEN_SO},
    {"read", read_there, LANDLOCK | EVEN_SO},
    {"list", list_there, LANDLOCK | EVEN_SO},
    {"cut", cut_there, FILTER | EVEN_SO},
    {"remove", remove_there, FILTER | LANDLOCK | EVEN_SO},
    {"rename", rename_there, FILTER | LANDLOCK | EVEN_SO},
    {"mkdir", folder_there, FILTER | LANDLOCK | EVEN_SO},
    {"link", link_there, FILTER | EVEN_SO},
    {"symlink", symlink_there, FILTER | EVEN_SO},
    {"fifo", fifo_there, FILTER | EVEN_SO},
    {"chmod", mode_there, FILTER | EVEN_SO},
    {"utimes", times_there, FILTER | EVEN_SO},
    {"write in a folder", write_here, FILTER | LANDLOCK},
    {"rename in a folder", rename_here, FILTER | LANDLOCK},
    {"remove in a folder", remove_here, FILTER | LANDLOCK},
    {"mkdir in a folder", folder_here, FILTER | LANDLOCK},
    {"carry out of a folder", carry_out, FILTER | LANDLOCK | EVEN_SO},
    {"symlink in a folder", symlink_here, FILTER | EVEN_SO},
    {"socket inet", socket_inet, FILTER | EVEN_SO},
    {"socket inet6", socket_inet6, FILTER | EVEN_SO},
    {"socket unix", socket_unix, FILTER | EVEN_SO},
    {"socket netlink", socket_netlink, FILTER | EVEN_SO},
    {"socketpair", socket_pair, FILTER | EVEN_SO},
    {"exec", start_program, FILTER | EVEN_SO},
    {"fork", start_process, FILTER | EVEN_SO},
    {"clone", old_start_process, FILTER | EVEN_SO},
    {"ptrace", be_traced, FILTER | EVEN_SO},
    {"process_vm_readv", read_memory, FILTER | EVEN_SO},
    {"kill", signal_other, FILTER | EVEN_SO},
    {"setrlimit", raise_limit, FILTER | EVEN_SO},
    {"unshare", own_namespace, FILTER | EVEN_SO},
    {"memfd", memory_file, FILTER | EVEN_SO},
    {"io_uring", ring, FILTER | EVEN_SO},
    {"prctl", dumpable, FILTER | EVEN_SO},
    {"mmap code", map_code, FILTER | EVEN_SO},
    {"mprotect code", turn_into_code, FILTER | EVEN_SO},
    {"TIOCSTI", type_for_user, FILTER | EVEN_SO},
#ifdef __x86_64__
    {"32-bit call", call_32_bit, FILTER | EVEN_SO},
    {"x32 call", call_x32, FILTER | EVEN_SO},
#endif
    {"thread", start_thread, 0},
    {"memory", take_memory, 0},
    {"/proc", read_proc, 0},
    {"time", tell_time, 0},
    {"sleep", sleep_a_bit, 0},
    {"raise", raise_signal, 0},
    {"open file", write_open_file, 0},
    {"own process", signal_self, 0},
};

enum { COUNT = sizeof attempts / sizeof *attempts };
enum mode { FREE, FILTER_ALONE, ENTERED, WITH_FOLDER };
static int means; /* of this kernel: SANDBOX_... */

static bool enter(enum mode mode) {
    if (mode == FILTER_ALONE) {
        prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
        return sandbox_filter_enter(false);
    }
    return mode == FREE ||
           sandbox_enter((const char *[]){mode == WITH_FOLDER ? inside : NULL, NULL});
}

/* Tries it in a process of its own, the two folders as they were at first. 0, an errno, or -1 if
 * a signal ended it. */
static int attempt(const struct attempt *a, enum mode mode) {
    int status;
    inside = scratch_path("inside");
    outside = scratch_path("outside");
    if (mkdir(inside, 0700) != 0 || mkdir(outside, 0700) != 0) exit(1);
    scratch_text("outside/file", "some text");
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) _exit(enter(mode) ? a->fn() : 255);
    waitpid(child, &status, 0);
    nftw(inside, scratch_remove, 16, FTW_DEPTH | FTW_PHYS);
    nftw(outside, scratch_remove, 16, FTW_DEPTH | FTW_PHYS);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/* By the kernel's means; that of a folder needs landlock, without which files can be written. */
static bool must_refuse(const struct attempt *a, enum mode mode) {
    bool filter = means & SANDBOX_SECCOMP && a->refused & FILTER;
    bool landlock = means & SANDBOX_LANDLOCK && a->refused & LANDLOCK;
    if (mode == FILTER_ALONE) return filter;
    if (mode == ENTERED) return filter || landlock;
    return (a->refused & LANDLOCK ? landlock : filter) && a->refused & EVEN_SO;
}

static void check_mode(enum mode mode) {
    for (int i = 0; i < COUNT; i++) {
        const struct attempt *a = &attempts[i];
        if (attempt(a, FREE) != 0) {
            printf("skip %s: this machine refuses it anyway\n", a->name);
            continue;
        }
        int code = attempt(a, mode);
        bool refusal = code == EPERM || code == EACCES || code == ENOSYS || code == EXDEV;
        CHECK_MSG(must_refuse(a, mode) ? refusal : code == 0, "%s: %d (%s)", a->name, code,
                  code > 0 ? strerror(code) : "");
    }
}

static void test_filter(void) {
    check_mode(FILTER_ALONE);
}
static void test_entered(void) {
    check_mode(ENTERED);
}
static void test_folder(void) {
    check_mode(WITH_FOLDER);
}

/* --- threads ---------------------------------------------------------------------------------- */

static pthread_barrier_t entered;

static void *try_socket(void *arg) {
    pthread_barrier_wait(&entered);
    *(int *)arg = socket_inet();
    return NULL;
}

static void *try_read(void *arg) {
    *(int *)arg = open("/etc/passwd", O_RDONLY) < 0 ? errno : 0;
    return NULL;
}

/* The exit status: bit 0: a thread from before has a socket; bit 1: one from after reads a file. */
static int run_threads(void) {
    pthread_t thread;
    int before = 0, after = 0;
    pthread_barrier_init(&entered, NULL, 2);
    pthread_create(&thread, NULL, try_socket, &before);
    sandbox_enter((const char *[]){NULL});
    pthread_barrier_wait(&entered);
    pthread_join(thread, NULL);
    pthread_create(&thread, NULL, try_read, &after);
    pthread_join(thread, NULL);
    return (before == 0) | (after == 0) << 1;
}

static void test_threads(void) {
    int status;
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) _exit(run_threads());
    waitpid(child, &status, 0);
    CHECK(WIFEXITED(status));
    if (means & SANDBOX_SECCOMP) CHECK(!(WEXITSTATUS(status) & 1));
    if (means & SANDBOX_LANDLOCK) CHECK(!(WEXITSTATUS(status) & 2));
}

/* --- what it says of itself ------------------------------------------------------------------- */

static void test_describe(void) {
    char text[80];
    sandbox_describe(text, sizeof text);
    if (!sandbox_by_default()) {
        CHECK(strncmp(text, "off", 3) == 0);
        return;
    }
    CHECK(!!strstr(text, "seccomp") == !!(means & SANDBOX_SECCOMP) || strstr(text, "no seccomp"));
    CHECK(!!strstr(text, "landlock (") == !!(means & SANDBOX_LANDLOCK));
}

static void find_means(void) {
    int status;
    pid_t child = fork();
    if (child == 0) _exit(sandbox_enter((const char *[]){NULL}));
    waitpid(child, &status, 0);
    means = WEXITSTATUS(status);
}

int main(void) {
    scratch_open();
    terminal = open("/dev/ptmx", O_RDWR | O_NOCTTY);
    find_means();
    printf("this kernel has%s%s\n", means & SANDBOX_SECCOMP ? " seccomp" : "",
           means & SANDBOX_LANDLOCK ? " landlock" : "");
    check_run("filter", test_filter);
    check_run("entered", test_entered);
    check_run("folder", test_folder);
    check_run("threads", test_threads);
    check_run("describe", test_describe);
    return check_done();
}
