/* Added tokens: found in a text before anything else is done to it. */
#ifndef NIBBLE_TEXT_ADDED_H
#define NIBBLE_TEXT_ADDED_H

#include "text/guard.h"

struct added_token {
    const char *text; /* not empty */
    size_t size;
    int id;
    bool special;        /* a control token: a text that only holds its name keeps that as text */
    bool single_word;    /* only where no word goes on before it or behind it */
    bool lstrip, rstrip; /* takes the spaces before it, behind it */
};

struct added {
    struct added_token *list; /* sorted by text */
    size_t count, room;
    bool begins[256]; /* bytes that one begins with */
};

/* Takes a copy of the text; false when memory ran out. added_sort once all are there; it gives one
 * that is there twice, or NULL. */
bool added_add(struct added *a, struct added_token token);
const struct added_token *added_sort(struct added *a);
void added_close(struct added *a); /* all zero is fine */

/* The longest that text begins with, or NULL. */
const struct added_token *added_find(const struct added *a, const char *text, size_t size);

/* Goes through a text (valid UTF-8) from left to right, the longest match first. Each call of
 * added_next gives one part: an added token's (*id >= 0) or text between them (-1); false at the
 * end. Unless special is true, special tokens are passed over; with a guard, whose text this is,
 * those that touch somebody's words, and there those that it bars as well. */
struct added_walk {
    const struct added *added;
    const char *text;
    size_t size;
    bool special;
    const struct guard *guard; /* or NULL */
    size_t from, at;
    const struct added_token *found; /* not yet given */
    size_t found_end;
};

bool added_next(struct added_walk *w, int *id, size_t *start, size_t *size);

#endif
