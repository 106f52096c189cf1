/* One way to fail: a function that can fail returns false and has filled a struct error.
 *
 * The message is one sentence that names the thing (file, entry, option) and the remedy. A list
 * may follow it, one indented line an item. Nothing below src/cli prints it. */
#ifndef NIBBLE_BASE_ERROR_H
#define NIBBLE_BASE_ERROR_H

#include <stdbool.h>

enum status {
    STATUS_OK,
    STATUS_ARGUMENT,    /* the caller asked for something that makes no sense */
    STATUS_FILE,        /* the operating system refused a file */
    STATUS_FORMAT,      /* a file is not what its format promises */
    STATUS_MODEL,       /* the files are sound but do not make a model that runs here */
    STATUS_MEMORY,      /* not enough memory, with what was needed */
    STATUS_CONTEXT,     /* the tokens do not fit the context */
    STATUS_NUMERIC,     /* NaN or infinite logits */
    STATUS_INTERRUPTED, /* a callback asked to stop, or a signal came while a FIFO was opened */
};

struct error {
    enum status status;
    int items;          /* lines asked of error_item so far */
    char message[4096]; /* a sentence; then the items, each on an indented line of its own */
};

/* Fills *e and returns false, so that a function may end in `return fail(...)`. Bytes of the
 * message that are not printable (names out of a hostile file) become '?'. */
bool fail(struct error *e, enum status status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
#ifdef __clang_analyzer__ /* sees one file alone, so not what fail returns */
#define fail(...) (fail(__VA_ARGS__), false)
#endif

/* Adds one indented line to the message that fail() began: the first 20 are kept, and
 * error_items_end() adds "and N more" if there were more. */
void error_item(struct error *e, const char *format, ...) __attribute__((format(printf, 2, 3)));
void error_items_end(struct error *e);

/* Every function that uses TRY has one label `fail:` that frees what it holds and returns false. */
#define TRY(call)                                                                                  \
    do {                                                                                           \
        if (!(call)) goto fail;                                                                    \
    } while (0)

#endif
