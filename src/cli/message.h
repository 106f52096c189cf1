/* What goes to stderr, and which exit code means what. */
#ifndef NIBBLE_CLI_MESSAGE_H
#define NIBBLE_CLI_MESSAGE_H

#include <stdbool.h>
#include <stddef.h>

#include "nibble.h"

enum { EXIT_DONE = 0, EXIT_FAILED = 1, EXIT_USAGE = 2, EXIT_CONTEXT = 3 };

/* One line "nibble: ..." on stderr. */
void message(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* The same for what is no failure: "nibble: note: ...". It is always printed. */
void message_note(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Keeps messages in text instead, the first of them as far as size bytes go, without the program's
 * name; with NULL they are printed again. */
void message_capture(char *text, size_t size);

/* Prints an error of the library and returns the exit code that its status stands for. */
int message_error(const nibble_error *e);

/* A line of progress that replaces the last; only on a terminal and only once a second has gone by
 * since the first call for this task. message_progress_end() removes it. */
void message_progress(const char *task, size_t done, size_t total);
void message_progress_end(void);

/* SIGINT and SIGTERM end what runs at the next chance; the second one at once. */
void message_catch_signals(void);

/* The same for who goes on after an interrupt: SIGINT is caught again and again. */
void message_catch_again(void);
void message_forget_interrupt(void); /* a SIGINT; a SIGTERM stays */

/* A descriptor that can be read once a signal has come, for who waits for input as well: a handler
 * may run on any thread, and then interrupts no wait of ours. -1 if there is none. */
int message_signal_pipe(void);
void message_wake(void); /* from a handler of one's own */

bool message_interrupted(void);
bool message_terminated(void);      /* by SIGTERM */
int message_interrupted_exit(void); /* 128 + the signal */

#endif
