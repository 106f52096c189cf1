#include "cli/message.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static bool progress_shown;
static char *captured; /* where messages go instead of stderr, or NULL */
static size_t captured_size;

/* A handler runs on whichever thread the system chooses. */
static atomic_int caught;
static atomic_int pipe_ends[2] = {-1, -1};

static void print(const char *format, va_list args) {
    message_progress_end();
    fputs("nibble: ", stderr);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
}

void message(const char *format, ...) {
    va_list args;
    va_start(args, format);
    if (!captured) {
        print(format, args);
    } else if (!*captured) {
        vsnprintf(captured, captured_size, format, args);
    }
    va_end(args);
}

void message_note(const char *format, ...) {
    char text[2 * sizeof(nibble_error)];
    va_list args;
    va_start(args, format);
    snprintf(text, sizeof text, "note: %s", format);
    print(text, args);
    va_end(args);
}

void message_capture(char *text, size_t size) {
    captured = text;
    captured_size = size;
    if (text) *text = 0;
}

int message_error(const nibble_error *e) {
    message("%s", e->message);
    switch (e->status) {
    case NIBBLE_ARGUMENT: return EXIT_USAGE;
    case NIBBLE_CONTEXT: return EXIT_CONTEXT;
    case NIBBLE_INTERRUPTED: return message_interrupted_exit();
    default: return EXIT_FAILED;
    }
}

void message_progress(const char *task, size_t done, size_t total) {
    static uint64_t start;
    static const char *current;
    if (!isatty(STDERR_FILENO)) return;
    if (current != task) {
        current = task;
        start = nibble_clock();
    }
    if (nibble_clock() - start < 1000000000u || !total) return;
    fprintf(stderr, "\r%s %3.0f%%\033[K", task, 100.0 * (double)done / (double)total);
    fflush(stderr);
    progress_shown = true;
}

void message_progress_end(void) {
    if (progress_shown) fputs("\r\033[K", stderr);
    progress_shown = false;
}

void message_wake(void) {
    int kept = errno;
    int end = pipe_ends[1];
    ssize_t n = end >= 0 ? write(end, "", 1) : 0; /* if full, it wakes as well */
    (void)n;
    errno = kept;
}

int message_signal_pipe(void) {
    int ends[2];
    if (pipe_ends[0] < 0 && pipe2(ends, O_CLOEXEC | O_NONBLOCK) == 0) {
        pipe_ends[0] = ends[0];
        pipe_ends[1] = ends[1];
    }
    return pipe_ends[0];
}

static void on_signal(int number) {
    int before = caught;
    while (before != SIGTERM && !atomic_compare_exchange_weak(&caught, &before, number)) continue;
    message_wake();
}

/* One that the caller has ignored (nohup, a background job) stays ignored. */
static void catch_signal(int number, int flags) {
    struct sigaction old, action = {.sa_handler = on_signal, .sa_flags = flags};
    sigemptyset(&action.sa_mask);
    if (sigaction(number, NULL, &old) == 0 && old.sa_handler == SIG_IGN) return;
    sigaction(number, &action, NULL);
}

void message_catch_signals(void) {
    catch_signal(SIGINT, (int)SA_RESETHAND);
    catch_signal(SIGTERM, (int)SA_RESETHAND);
}

void message_catch_again(void) {
    catch_signal(SIGINT, 0);
    catch_signal(SIGTERM, (int)SA_RESETHAND);
}

void message_forget_interrupt(void) {
    int interrupt = SIGINT;
    atomic_compare_exchange_strong(&caught, &interrupt, 0);
}

bool message_interrupted(void) {
    return caught != 0;
}

bool message_terminated(void) {
    return caught == SIGTERM;
}

int message_interrupted_exit(void) {
    return 128 + (caught ? caught : SIGINT);
}
