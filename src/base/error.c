#include "base/error.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { MAX_ITEMS = 20 };

/* Names out of a file may hold anything; a terminal must not obey them. */
static void make_printable(char *text) {
    for (unsigned char *p = (unsigned char *)text; *p; p++) {
        if ((*p < ' ' && *p != '\n') || *p == 0x7f) *p = '?';
    }
}

bool fail(struct error *e, enum status status, const char *format, ...) {
    va_list args;
    va_start(args, format);
    e->status = status;
    e->items = 0;
    vsnprintf(e->message, sizeof e->message, format, args);
    va_end(args);
    for (char *p = e->message; *p; p++) {
        if (*p == '\n') *p = '?';
    }
    make_printable(e->message);
    return false;
}

static void append(struct error *e, const char *format, va_list args) {
    size_t used = strlen(e->message);
    int indent = snprintf(e->message + used, sizeof e->message - used, "\n  ");
    used += (size_t)indent;
    if (used + 1 >= sizeof e->message) return;
    vsnprintf(e->message + used, sizeof e->message - used, format, args);
    for (char *p = e->message + used; *p; p++) {
        if (*p == '\n') *p = '?';
    }
    make_printable(e->message + used);
}

void error_item(struct error *e, const char *format, ...) {
    if (e->items++ >= MAX_ITEMS) return;
    va_list args;
    va_start(args, format);
    append(e, format, args);
    va_end(args);
}

static void append_words(struct error *e, const char *format, ...) {
    va_list args;
    va_start(args, format);
    append(e, format, args);
    va_end(args);
}

void error_items_end(struct error *e) {
    if (e->items > MAX_ITEMS) append_words(e, "and %d more", e->items - MAX_ITEMS);
}
