#include "base/error.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/utf8.h"

enum { MAX_ITEMS = 20 };

/* Names out of a file may hold anything; a terminal must not obey them. U+0080 to U+009F are
 * controls too, and so may be bytes that are no UTF-8. */
static void make_printable(char *text) {
    for (size_t length; *text; text += length ? length : 1) {
        unsigned char c = (unsigned char)*text;
        length = utf8_sequence(text, strnlen(text, 4));
        if (!length || (c < ' ' && c != '\n') || c == 0x7f) *text = '?';
        if (length == 2 && c == 0xc2 && (unsigned char)text[1] < 0xa0) memset(text, '?', 2);
    }
}

bool(fail)(struct error *e, enum status status, const char *format, ...) {
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
