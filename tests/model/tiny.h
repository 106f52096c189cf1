/* Tiny random models: made in memory, where a test may change them, and written as one .npz. */
#ifndef NIBBLE_TESTS_TINY_H
#define NIBBLE_TESTS_TINY_H

#include "fixture.h"
#include "model/model.h"
#include "num/half.h"
#include "scratch.h"
#include "store/write.h"

struct tiny {
    size_t dim, layers, heads, kv_heads, head_dim, hidden, vocab, window;
    bool tied;
    bool meta; /* Meta's names, and so interleaved rope */
    enum dtype dtype;
};

static const struct tiny tiny_default = {.dim = 64,
                                         .layers = 2,
                                         .heads = 4,
                                         .kv_heads = 2,
                                         .head_dim = 16,
                                         .hidden = 192,
                                         .vocab = 203};

struct tiny_array {
    char name[96];
    enum dtype dtype;
    int dims;
    uint64_t shape[3];
    unsigned char *data; /* malloc'd */
    size_t bytes;
};

enum { TINY_MOST = 80, TINY_CONTEXT = 128 };

struct tiny_file {
    struct tiny_array arrays[TINY_MOST];
    size_t count;
    char config[2048]; /* empty: none is written */
};

/* --- making ----------------------------------------------------------------------------------- */

/* Adds an array of zeros (rows 0: a vector). */
static inline struct tiny_array *tiny_add(struct tiny_file *f, const char *name, enum dtype dtype,
                                          size_t rows, size_t cols) {
    struct tiny_array *a = &f->arrays[f->count++];
    *a = (struct tiny_array){.dtype = dtype, .dims = rows ? 2 : 1, .shape = {rows, cols}};
    if (!rows) a->shape[0] = cols;
    snprintf(a->name, sizeof a->name, "%s", name);
    a->bytes = (rows ? rows : 1) * cols * dtype_bytes(dtype);
    a->data = calloc(a->bytes + 1, 1);
    return a;
}

static inline void tiny_put(struct tiny_array *a, size_t i, float x) {
    switch (a->dtype) {
    case DTYPE_F16: half_store_u16(a->data + 2 * i, half_to_f16(x)); break;
    case DTYPE_BF16: half_store_u16(a->data + 2 * i, half_to_bf16(x)); break;
    default: memcpy(a->data + 4 * i, &x, sizeof x);
    }
}

/* A matrix that keeps the size of what it multiplies, or a vector near 1. */
static inline void tiny_tensor(struct tiny_file *f, const struct tiny *t, const char *module,
                               size_t rows, size_t cols) {
    char name[96];
    snprintf(name, sizeof name, "%s.weight", module);
    struct tiny_array *a = tiny_add(f, name, t->dtype, rows, cols);
    for (size_t i = 0; i < (rows ? rows : 1) * cols; i++) {
        float x = fixture_value();
        tiny_put(a, i, rows ? x * sqrtf(3 / (float)cols) : 1 + x / 8);
    }
}

static inline void tiny_layer(struct tiny_file *f, const struct tiny *t, size_t layer) {
    static const char *const names[2][9] = {
        {"input_layernorm", "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj",
         "self_attn.o_proj", "post_attention_layernorm", "mlp.gate_proj", "mlp.down_proj",
         "mlp.up_proj"},
        {"attention_norm", "attention.wq", "attention.wk", "attention.wv", "attention.wo",
         "ffn_norm", "feed_forward.w1", "feed_forward.w2", "feed_forward.w3"}};
    size_t q = t->heads * t->head_dim, k = t->kv_heads * t->head_dim;
    const size_t shapes[9][2] = {{0, t->dim},         {q, t->dim},         {k, t->dim},
                                 {k, t->dim},         {t->dim, q},         {0, t->dim},
                                 {t->hidden, t->dim}, {t->dim, t->hidden}, {t->hidden, t->dim}};
    for (int i = 0; i < 9; i++) {
        char name[80];
        snprintf(name, sizeof name, "%slayers.%zu.%s", t->meta ? "" : "model.", layer,
                 names[t->meta][i]);
        tiny_tensor(f, t, name, shapes[i][0], shapes[i][1]);
    }
}

static inline void tiny_make(struct tiny_file *f, const struct tiny *t, uint64_t seed) {
    *f = (struct tiny_file){0};
    random_seed(&fixture_random, seed, 0);
    tiny_tensor(f, t, t->meta ? "tok_embeddings" : "model.embed_tokens", t->vocab, t->dim);
    tiny_tensor(f, t, t->meta ? "norm" : "model.norm", 0, t->dim);
    if (!t->tied) tiny_tensor(f, t, t->meta ? "output" : "lm_head", t->vocab, t->dim);
    for (size_t i = 0; i < t->layers; i++) tiny_layer(f, t, i);
    snprintf(f->config, sizeof f->config,
             "{\"model_type\": \"mistral\", \"hidden_size\": %zu, \"num_hidden_layers\": %zu, "
             "\"num_attention_heads\": %zu, \"num_key_value_heads\": %zu, \"head_dim\": %zu, "
             "\"intermediate_size\": %zu, \"vocab_size\": %zu, \"sliding_window\": %zu, "
             "\"rms_norm_eps\": 1e-5, \"max_position_embeddings\": %d}",
             t->dim, t->layers, t->heads, t->kv_heads, t->head_dim, t->hidden, t->vocab, t->window,
             TINY_CONTEXT);
}

/* --- changing --------------------------------------------------------------------------------- */

static inline struct tiny_array *tiny_find(struct tiny_file *f, const char *name) {
    for (size_t i = 0; i < f->count; i++) {
        if (strcmp(f->arrays[i].name, name) == 0) return &f->arrays[i];
    }
    printf("no array %s\n", name);
    exit(1);
}

static inline void tiny_remove(struct tiny_file *f, const char *name) {
    struct tiny_array *a = tiny_find(f, name);
    free(a->data);
    *a = f->arrays[--f->count];
}

static inline void tiny_drop(struct tiny_file *f) {
    for (size_t i = 0; i < f->count; i++) free(f->arrays[i].data);
    f->count = 0;
}

/* --- writing and opening ---------------------------------------------------------------------- */

static inline bool tiny_produce(void *arg, struct span *bytes, struct error *e) {
    const struct tiny_array *a = arg;
    (void)e;
    *bytes = (struct span){a->data, a->bytes};
    return true;
}

static inline bool tiny_produce_text(void *arg, struct span *bytes, struct error *e) {
    (void)e;
    *bytes = (struct span){arg, strlen(arg)};
    return true;
}

/* Writes f to name in the scratch folder; returns the path. */
static inline const char *tiny_write(struct tiny_file *f, const char *name) {
    struct writer *w;
    struct error e;
    const char *path = scratch_path(name);
    uint64_t length = strlen(f->config);
    bool ok = write_open(&w, path, &e);
    if (ok && length)
        ok = write_array(w, "config.json", DTYPE_U8, 1, &length, tiny_produce_text, f->config, &e);
    for (size_t i = 0; ok && i < f->count; i++) {
        struct tiny_array *a = &f->arrays[i];
        ok = write_array(w, a->name, a->dtype, a->dims, a->shape, tiny_produce, a, &e);
    }
    if (!ok || !write_commit(w, &e)) {
        printf("%s: %s\n", path, e.message);
        exit(1);
    }
    return path;
}

/* Makes, writes and opens a model in one go. */
static inline void tiny_open(struct model *m, const struct tiny *t, const char *name,
                             uint64_t seed) {
    static struct tiny_file f;
    struct error e;
    tiny_make(&f, t, seed);
    if (!model_open(m, tiny_write(&f, name), &e)) {
        printf("%s\n", e.message);
        exit(1);
    }
    tiny_drop(&f);
}

#endif
