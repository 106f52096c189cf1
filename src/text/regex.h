/* Regular expressions of tokenizer files, by PCRE2 with UTF and UCP.
 *
 * A pattern is as untrusted as the file that it stands in: a search has limits on steps and memory,
 * and is interpreted, never compiled to machine code. Patterns are written for Oniguruma (Ruby's
 * syntax), where ^ and $ stand at lines. Most say the same to both; what would say something else
 * to PCRE2 is put in other words (a set in a set; \p{Han}, which is the script without its
 * extensions; \w, which marks belong to) or refused (&&, {n}+, \h). */
#ifndef NIBBLE_TEXT_REGEX_H
#define NIBBLE_TEXT_REGEX_H

#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"

struct regex;

/* NULL on failure: why says so in words that go on from "the pattern ...", an empty one when memory
 * ran out. literal: the pattern is a plain string. */
struct regex *regex_open(const char *pattern, bool literal, char *why, size_t why_size);
void regex_close(struct regex *r); /* NULL is fine */

/* Matches in one text after another; a regex may serve several searches at a time. */
struct regex_search {
    const struct regex *regex;
    void *data, *limits;
    const char *text; /* valid UTF-8 */
    size_t size, at;
    size_t last; /* where the last match ended; SIZE_MAX before the first */
};

bool regex_search_open(struct regex_search *s, const struct regex *r, struct error *e);
void regex_search_close(struct regex_search *s); /* all zero is fine */
void regex_search_text(struct regex_search *s, const char *text, size_t size);

/* The next match in [*start, *end), which may be empty; *found is false if there is none. Matches
 * do not overlap, and no empty one follows a match at once. Fails if a limit was met. */
bool regex_search_next(struct regex_search *s, size_t *start, size_t *end, bool *found,
                       struct error *e);

const char *regex_library(void); /* the version of PCRE2; statically allocated */

#endif
