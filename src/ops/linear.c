#include "ops/linear.h"

#include <stdint.h>

#include "ops/blas.h"

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

/* Rows begin .. end - 1 of w times every token t, to y[t * stride] and on. */
typedef void rows_fn(const struct job *j, float *y, size_t stride, const struct mat *w,
                     size_t begin, size_t end, float *scratch);

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

/* Blocks of rows and tokens that stay in the second cache; for one token nothing has to stay. */
static void plain_rows(const struct job *j, float *y, size_t stride, const struct mat *w,
                       size_t begin, size_t end, float *scratch) {
    dots_fn *dots = dots_of(j->backend, w);
    (void)scratch;
    size_t block = j->n == 1 ? end - begin : BLOCK_ROWS;
    for (size_t row = begin; row < end; row += block) {
        size_t rows = end - row < block ? end - row : block;
        const unsigned char *weights = w->plane[0] + row * w->stride[0];
        for (size_t t = 0; t < j->n; t += BLOCK_TOKENS) {
            size_t n = j->n - t < BLOCK_TOKENS ? j->n - t : BLOCK_TOKENS;
            dots(y + t * stride + row - begin, stride, j->x + t * w->cols, w->cols, n, weights,
                 w->stride[0], rows, w->cols);
        }
    }
}

static void decoded_rows(const struct job *j, float *y, size_t stride, const struct mat *w,
                         size_t begin, size_t end, float *scratch) {
    for (size_t row = begin; row < end; row++) {
        w->format->decode(w, row, scratch);
        j->backend->kern.dots_f32(y + row - begin, stride, j->x, w->cols, j->n, scratch, 0, 1,
                                  w->cols);
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

static void blas_rows(const struct job *j, float *y, size_t stride, const struct mat *w,
                      size_t begin, size_t end, float *scratch) {
    for (size_t row = begin; row < end; row += BLOCK_ROWS) {
        size_t count = end - row < BLOCK_ROWS ? end - row : BLOCK_ROWS;
        const float *weights = rows_as_f32(j->backend, w, row, count, scratch);
        blas_product(y + row - begin, stride, j->x, j->n, weights, count, w->cols);
    }
}

/* --- affine weights --------------------------------------------------------------------------- */

static void affine_rows(const struct job *j, float *y, size_t stride, const struct mat *w,
                        size_t begin, size_t end, float *scratch) {
    const struct kern *k = &j->backend->kern;
    if (j->n < STRIP_TOKENS) {
        k->affine_rows(y, stride, w, begin, end - begin, &j->packed);
    } else {
        k->affine_strip(y, stride, w, begin, end - begin, &j->packed, scratch);
    }
}

/* Room for x, packed for weights like w. */
static struct packed packed_for(const struct job *j, const struct mat *w) {
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
        if (in->norm.kind) norm_tokens(j->backend, in->h + at, in->x + at, &in->norm, 1, cols);
        if (j->packed.n) j->backend->kern.affine_pack(&j->packed, j->x, t, t + 1);
    }
}

static void prepare(struct job *j, const struct mat *w) {
    bool makes = j->in.norm.kind != NORM_NONE;
    j->x = makes ? j->in.h : j->in.x;
    if (w->format == &format_affine) j->packed = packed_for(j, w);
    if (makes || j->packed.n) backend_split(j->backend, j->n, 4 * w->cols, prepare_tokens, j);
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

/* A part of the blocks of all products, one product after the other. */
static void multiply_blocks(void *arg, size_t begin, size_t end, int thread) {
    const struct job *j = arg;
    for (size_t i = 0; i < j->count; i++) {
        const struct linear *p = &j->products[i];
        size_t blocks = blocks_of(p->w), rows = p->w->rows;
        size_t from = begin < blocks ? begin : blocks, to = end < blocks ? end : blocks;
        size_t first = from * BLOCK_ROWS, last = to * BLOCK_ROWS < rows ? to * BLOCK_ROWS : rows;
        if (first < last) {
            rows_of(j, p->w)(j, p->y + first, rows, p->w, first, last,
                             backend_scratch(j->backend, thread));
        }
        begin -= from;
        end -= to;
    }
}

/* What a block of rows costs. */
static size_t cost_of(const struct job *j, const struct mat *w) {
    bool decodes = w->format != &format_affine && !dots_of(j->backend, w);
    return BLOCK_ROWS * w->cols * (decodes ? j->n + DECODE_COST : j->n);
}

void linear(const struct backend *b, const struct linear *products, size_t count, struct input in,
            size_t n) {
    while (count) {
        struct job j = {.backend = b, .products = products, .count = 1, .in = in, .n = n};
        while (j.count < count && packs_alike(products[0].w, products[j.count].w)) j.count++;
        size_t blocks = 0;
        for (size_t i = 0; i < j.count; i++) blocks += blocks_of(products[i].w);
        prepare(&j, products[0].w);
        backend_split(b, blocks, cost_of(&j, products[0].w), multiply_blocks, &j);
        products += j.count;
        count -= j.count;
        in = (struct input){.x = j.x}; /* which is made */
    }
}

/* --- gates ------------------------------------------------------------------------------------ */

/* The same blocks of both products, or of the second where the first is there already, then their
 * gate. The second is nobody else's: it waits in the scratch. */
static void multiply_gated(void *arg, size_t begin, size_t end, int thread) {
    const struct job *j = arg;
    const struct linear *gate = &j->products[0], *up = &j->products[1];
    size_t rows = gate->w->rows, end_row = end * BLOCK_ROWS < rows ? end * BLOCK_ROWS : rows;
    size_t most = j->n < STRIP_TOKENS ? rows : BLOCK_ROWS; /* of few tokens nothing has to stay */
    float *block = backend_scratch(j->backend, thread), *scratch = block + most * j->n;
    for (size_t row = begin * BLOCK_ROWS, last; row < end_row; row = last) {
        last = end_row - row < most ? end_row : row + most;
        if (j->count == 2) {
            rows_of(j, gate->w)(j, gate->y + row, rows, gate->w, row, last, scratch);
        }
        rows_of(j, up->w)(j, block, most, up->w, row, last, scratch);
        for (size_t t = 0; t < j->n; t++) {
            float *y = gate->y + t * rows + row;
            j->backend->kern.silu_mul(y, block + t * most, last - row);
        }
    }
}

void linear_gated(const struct backend *b, float *y, const struct mat *gate, const struct mat *up,
                  struct input in, size_t n) {
    struct linear both[] = {{y, gate}, {NULL, up}};
    struct job j = {.backend = b, .products = both, .count = 2, .in = in, .n = n};
    if (!packs_alike(gate, up)) {
        linear(b, both, 1, in, n);
        j.count = 1;
        j.in = (struct input){.x = in.norm.kind ? in.h : in.x};
    }
    prepare(&j, up);
    backend_split(b, blocks_of(up), j.count * cost_of(&j, up), multiply_gated, &j);
}

/* --- memory ----------------------------------------------------------------------------------- */

static size_t larger(size_t a, size_t b) {
    return a > b ? a : b;
}

size_t linear_scratch(size_t cols, size_t rows, size_t n, bool blas) {
    size_t gated = larger(BLOCK_ROWS * n, (STRIP_TOKENS - 1) * rows);
    return gated + larger(KERN_SCRATCH / sizeof(float), blas ? BLOCK_ROWS * cols : cols);
}

void linear_layout(struct backend *b, struct arena *a, size_t cols, size_t n) {
    size_t groups = cols / 32 + 1;
    b->packed.codes = arena_take(a, n, packed_stride(cols));
    b->packed.scales = arena_take(a, n, groups * sizeof(float));
    b->packed.shifts = arena_take(a, n, groups * sizeof(float));
    b->packed.sums = arena_take(a, n, groups * sizeof(float));
}
