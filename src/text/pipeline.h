/* A tokenizer as Hugging Face's library has it: added tokens, normalizer, pre-tokenizer, BPE,
 * template, decoder. Read from a tokenizer.json (pipeline_json.c) or a tiktoken file
 * (pipeline_tiktoken.c), which is a case of it. */
#ifndef NIBBLE_TEXT_PIPELINE_H
#define NIBBLE_TEXT_PIPELINE_H

#include "base/span.h"
#include "text/added.h"
#include "text/bpe.h"
#include "text/decode.h"
#include "text/normalize.h"
#include "text/split.h"
#include "text/template.h"
#include "text/vocab.h"

struct pipeline {
    struct vocab vocab;  /* of the model; then, not to be found by their text, added tokens */
    struct added before; /* added tokens, found in the text as it is */
    struct added after;  /* found once the text is normalized, as their names are */
    struct normalizer normalizer;
    struct splitter splitter;
    struct bpe bpe;
    struct template template;
    int ends[2]; /* special tokens that end an answer, where the format itself says so */
    size_t end_count;
    struct decoder decoder;
    bool *special; // [vocab.count]
    /* [vocab.count]: of added tokens that are found in normalized text, their names as they read
     * there, which is what is decoded; else NULL */
    const struct added_token **normal;
    struct bytes texts; /* of pieces in the middle of a sequence, one after the other */
    size_t *offsets;    // [vocab.count + 1], in texts
    size_t longest;     /* of these, and of pieces */
};

/* Each part is closed by pipeline_close, which takes all zero and what failed to open. */
bool pipeline_json_open(struct pipeline *p, struct span file, const char *where, struct error *e);
bool pipeline_tiktoken_open(struct pipeline *p, struct span file, const char *where,
                            struct error *e);
void pipeline_close(struct pipeline *p);

/* Whether a file begins as tiktoken's do: lines of base64, a space and a number. */
bool pipeline_tiktoken_begins(struct span file);

/* For the two that open: adds a token that the model has or not (then it gets the id), and once all
 * are there, works out every text. */
struct pipeline_token {
    struct added_token token;
    bool normalized;
};
bool pipeline_add(struct pipeline *p, const struct pipeline_token *t, const struct json *in);
bool pipeline_finish(struct pipeline *p, const struct pipeline_token *tokens, size_t count,
                     const struct json *in);

/* Adds the ids of text, any bytes; special as in tokens_encode, guard (or NULL) as in
 * tokens_encode_guarded, whose text must be valid UTF-8. On failure *out is partly filled. */
bool pipeline_encode(const struct pipeline *p, const char *text, size_t size, bool special,
                     const struct guard *guard, struct ids *out, struct error *e);

bool pipeline_is_added(const struct pipeline *p, int id);

/* As tokens_text. *started belongs to the sequence. */
size_t pipeline_text(const struct pipeline *p, bool *started, int id, bool show_control, char *out,
                     size_t cap);

int pipeline_find(const struct pipeline *p, const char *text, size_t size); /* -1: none */

#endif
