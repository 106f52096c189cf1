/* The pre_tokenizer of a tokenizer.json: cuts a text into the words that are encoded one by one. */
#ifndef NIBBLE_TEXT_SPLIT_H
#define NIBBLE_TEXT_SPLIT_H

#include "text/bytes.h"
#include "text/json.h"

/* Steps in order: Split, ByteLevel, Digits, Punctuation, Metaspace, Whitespace, WhitespaceSplit and
 * Sequences of them. All zero: none. */
struct splitter {
    struct split_step *steps;
    size_t count;
};

/* component: its JSON, or NULL for none. */
bool split_open(struct splitter *s, const cJSON *component, const struct json *in);
void split_close(struct splitter *s);

/* As split_open of a Split by regex, its matches by themselves, and ByteLevel without a regex. */
bool split_open_bytes(struct splitter *s, const char *regex, const struct json *in);

/* A text in parts; what lies between two of them has been removed. */
struct split_parts {
    struct bytes text;
    struct split_part {
        size_t start, size;
        bool first; /* begins where the whole text that is encoded began */
    } * list;
    size_t count, room;
    bool failed; /* memory ran out */
};

void split_parts_add(struct split_parts *p, size_t start, size_t size, bool first);
void split_parts_clear(struct split_parts *p);
void split_parts_free(struct split_parts *p); /* all zero is fine */

/* Cuts parts into more of them, with spare for work. */
bool split_run(const struct splitter *s, struct split_parts *parts, struct split_parts *spare,
               struct error *e);

#endif
