/* What the public handles are made of. */
#ifndef NIBBLE_API_HANDLES_H
#define NIBBLE_API_HANDLES_H

#include "base/error.h"
#include "gen/generate.h"
#include "model/kv_file.h"
#include "model/model.h"
#include "model/run.h"
#include "nibble.h"
#include "text/chat.h"

struct nibble_tokenizer {
    struct tokens *tokens;
    const char *file; /* that it is, "tokenizer.json" */
    const char *why;  /* this one of two, or NULL; both statically allocated */
    bool adds_bos;
    int bos, eos;                  /* -1 if there is none */
    int before[TOKENS_MAX_BEFORE]; /* a text: BOS, or a few special tokens that do its work */
    size_t before_count;
};

struct nibble_model {
    struct model model;
    nibble_tokenizer tokenizer; /* tokens is NULL if the model came without one */
    struct chat chat;           /* its own template; name is NULL if it came without one */
    int chat_end;               /* the token that ends its answers, or -1 */
    size_t sampled;             /* ids that may be sampled: those with a piece */
};

struct nibble_context {
    const nibble_model *model;
    struct run run;
    enum dtype kv_type;
    struct kv_file_identity identity; /* for the files of its cache; empty until it is asked for */
};

/* Copies a failure to the caller's struct; returns ok. */
bool handles_report(bool ok, const struct error *from, nibble_error *to);

int handles_threads(int asked); /* the machine's default for 0 */

/* Opens the tokenizer of a store into *t; leaves t->tokens NULL if there is none. bos: the
 * config's, or -1; rows: of the embedding, 0 if they are not known. */
bool handles_open_tokenizer(nibble_tokenizer *t, const struct store *store, int bos, size_t rows,
                            struct error *e);

/* Opens the model's own chat template, once its tokenizer is open. */
bool handles_open_chat(nibble_model *m, struct error *e);

/* The file of a store that holds a chat template in Jinja, or NULL. */
const char *handles_template_file(const struct store *store);

/* Tokens that end a text besides the config's: [*count], malloc'd; more: the caller's. */
bool handles_ends(const nibble_model *m, const int *more, size_t more_count, int **ends,
                  size_t *count, struct error *e);

#endif
