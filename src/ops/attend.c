#include "ops/attend.h"

#include <math.h>
#include <string.h>

#include "ops/softcap.h"

/* Positions of a chunk, which a thread takes at once when there are few queries; queries that
 * share a tile; and from how many on the tile is made f32 first. */
enum { TILE = CACHE_TILE, CHUNK = 8 * TILE, QUERIES = 64, CONVERT = 16 };

/* --- queries ---------------------------------------------------------------------------------- */

struct attend {
    const struct backend *backend;
    const struct attention *attention;
    const struct cache *cache;
    float *out;
    const float *q;
    size_t n, pos;
    size_t group;         /* query heads of one key/value head */
    size_t heads;         /* of them in one block, at most QUERIES */
    size_t shares;        /* blocks of one token: all key/value heads, each group cut by heads */
    size_t tokens;        /* of one block */
    size_t first, chunks; /* the first chunk that any query sees, and how many there are */
};

/* What is known of a block of queries so far. With weights exp(score - max): their sum, and the
 * values they weigh. */
struct state {
    float *out; /* [QUERIES, value_dim] */
    float *max; /* [QUERIES] -INFINITY: nothing yet */
    float *sum; /* [QUERIES] */
};

/* A block: tokens begin .. begin + tokens - 1, `heads` query heads of one key/value head from
 * `head` on. */
struct block {
    size_t kv_head, head, heads, begin, tokens, queries;
    float *q;      /* [queries, key_dim] times the scale */
    float *scores; /* [QUERIES, TILE] */
    float *tile;   /* keys [key_dim, TILE], then values [TILE, value_dim], as f32 */
    struct state state;
};

static size_t token_of(const struct block *b, size_t query) {
    return b->begin + query / b->heads;
}

static size_t head_of(const struct block *b, size_t query) {
    return b->head + query % b->heads;
}

/* The first position that token t sees, and one past the last. */
static size_t first_seen(const struct attend *a, size_t t) {
    size_t end = a->pos + t + 1, window = a->attention->window, chunk = a->attention->chunk;
    size_t first = window && end > window ? end - window : 0;
    size_t begin = chunk ? (end - 1) / chunk * chunk : 0;
    return first > begin ? first : begin;
}

static void load_queries(const struct attend *a, struct block *b) {
    size_t dim = a->cache->key_dim;
    for (size_t i = 0; i < b->queries; i++) {
        size_t at = (token_of(b, i) * a->attention->heads + head_of(b, i)) * dim;
        for (size_t c = 0; c < dim; c++) b->q[i * dim + c] = a->q[at + c] * a->attention->scale;
    }
}

static void clear(const struct attend *a, const struct block *b) {
    memset(b->state.out, 0, b->queries * a->cache->value_dim * sizeof(float));
    for (size_t i = 0; i < b->queries; i++) {
        b->state.max[i] = -INFINITY;
        b->state.sum[i] = 0;
    }
}

/* --- one tile --------------------------------------------------------------------------------- */

/* Of a tile's positions, those that a token sees: begin .. end - 1, counted from the tile's first.
 * What a token does not see is left out, not multiplied by zero: it may be infinite. */
struct range {
    size_t begin, end;
};

static struct range seen_of(const struct attend *a, size_t t, size_t at, size_t count) {
    size_t first = first_seen(a, t), last = a->pos + t + 1;
    struct range r = {first > at ? first - at : 0, last > at ? last - at : 0};
    if (r.end > count) r.end = count;
    return r;
}

/* Rows of the cache to weigh: a tile's keys, or its values. */
struct rows {
    void (*sums)(float *y, size_t y_stride, const float *p, size_t p_stride, size_t n,
                 const void *w, size_t w_stride, size_t rows, size_t cols);
    const unsigned char *data;
    size_t bytes;        /* from one row to the next */
    const float *scales; /* of positions, or NULL */
};

/* `count` rows of `width` elements as they lie, or as f32 in room if enough queries share them. */
static struct rows take_rows(const struct attend *a, const struct block *b,
                             const unsigned char *data, size_t count, size_t width, float *room) {
    const struct kern *k = &a->backend->kern;
    enum dtype type = a->cache->dtype;
    struct rows as_is = {type == DTYPE_F16  ? k->sums_f16
                         : type == DTYPE_I8 ? k->sums_i8
                                            : k->sums_f32,
                         data, width * dtype_bytes(type), NULL};
    if (type == DTYPE_F32 || b->queries < CONVERT) return as_is;
    (type == DTYPE_F16 ? k->load_f16 : k->load_i8)(room, data, count * width);
    return (struct rows){k->sums_f32, (const unsigned char *)room, width * sizeof(float), NULL};
}

/* Few queries do not take long enough for the hardware to foresee what they read next. Their sums
 * ask for what lies ahead in the same tile or the next; this is for a tile's beginning, which lies
 * behind another's end. Together they take 2 to 4% less time than the sums' asking alone. */
static void prefetch(const struct attend *a, const struct block *b, const unsigned char *data,
                     size_t elements) {
    size_t bytes = b->queries < CONVERT ? elements * dtype_bytes(a->cache->dtype) : 0;
    for (size_t i = 0; i < bytes; i += 64) __builtin_prefetch(data + i);
}

static void scale_scores(float *scores, const float *scales, size_t n) {
    for (size_t i = 0; scales && i < n; i++) scores[i] *= scales[i];
}

/* n scores of query i become weights; what was weighed before is brought to the new maximum. */
static void weigh(const struct attend *a, const struct block *b, size_t i, float *scores,
                  size_t n) {
    size_t dim = a->cache->value_dim;
    float *max = &b->state.max[i], before = *max;
    if (a->attention->softcap != 0) softcap(a->backend, scores, n, a->attention->softcap);
    float sum = a->backend->kern.online_softmax(scores, max, n);
    if (*max != before) {
        float shrink = expf(before - *max);
        for (size_t c = 0; c < dim; c++) b->state.out[i * dim + c] *= shrink;
        b->state.sum[i] *= shrink;
    }
    b->state.sum[i] += sum;
}

/* The scores of all queries with a tile's first positions, those that a query does not see too. */
static void score_tile(const struct attend *a, const struct block *b, size_t at, size_t count) {
    const struct cache *c = a->cache;
    struct rows keys =
        take_rows(a, b, cache_keys(c, b->kv_head, at / TILE), c->key_dim, TILE, b->tile);
    memset(b->scores, 0, b->queries * TILE * sizeof(float));
    keys.sums(b->scores, TILE, b->q, c->key_dim, b->queries, keys.data, keys.bytes, c->key_dim,
              count);
    if (c->k_scales) {
        const float *scales = c->k_scales + cache_scale_at(c, b->kv_head, at);
        for (size_t i = 0; i < b->queries; i++) scale_scores(b->scores + i * TILE, scales, count);
    }
}

static void attend_tile(const struct attend *a, const struct block *b, size_t at, size_t count) {
    const struct cache *c = a->cache;
    size_t dim = c->value_dim;
    prefetch(a, b, cache_values(c, b->kv_head, at), count * dim);
    score_tile(a, b, at, count);
    if (at + TILE < c->context) {
        prefetch(a, b, cache_keys(c, b->kv_head, at / TILE + 1), TILE * c->key_dim);
    }
    struct rows values = take_rows(a, b, cache_values(c, b->kv_head, at), count, dim, b->tile);
    if (c->v_scales) values.scales = c->v_scales + cache_scale_at(c, b->kv_head, at);
    size_t n; /* queries of tokens that see the same of this tile */
    for (size_t i = 0; i < b->queries; i += n) {
        struct range seen = seen_of(a, token_of(b, i), at, count);
        for (n = b->heads; i + n < b->queries; n += b->heads) {
            struct range next = seen_of(a, token_of(b, i + n), at, count);
            if (next.begin != seen.begin || next.end != seen.end) break;
        }
        if (seen.begin >= seen.end) continue;
        size_t rows = seen.end - seen.begin;
        float *scores = b->scores + i * TILE + seen.begin;
        for (size_t q = 0; q < n; q++) {
            weigh(a, b, i + q, scores + q * TILE, rows);
            if (values.scales) scale_scores(scores + q * TILE, values.scales + seen.begin, rows);
        }
        values.sums(b->state.out + i * dim, dim, scores, TILE, n,
                    values.data + seen.begin * values.bytes, values.bytes, rows, dim);
    }
}

/* The positions of one chunk that the block sees. */
static void attend_chunk(const struct attend *a, const struct block *b, size_t chunk) {
    size_t last = a->pos + b->begin + b->tokens, first = first_seen(a, b->begin);
    size_t begin = chunk * CHUNK, end = begin + CHUNK < last ? begin + CHUNK : last;
    clear(a, b);
    for (size_t at = begin; at < end; at += TILE) {
        if (at + TILE > first) attend_tile(a, b, at, end - at < TILE ? end - at : TILE);
    }
}

/* --- chunks ----------------------------------------------------------------------------------- */

/* Adds a later chunk's (out, max, sum) of one query to an earlier one's. One of which the query
 * sees nothing has the sum 0; one of nothing but NaN has the sum NaN. */
static void merge(float *out, float *max, float *sum, const float *out2, float max2, float sum2,
                  size_t dim) {
    if (sum2 == 0) return;
    float top = *max >= max2 ? *max : max2;
    float a = expf(*max - top), b = expf(max2 - top);
    for (size_t c = 0; c < dim; c++) out[c] = out[c] * a + out2[c] * b;
    *sum = *sum * a + sum2 * b;
    *max = top;
}

static size_t larger(size_t a, size_t b) {
    return a > b ? a : b;
}

static struct block take_block(const struct attend *a, size_t item, float *scratch) {
    size_t key_dim = a->cache->key_dim, value_dim = a->cache->value_dim;
    size_t blocks = a->shares / a->cache->heads; /* of one key/value head */
    size_t share = item % a->shares, at = share % blocks * a->heads;
    struct block b = {.kv_head = share / blocks, .begin = item / a->shares * a->tokens};
    b.head = b.kv_head * a->group + at;
    b.heads = a->group - at < a->heads ? a->group - at : a->heads;
    b.tokens = a->n - b.begin < a->tokens ? a->n - b.begin : a->tokens;
    b.queries = b.tokens * b.heads;
    b.q = scratch;
    b.scores = b.q + QUERIES * key_dim;
    b.tile = b.scores + QUERIES * TILE;
    b.state.out = b.tile + TILE * larger(key_dim, value_dim);
    b.state.max = b.state.out + QUERIES * value_dim;
    b.state.sum = b.state.max + QUERIES;
    load_queries(a, &b);
    return b;
}

/* What is known after all chunks. A sink comes last, once; one that is so far above the scores that
 * its weight is infinite leaves 0, as it should. */
static void write_query(const struct attend *a, size_t token, size_t head, const float *out,
                        float max, float sum) {
    size_t dim = a->cache->value_dim, at = (token * a->attention->heads + head) * dim;
    if (a->attention->sinks) sum += expf(a->attention->sinks[head] - max);
    for (size_t c = 0; c < dim; c++) a->out[at + c] = out[c] / sum;
}

/* Blocks of queries, each over all chunks that it sees, merged as they come. */
static void attend_blocks(void *arg, size_t begin, size_t end, int thread) {
    const struct attend *a = arg;
    size_t dim = a->cache->value_dim;
    float *scratch = backend_scratch(a->backend, thread);
    float *out = scratch + attend_scratch(a->cache->key_dim, dim) - QUERIES * (dim + 2);
    float *max = out + QUERIES * dim, *sum = max + QUERIES;
    for (size_t item = begin; item < end; item++) {
        struct block b = take_block(a, item, scratch);
        size_t first = first_seen(a, b.begin) / CHUNK;
        size_t last = (a->pos + b.begin + b.tokens - 1) / CHUNK;
        for (size_t chunk = first; chunk <= last; chunk++) {
            attend_chunk(a, &b, chunk);
            for (size_t i = 0; i < b.queries; i++) {
                const struct state *s = &b.state;
                if (chunk == first) {
                    memcpy(out + i * dim, s->out + i * dim, dim * sizeof *out);
                    max[i] = s->max[i];
                    sum[i] = s->sum[i];
                } else {
                    merge(out + i * dim, &max[i], &sum[i], s->out + i * dim, s->max[i], s->sum[i],
                          dim);
                }
            }
        }
        for (size_t i = 0; i < b.queries; i++) {
            write_query(a, token_of(&b, i), head_of(&b, i), out + i * dim, max[i], sum[i]);
        }
    }
}

/* Few queries: each chunk of a block is an item of its own, whose results wait in parts. */
static float *part_of(const struct attend *a, size_t head, size_t chunk) {
    return a->attention->parts + (head * a->chunks + chunk) * (a->cache->value_dim + 2);
}

static void attend_parts_of(void *arg, size_t begin, size_t end, int thread) {
    const struct attend *a = arg;
    size_t dim = a->cache->value_dim;
    for (size_t item = begin; item < end; item++) {
        struct block b = take_block(a, item / a->chunks, backend_scratch(a->backend, thread));
        size_t chunk = item % a->chunks;
        attend_chunk(a, &b, a->first + chunk);
        for (size_t i = 0; i < b.queries; i++) {
            float *part = part_of(a, head_of(&b, i), chunk);
            memcpy(part, b.state.out + i * dim, dim * sizeof *part);
            part[dim] = b.state.max[i];
            part[dim + 1] = b.state.sum[i];
        }
    }
}

static void merge_parts(const struct attend *a) {
    size_t dim = a->cache->value_dim;
    for (size_t h = 0; h < a->attention->heads; h++) {
        float *all = part_of(a, h, 0);
        for (size_t chunk = 1; chunk < a->chunks; chunk++) {
            const float *part = part_of(a, h, chunk);
            merge(all, &all[dim], &all[dim + 1], part, part[dim], part[dim + 1], dim);
        }
        write_query(a, 0, h, all, all[dim], all[dim + 1]);
    }
}

void attend(const struct backend *b, const struct attention *attention, const struct cache *cache,
            float *out, const float *q, size_t n, size_t pos) {
    struct attend a = {b, attention, cache, out,
                       q, n,         pos,   .group = attention->heads / cache->heads};
    size_t cost = a.group * (cache->key_dim + cache->value_dim);
    a.heads = a.group < QUERIES ? a.group : QUERIES;
    a.shares = cache->heads * ((a.group + a.heads - 1) / a.heads);
    a.tokens = QUERIES / a.heads;
    a.first = first_seen(&a, 0) / CHUNK;
    a.chunks = (pos + n - 1) / CHUNK - a.first + 1;
    if (n == 1) {
        backend_split(b, a.shares * a.chunks, cost * CHUNK, attend_parts_of, &a);
        merge_parts(&a);
        return;
    }
    size_t blocks = (n + a.tokens - 1) / a.tokens;
    backend_split(b, a.shares * blocks, cost * a.tokens * (pos + n), attend_blocks, &a);
}

size_t attend_scratch(size_t key_dim, size_t value_dim) {
    return QUERIES * (key_dim + 2 * value_dim + TILE + 4) + TILE * larger(key_dim, value_dim);
}

size_t attend_parts(size_t heads, size_t value_dim, size_t context) {
    return heads * (context / CHUNK + 2) * (value_dim + 2);
}
