/* Which parts of a text are somebody's words and no control tokens, whatever they spell.
 *
 * A conversation becomes one text, in which the template's own tokens count and those written in
 * the messages do not: special tokens there stay text, and so do added tokens that are not special
 * but belong to the template. Other added tokens (runs of spaces, say) are found in messages as in
 * any text. */
#ifndef NIBBLE_TEXT_GUARD_H
#define NIBBLE_TEXT_GUARD_H

#include <stdbool.h>
#include <stddef.h>

struct guard_range {
    size_t start, end; /* bytes of the text, the end not included */
};

struct guard {
    const struct guard_range *words; /* in order, none overlaps another */
    size_t count;
    const int *barred; /* tokens of the template that are not special */
    size_t barred_count;
};

/* Whether some of [start, end) is somebody's words. */
bool guard_covers(const struct guard *g, size_t start, size_t end);
bool guard_bars(const struct guard *g, int id);

#endif
