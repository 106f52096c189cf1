/* One timeline of tokens over a model: cache, scratch and threads. All memory is taken when it
 * opens. */
#ifndef NIBBLE_MODEL_RUN_H
#define NIBBLE_MODEL_RUN_H

#include "model/kv.h"
#include "model/model.h"
#include "ops/backend.h"

struct run_options {
    size_t context; /* positions; 0: the model's, at most what leaves a gigabyte of memory free, or
                     * half of it if that is less */
    size_t batch;   /* tokens of one forward pass; 0: 512, or what 48 MB hold if that is less */
    int threads;    /* at least 1 */
    const char *level;  /* NULL: the best */
    enum dtype kv_type; /* as kv_type_find gives it */
    bool blas;          /* long prompts of plain weights through OpenBLAS: last bits may then
                         * depend on the batch size */
};

/* How positions turn queries and keys: a table, and the angles of the tokens at hand. */
struct rotation {
    const struct rope *rope; /* NULL: they do not */
    float *angles;           /* [n, rope->dim / 2, 2] */
};

struct run {
    const struct model *model;
    struct backend backend;
    struct arena arena;
    size_t scratch_bytes; /* of the arena; the rest is the cache */
    struct kv kv;
    size_t context, batch;
    size_t pos;      /* tokens in the cache */
    int *ids;        /* [context] which those are */
    size_t turned;   /* so many of them, from the first on, were turned by one table */
    const struct rope *turned_by;
    size_t expected; /* that the text at hand will come to */
    struct rotation global, local;
    struct rope_growth growth;

    /* scratch of a forward pass, [batch, ...] */
    float *x;        /* [dim] the residual stream; after forward(), the last layer's */
    float *h;        /* [dim] what attention reads, then what it adds */
    float *f;        /* [dim] what feed-forward reads, then what it adds; in the memory of h where
                      * the blocks take turns */
    float *q;        /* [heads * head_dim] queries */
    float *k, *v;    /* [kv_heads * head_dim], [kv_heads * value_dim] */
    float *attended; /* [heads * value_dim] in the memory of q where dimensions are equal */
    float *gate;     /* [hidden], in the memory of q, k and v: the blocks take turns */
    float *parts;    /* of attention over a long cache */

    float *q_latent, *kv_latent; /* [q_rank], [kv_rank] */
    float *k_nope, *k_rope;      /* [heads * nope_dim], [rope_dim] */
    struct moe_scratch moe;
};

bool run_open(struct run *r, const struct model *m, const struct run_options *o, struct error *e);
void run_close(struct run *r);

/* Whether n ids can be appended: they fit the context (else STATUS_CONTEXT) and the vocabulary. */
bool run_check(const struct run *r, const int *ids, size_t n, struct error *e);

/* The table that turns a text of that length; NULL: none does. */
const struct rope *run_rope(const struct run *r, size_t length);

/* Says that the text will come to so many tokens in all, for callers that append it piece by piece.
 * Where rope has a table for long texts, that length decides which one turns them, as if all were
 * appended at once. */
void run_expect(struct run *r, size_t tokens);

/* Appends n ids: forward passes of at most batch tokens, each after the other. logits, if not NULL,
 * is [n, vocab] when all, else [vocab] for the last one. When all, r->x holds what the last pass
 * made of each of its tokens, with logits or without; else only what they need is computed. What
 * run_check refuses is refused before anything changes. ids may lie in r->ids, behind pos. */
bool run_append(struct run *r, const int *ids, size_t n, float *logits, bool all, struct error *e);

/* Begins a pass of n tokens, at most a batch, at the front by hand: the embedding is in r->x, and
 * forward_layer() may follow. Nothing is appended. */
bool run_begin(struct run *r, const int *ids, size_t n, struct error *e);

/* Forgets all tokens from pos on. */
void run_rewind(struct run *r, size_t pos);

/* Forgets all but the longest beginning of ids [n] that is there already, just as if all of them
 * were appended to an empty run now; at most n - 1 tokens, so that something is left to append.
 * Returns its length. (With blas what is appended may differ in last bits, as with another batch
 * size.) */
size_t run_keep(struct run *r, const int *ids, size_t n);

/* Says that the cache holds ids [n], which it has been given otherwise, turned by one table. */
void run_restore(struct run *r, const int *ids, size_t n, const struct rope *turned_by);

/* Bytes of the arena: cache and scratch. */
size_t run_bytes(const struct run *r);

#endif
