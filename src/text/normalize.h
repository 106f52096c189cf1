/* The normalizer of a tokenizer.json: what is done to a text before it is cut into words. */
#ifndef NIBBLE_TEXT_NORMALIZE_H
#define NIBBLE_TEXT_NORMALIZE_H

#include "text/bytes.h"
#include "text/json.h"
#include "text/regex.h"

/* Steps in order: NFC, NFD, NFKC, NFKD, Lowercase, StripAccents, Strip, Prepend, Replace, ByteLevel
 * and Sequences of them. All zero: none. */
struct normalizer {
    struct normalize_step *steps;
    size_t count;
};

/* component: its JSON, or NULL for none. */
bool normalize_open(struct normalizer *n, const cJSON *component, const struct json *in);
void normalize_close(struct normalizer *n);

/* Changes text, with spare for work. */
bool normalize_run(const struct normalizer *n, struct bytes *text, struct bytes *spare,
                   struct error *e);

/* Reads {"String": ...} or {"Regex": ...}; NULL on failure. */
struct regex *normalize_pattern(const cJSON *pattern, const struct json *in);
struct regex *normalize_compile(const char *pattern, bool literal, const struct json *in);

/* Adds text with every match replaced by content. */
bool normalize_replace(const struct regex *r, const char *content, const char *text, size_t size,
                       struct bytes *out, struct error *e);

#endif
