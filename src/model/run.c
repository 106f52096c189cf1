#include "model/run.h"

#include <string.h>

#include "base/denormals.h"
#include "base/memory.h"
#include "model/forward.h"
#include "ops/attend.h"
#include "ops/blas.h"
#include "ops/linear.h"

enum { LEAVE_FREE = 1 << 30 };

/* The batch if none is asked for: what a product of weights in tiles is fast with, as long as its
 * activations stay a small part of what a machine has. Its size changes no result. */
enum { BATCH = 512, BATCH_BYTES = 48 << 20 };

static size_t larger(size_t a, size_t b) {
    return a > b ? a : b;
}

/* The longest input of a product. */
static size_t most_cols(const struct spec *s) {
    size_t feed_forward = larger(s->hidden, larger(s->expert_hidden, s->shared_hidden));
    size_t latent = larger(s->q_rank, s->kv_rank);
    return larger(larger(s->dim, s->heads * s->value_dim), larger(feed_forward, latent));
}

/* The most rows of a gate. */
static size_t most_gated(const struct spec *s) {
    return larger(s->hidden, larger(s->expert_hidden, s->shared_hidden));
}

static float *take_floats(struct arena *a, size_t n, size_t count) {
    return count ? arena_take(a, n, count * sizeof(float)) : NULL;
}

static void layout_latent(struct run *r, struct arena *a, size_t n) {
    const struct spec *s = &r->model->spec;
    r->attended = take_floats(a, n, s->heads * s->value_dim);
    r->q_latent = take_floats(a, n, s->q_rank);
    r->kv_latent = take_floats(a, n, s->kv_rank);
    r->k_nope = take_floats(a, n, s->heads * s->nope_dim);
    r->k_rope = take_floats(a, n, s->rope_dim);
}

/* What n tokens are while they pass through the layers. */
static void layout_tokens(struct run *r, struct arena *a, size_t n) {
    const struct spec *s = &r->model->spec;
    size_t queries = s->heads * s->head_dim, keys = s->kv_heads * s->head_dim;
    size_t values = s->kv_heads * s->value_dim;
    r->x = take_floats(a, n, s->dim);
    r->h = r->f = take_floats(a, n, s->dim);
    if (s->parallel || s->experts) r->f = take_floats(a, n, s->dim);
    r->q = r->gate = r->attended = take_floats(a, n, larger(queries + keys + values, s->hidden));
    r->k = a->base ? r->q + n * queries : NULL;
    r->v = a->base ? r->k + n * keys : NULL;
    if (s->value_dim != s->head_dim || s->kv_rank) layout_latent(r, a, n);
    r->global.angles = take_floats(a, n, s->rope_dim);
    r->local.angles = r->local.rope ? take_floats(a, n, s->rope_dim) : NULL;
    size_t packed = n;
    if (s->experts) {
        struct moe_choice choice = spec_choice(s);
        moe_layout(&r->moe, a, &choice, s->experts, s->dim, most_gated(s), n);
        packed = larger(n, s->top_k);
    }
    linear_layout(&r->backend, a, most_cols(s), packed);
}

/* Scratch first: it is used for every token, the end of the cache perhaps never. Returns the bytes
 * of scratch. */
static size_t layout(struct run *r, struct arena *a, enum dtype kv_type) {
    const struct spec *s = &r->model->spec;
    layout_tokens(r, a, r->batch);
    r->parts = arena_take(a, attend_parts(s->heads, s->value_dim, r->context), sizeof(float));
    size_t products = linear_scratch(most_cols(s), most_gated(s), r->batch, r->backend.blas);
    size_t others = larger(attend_scratch(s->head_dim, s->value_dim), cache_scratch(s->head_dim));
    backend_layout(&r->backend, a, larger(products, others));
    size_t bytes = a->used;
    r->ids = arena_take(a, r->context, sizeof *r->ids);
    kv_layout(&r->kv, a, s, kv_type, r->context);
    return bytes;
}

static size_t default_batch(struct run *r) {
    struct arena token = {0};
    layout_tokens(r, &token, 1);
    size_t most = BATCH_BYTES / token.used;
    return most < BATCH ? larger(most, 1) : BATCH;
}

/* The model's own context if memory allows, else what leaves a gigabyte free, or half of what is
 * available if that is less. */
static size_t default_context(const struct model *m, enum dtype kv_type) {
    size_t available = memory_available(), each = kv_position_bytes(&m->spec, kv_type);
    size_t room = (available / 2 > LEAVE_FREE ? available - LEAVE_FREE : available / 2) / each;
    size_t context = m->spec.context;
    return !available || context <= room ? context : larger(room, 1);
}

static const struct rope *rope_of(const struct model *m, enum rotary_table table) {
    return m->ropes[table].dim ? &m->ropes[table] : NULL;
}

const struct rope *run_rope(const struct run *r, size_t length) {
    const struct rope *long_rope = rope_of(r->model, ROTARY_LONG);
    bool is_long = (double)length > r->model->spec.rope_original_context;
    return long_rope && is_long ? long_rope : rope_of(r->model, ROTARY_GLOBAL);
}

/* Positions that were learned end where the model's context does. */
static bool check_context(const struct run *r, struct error *e) {
    const struct spec *s = &r->model->spec;
    if (!s->positions || r->context <= s->context) return true;
    return fail(e, STATUS_ARGUMENT,
                "the model has learned %zu positions: a context of %zu tokens is more than that",
                s->context, r->context);
}

bool run_open(struct run *r, const struct model *m, const struct run_options *o, struct error *e) {
    const struct spec *s = &m->spec;
    *r = (struct run){.model = m};
    r->local.rope = rope_of(m, ROTARY_LOCAL);
    r->growth = (struct rope_growth){
        .beta = (float)s->query_growth,
        .context = s->growth_context ? s->growth_context : (size_t)s->rope_original_context,
        .offset = s->growth_unturned ? 1 : 0,
    };
    r->global.rope = run_rope(r, 0);
    r->context = o->context ? o->context : default_context(m, o->kv_type);
    r->batch = o->batch ? o->batch : default_batch(r);
    if (r->batch > r->context) r->batch = r->context;
    if (!check_context(r, e) || !backend_open(&r->backend, o->threads, o->level, e)) return false;
    r->backend.blas = o->blas;
    if (o->blas) blas_init();
    struct arena count = {0};
    layout(r, &count, o->kv_type);
    size_t available = memory_available();
    if (available && count.used > available) {
        fail(e, STATUS_MEMORY,
             "a context of %zu tokens needs %zu MB and %zu MB are available; ask for a smaller "
             "--ctx-size",
             r->context, count.used >> 20, available >> 20);
        goto fail;
    }
    TRY(arena_open(&r->arena, count.used, e));
    r->scratch_bytes = layout(r, &r->arena, o->kv_type);
    arena_prefer_huge(&r->arena, r->scratch_bytes);
    return true;
fail:
    run_close(r);
    return false;
}

void run_close(struct run *r) {
    backend_close(&r->backend);
    arena_close(&r->arena);
    *r = (struct run){0};
}

bool run_check(const struct run *r, const int *ids, size_t n, struct error *e) {
    if (n > r->context - r->pos) {
        return fail(e, STATUS_CONTEXT,
                    "%zu tokens do not fit the context of %zu%s; raise --ctx-size or shorten them",
                    r->pos + n, r->context,
                    r->context < r->model->spec.context ? "" : ", the model's own");
    }
    for (size_t i = 0; i < n; i++) {
        if (ids[i] >= 0 && (size_t)ids[i] < r->model->spec.vocab) continue;
        return fail(e, STATUS_ARGUMENT, "token id %d lies outside the vocabulary of %zu", ids[i],
                    r->model->spec.vocab);
    }
    return true;
}

/* n tokens are about to be turned: whether by the table of those before them. */
static void note_rope(struct run *r, size_t n) {
    if (r->pos == 0) r->turned_by = r->global.rope;
    if (r->turned == r->pos && r->turned_by == r->global.rope) r->turned += n;
}

void run_expect(struct run *r, size_t tokens) {
    r->expected = tokens;
}

bool run_append(struct run *r, const int *ids, size_t n, float *logits, bool all, struct error *e) {
    if (!run_check(r, ids, n, e)) return false;
    size_t vocab = r->model->spec.vocab;
    r->global.rope = run_rope(r, larger(r->pos + n, r->expected));
    note_rope(r, n);
    if (n) memmove(r->ids + r->pos, ids, n * sizeof *ids);
    unsigned long before = denormals_flush(); /* as the operations' threads do */
    for (size_t done = 0; done < n;) {
        size_t count = n - done < r->batch ? n - done : r->batch;
        size_t last = all ? count : logits && done + count == n;
        forward(r, r->ids + r->pos, count, r->pos, last);
        if (logits && last) forward_logits(r, 0, last, all ? logits + done * vocab : logits);
        r->pos += count;
        done += count;
    }
    denormals_restore(before);
    return true;
}

bool run_begin(struct run *r, const int *ids, size_t n, struct error *e) {
    run_rewind(r, 0);
    if (!run_check(r, ids, n, e)) return false;
    r->global.rope = run_rope(r, n);
    forward_begin(r, ids, n, 0);
    return true;
}

void run_rewind(struct run *r, size_t pos) {
    if (pos < r->pos) r->pos = pos;
    if (pos < r->turned) r->turned = pos;
    r->expected = 0;
}

size_t run_keep(struct run *r, const int *ids, size_t n) {
    size_t kept = 0, most = r->turned_by == run_rope(r, n) ? r->turned : 0;
    while (kept < most && kept + 1 < n && r->ids[kept] == ids[kept]) kept++;
    run_rewind(r, kept);
    return kept;
}

void run_restore(struct run *r, const int *ids, size_t n, const struct rope *turned_by) {
    memcpy(r->ids, ids, n * sizeof *ids);
    r->pos = r->turned = n;
    r->turned_by = turned_by;
    r->expected = 0;
}

size_t run_bytes(const struct run *r) {
    return r->arena.size;
}
