/* What a process gives up once it has read all it needs: a model that came from a stranger may have
 * found a way to run code of its own, which then can do nothing but compute and print.
 *
 * Two means of Linux, each used where the kernel has it:
 *
 *   - seccomp: system calls are refused with EPERM but for a list (sandbox_filter.c): no files are
 *     opened to be written, no sockets, no programs or processes started, no memory made
 *     executable, no signals to others, no terminal input made up. All threads are bound by it.
 *   - landlock: files are read only beneath the few folders that the C library and this program
 *     still look into (sandbox.c has the list), written only beneath those named here. It binds the
 *     calling thread and those that it starts later: enter before a context is opened. */
#ifndef NIBBLE_CLI_SANDBOX_H
#define NIBBLE_CLI_SANDBOX_H

#include <stdbool.h>
#include <stddef.h>

enum { SANDBOX_SECCOMP = 1, SANDBOX_LANDLOCK = 2 };

/* Enters for good. folders ends with NULL: beneath them files may be read, written, made, renamed
 * and removed; one that cannot be opened is left out. Where a rule fails, as without a descriptor
 * left, a note says what that leaves. With folders but without landlock nothing keeps writing to
 * them: then files may be written anywhere, all else holds. Returns the means that took hold. */
int sandbox_enter(const char *const *folders);

/* A line for people: the means that this kernel has, or why there are none. */
void sandbox_describe(char *text, size_t size);

/* Whether commands enter without being asked to. Builds whose instruments (sanitizers, coverage)
 * do at exit what is refused do not. */
bool sandbox_by_default(void);

/* The seccomp part (sandbox_filter.c); writes: files may be opened to be written. */
bool sandbox_filter_offered(void);
bool sandbox_filter_enter(bool writes);

#endif
