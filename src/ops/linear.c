#include "ops/linear.h"

#include <stdint.h>

#include "ops/blas.h"
#include "ops/gate.h"
#include "ops/norm.h"

/* Rows that a thread takes at once: a constant, so that every thread count makes the same calls of
 * BLAS, and what the integer kernels like. */
enum { BLOCK_ROWS = 64 };

/* From how many tokens on BLAS is used where it is asked for, and from how many on tiles of
 * integers instead of rows as they lie. */
enum { BLAS_TOKENS = 8, STRIP_TOKENS = 4 };

/* Tokens that share a block of plain rows: few enough for their activations to stay in the second
 * cache (48 was best of 24, 48 and 96 on 256 to 5632 columns). */
enum { BLOCK_TOKENS = 48 };

enum { DECODE_COST = 8 }; /* of one weight, in multiply-adds */

struct job {
    const struct backend *backend;
    const struct linear *products;
    size_t count;
    struct input in;
    const float *x; /* what is multiplied: in.x or in.h */
    size_t n;
    struct packed packed; /* x, where the weights are affine */
};

/* Rows begin .. end - 1 of one product. */
typedef void rows_fn(const struct job *j, const struct linear *p, size_t begin, size_t end,
                     float *scratch);

/* --- plain weights ---------------------------------------------------------------------------- */

typedef void dots_fn(float *y, size_t y_stride, const float *x, size_t x_stride, size_t n,
                     const void *w, size_t w_stride, size_t rows, size_t cols);

/* The kernel that reads rows of w as they lie; NULL for formats that are decoded first. */
static dots_fn *dots_of(const struct backend *b, const struct mat *w) {
    const struct format *f = w->format;
    if (f == &format_f32) return b->kern.dots_f32;
    if (f == &format_f16) return b->kern.dots_f16;
    return f == &format_bf16 ? b->kern.dots_bf16 : NULL;
}

/* Blocks of rows and tokens that stay in the second cache. */
static void plain_rows(const struct job *j, const struct linear *p, size_t begin, size_t end,
                       float *scratch) {
    const struct mat *w = p->w;
    dots_fn *dots = dots_of(j->backend, w);
    (void)scratch;
    for (size_t row = begin; row < end; row += BLOCK_ROWS) {
        size_t rows = end - row < BLOCK_ROWS ? end - row : BLOCK_ROWS;
        const unsigned char *weights = w->plane[0] + row * w->stride[0];
        for (size_t t = 0; t < j->n; t += BLOCK_TOKENS) {
            size_t n = j->n - t < BLOCK_TOKENS ? j->n - t : BLOCK_TOKENS;
            dots(p->y + t * w->rows + row, w->rows, j->x + t * w->cols, w->cols, n, weights,
                 w->stride[0], rows, w->cols);
        }
    }
}

static void decoded_rows(const struct job *j, const struct linear *p, size_t begin, size_t end,
                         float *scratch) {
    const struct mat *w = p->w;
    for (size_t row = begin; row < end; row++) {
        w->format->decode(w, row, scratch);
        j->backend->kern.dots_f32(p->y + row, w->rows, j->x, w->cols, j->n, scratch, 0, 1, w->cols);
    }
}

/* count rows of plain weights as aligned f32: in place if they are, else decoded into scratch. */
static const float *rows_as_f32(const struct backend *b, const struct mat *w, size_t row,
                                size_t count, float *scratch) {
    const unsigned char *bytes = w->plane[0] + row * w->stride[0];
    if (w->format == &format_f32) {
        if ((uintptr_t)bytes % sizeof(float) == 0) return (const float *)(const void *)bytes;
        for (size_t i = 0; i < count; i++) w->format->decode(w, row + i, scratch + i * w->cols);
    } else if (w->format == &format_f16) {
        b->kern.load_f16(scratch, bytes, count * w->cols);
    } else {
        b->kern.load_bf16(scratch, bytes, count * w->cols);
    }
    return scratch;
}

static void blas_rows(const struct job *j, const struct linear *p, size_t begin, size_t end,
                      float *scratch) {
    for (size_t row = begin; row < end; row += BLOCK_ROWS) {
        size_t count = end - row < BLOCK_ROWS ? end - row : BLOCK_ROWS;
        const float *w = rows_as_f32(j->backend, p->w, row, count, scratch);
        blas_product(p->y + row, p->w->rows, j->x, j->n, w, count, p->w->cols);
    }
}

/* --- affine weights --------------------------------------------------------------------------- */

static void affine_rows(const struct job *j, const struct linear *p, size_t begin, size_t end,
                        float *scratch) {
    const struct kern *k = &j->backend->kern;
    if (j->n < STRIP_TOKENS) {
        k->affine_rows(p->y + begin, p->w->rows, p->w, begin, end - begin, &j->packed);
    } else {
        k->affine_strip(p->y + begin, p->w->rows, p->w, begin, end - begin, &j->packed, scratch);
    }
}

static struct packed packed_for(const struct job *j) {
    const struct mat *w = j->products[0].w;
    struct packed p = j->backend->packed;
    p.n = j->n;
    p.cols = w->cols;
    p.stride = packed_stride(w->cols);
    p.group = w->group;
    p.order = packed_order_of(w->bits);
    return p;
}

static bool packs_alike(const struct mat *a, const struct mat *b) {
    return a->format == b->format && a->group == b->group &&
           packed_order_of(a->bits) == packed_order_of(b->bits);
}

/* --- the input -------------------------------------------------------------------------------- */

/* Makes and packs tokens begin .. end - 1, each while it is in the cache. */
static void prepare_tokens(void *arg, size_t begin, size_t end, int thread) {
    const struct job *j = arg;
    const struct input *in = &j->in;
    size_t cols = j->products[0].w->cols;
    (void)thread;
    for (size_t t = begin; t < end; t++) {
        size_t at = t * cols;
        if (in->norm) norm_rms(j->backend, in->h + at, in->x + at, in->norm, 1, cols, in->eps);
        if (j->packed.n) j->backend->kern.affine_pack(&j->packed, j->x, t, t + 1);
    }
}

static void prepare(struct job *j) {
    const struct mat *w = j->products[0].w;
    j->x = j->in.norm ? j->in.h : j->in.x;
    if (w->format == &format_affine) j->packed = packed_for(j);
    if (j->in.norm || j->packed.n) backend_split(j->backend, j->n, 4 * w->cols, prepare_tokens, j);
}

/* --- all products ----------------------------------------------------------------------------- */

static size_t blocks_of(const struct mat *w) {
    return (w->rows + BLOCK_ROWS - 1) / BLOCK_ROWS;
}

static rows_fn *rows_of(const struct job *j, const struct mat *w) {
    if (w->format == &format_affine) return affine_rows;
    if (!dots_of(j->backend, w)) return decoded_rows;
    return j->n >= BLAS_TOKENS && j->backend->blas ? blas_rows : plain_rows;
}

/* Blocks begin .. end - 1 of one product. */
static void multiply_one(const struct job *j, const struct linear *p, size_t begin, size_t end,
                         int thread) {
    size_t last = end * BLOCK_ROWS < p->w->rows ? end * BLOCK_ROWS : p->w->rows;
    rows_of(j, p->w)(j, p, begin * BLOCK_ROWS, last, backend_scratch(j->backend, thread));
}

/* A part of the blocks of all products, one product after the other. */
static void multiply_blocks(void *arg, size_t begin, size_t end, int thread) {
    const struct job *j = arg;
    for (size_t i = 0; i < j->count; i++) {
        size_t blocks = blocks_of(j->products[i].w);
        size_t from = begin < blocks ? begin : blocks, to = end < blocks ? end : blocks;
        if (from < to) multiply_one(j, &j->products[i], from, to, thread);
        begin -= from;
        end -= to;
    }
}

/* The same blocks of both products, then their gate. */
static void multiply_gated(void *arg, size_t begin, size_t end, int thread) {
    const struct job *j = arg;
    const struct linear *gate = &j->products[0], *up = &j->products[1];
    size_t rows = gate->w->rows;
    for (size_t i = begin; i < end; i++) {
        size_t row = i * BLOCK_ROWS, count = rows - row < BLOCK_ROWS ? rows - row : BLOCK_ROWS;
        multiply_one(j, gate, i, i + 1, thread);
        multiply_one(j, up, i, i + 1, thread);
        for (size_t t = 0; t < j->n; t++) {
            size_t at = t * rows + row;
            j->backend->kern.silu_mul(gate->y + at, up->y + at, count);
        }
    }
}

static void multiply(struct job *j, bool gated) {
    size_t blocks = 0, cols = j->products[0].w->cols;
    for (size_t i = 0; i < j->count; i++) blocks += blocks_of(j->products[i].w);
    bool decodes = !dots_of(j->backend, j->products[0].w);
    size_t cost = BLOCK_ROWS * cols * (decodes ? j->n + DECODE_COST : j->n);
    if (gated)
        backend_split(j->backend, blocks / 2, 2 * cost, multiply_gated, j);
    else
        backend_split(j->backend, blocks, cost, multiply_blocks, j);
}

void linear(const struct backend *b, const struct linear *products, size_t count, struct input in,
            size_t n) {
    while (count) {
        struct job j = {.backend = b, .products = products, .count = 1, .in = in, .n = n};
        while (j.count < count && packs_alike(products[0].w, products[j.count].w)) j.count++;
        prepare(&j);
        multiply(&j, false);
        products += j.count;
        count -= j.count;
        in = (struct input){.x = j.x}; /* which is made */
    }
}

void linear_gated(const struct backend *b, struct linear gate, struct linear up, struct input in,
                  size_t n) {
    struct linear both[] = {gate, up};
    if (packs_alike(gate.w, up.w)) {
        struct job j = {.backend = b, .products = both, .count = 2, .in = in, .n = n};
        prepare(&j);
        multiply(&j, true);
    } else {
        linear(b, both, 2, in, n);
        gate_silu(b, gate.y, up.y, n, gate.w->rows);
    }
}

/* --- memory ----------------------------------------------------------------------------------- */

size_t linear_scratch(size_t cols) {
    size_t tile = KERN_SCRATCH / sizeof(float), block = BLOCK_ROWS * cols;
    return tile > block ? tile : block;
}

void linear_layout(struct backend *b, struct arena *a, size_t cols, size_t n) {
    size_t groups = cols / 32 + 1;
    b->packed.codes = arena_take(a, n, packed_stride(cols));
    b->packed.scales = arena_take(a, n, groups * sizeof(float));
    b->packed.sums = arena_take(a, n, groups * sizeof(float));
}
