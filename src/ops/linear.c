#include "ops/linear.h"

#include <stdint.h>

#include "ops/blas.h"

/* Rows that a thread takes at least: a constant, so that every thread count makes the same calls of
 * BLAS, and a strip of the integer kernels. With twice as many, sixteen threads take a twentieth
 * longer for a prompt, for some have one block more than others. */
enum { BLOCK_ROWS = 32 };

/* From how many tokens on BLAS is used where it is asked for, and from how many on tiles of
 * integers instead of rows as they lie. */
enum { BLAS_TOKENS = 8, STRIP_TOKENS = 4 };

/* A block of plain rows and the tokens that share it, so few that their activations stay in the
 * second cache (48 tokens were best of 24, 48 and 96 on 256 to 5632 columns). */
enum { PLAIN_ROWS = 64, PLAIN_TOKENS = 48 };

enum { DECODE_COST = 8 }; /* of one weight, in multiply-adds */

struct job {
    const struct backend *backend;
    const struct linear *products; /* [count], or */
    const struct gated *gates;     /* [count] */
    size_t count;
    enum activation activation;
    bool gate_made; /* in y of the one gate: only up is left */
    bool each;      /* product i multiplies token i alone */
    struct input in;
    const float *x;       /* what is multiplied: in.x or in.h */
    size_t cols;          /* of x */
    size_t n;             /* tokens that a product multiplies */
    struct packed packed; /* x, where the weights are affine */
};

/* count rows of w, which lie evenly, times every token t, to y[t * stride] and on. */
typedef void rows_fn(const struct job *j, float *y, size_t stride, const struct mat *w,
                     size_t count, float *scratch);

static size_t smaller(size_t a, size_t b) {
    return a < b ? a : b;
}

static size_t larger(size_t a, size_t b) {
    return a > b ? a : b;
}

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
                       size_t count, float *scratch) {
    dots_fn *dots = dots_of(j->backend, w);
    (void)scratch;
    size_t block = j->n == 1 ? count : PLAIN_ROWS;
    for (size_t row = 0; row < count; row += block) {
        size_t rows = smaller(count - row, block);
        const unsigned char *weights = w->plane[0] + row * w->stride[0];
        for (size_t t = 0; t < j->n; t += PLAIN_TOKENS) {
            size_t n = smaller(j->n - t, PLAIN_TOKENS);
            dots(y + t * stride + row, stride, j->x + t * w->cols, w->cols, n, weights,
                 w->stride[0], rows, w->cols);
        }
    }
}

/* As many rows at a time as have room where kernels have their scratch, so that they stay in the
 * cache, or one that does not. */
static void decoded_rows(const struct job *j, float *y, size_t stride, const struct mat *w,
                         size_t count, float *scratch) {
    size_t most = larger(KERN_SCRATCH / sizeof(float) / w->cols, 1);
    for (size_t row = 0; row < count; row += most) {
        size_t rows = smaller(count - row, most);
        format_decode(w, row, rows, scratch);
        j->backend->kern.dots_f32(y + row, stride, j->x, w->cols, j->n, scratch,
                                  w->cols * sizeof(float), rows, w->cols);
    }
}

/* count rows of plain weights as aligned f32, one after the other: in place if they are, else
 * decoded into scratch. */
static const float *rows_as_f32(const struct backend *b, const struct mat *w, size_t count,
                                float *scratch) {
    const unsigned char *bytes = w->plane[0];
    if (w->format == &format_f32) {
        bool dense = w->stride[0] == w->row_bytes[0] && (uintptr_t)bytes % sizeof(float) == 0;
        if (dense) return (const float *)(const void *)bytes;
        format_decode(w, 0, count, scratch);
        return scratch;
    }
    for (size_t i = 0; i < count; i++, bytes += w->stride[0]) {
        if (w->format == &format_f16)
            b->kern.load_f16(scratch + i * w->cols, bytes, w->cols);
        else
            b->kern.load_bf16(scratch + i * w->cols, bytes, w->cols);
    }
    return scratch;
}

/* At most BLOCK_ROWS of them. */
static void blas_rows(const struct job *j, float *y, size_t stride, const struct mat *w,
                      size_t count, float *scratch) {
    const float *weights = rows_as_f32(j->backend, w, count, scratch);
    blas_product(y, stride, j->x, j->n, weights, count, w->cols);
}

/* --- affine weights --------------------------------------------------------------------------- */

static void affine_rows(const struct job *j, float *y, size_t stride, const struct mat *w,
                        size_t count, float *scratch) {
    const struct kern *k = &j->backend->kern;
    if (j->n < STRIP_TOKENS) {
        k->affine_rows(y, stride, w, 0, count, &j->packed);
    } else {
        k->affine_strip(y, stride, w, 0, count, &j->packed, scratch);
    }
}

/* All tokens of x. */
static size_t tokens_of(const struct job *j) {
    return j->each ? j->count : j->n;
}

/* Room for x, packed for weights like w. */
static struct packed packed_for(const struct job *j, const struct mat *w) {
    struct packed p = j->backend->packed;
    p.n = tokens_of(j);
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
    size_t cols = j->cols;
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
    j->cols = w->cols;
    if (w->format == &format_affine) j->packed = packed_for(j, w);
    if (makes || j->packed.n)
        backend_split(j->backend, tokens_of(j), 4 * w->cols, prepare_tokens, j);
}

static void observe(const struct job *j, const struct mat *w, size_t token, size_t n, bool again) {
    const struct observer *o = j->backend->observer;
    if (o) o->see(o->arg, w, j->x + token * j->cols, n, again);
}

/* The job as product i sees it, for which token i is the only one. */
static struct job job_of_token(const struct job *j, size_t i) {
    struct job one = *j;
    one.x += i * j->cols;
    if (!j->packed.n) return one;
    size_t groups = i * (j->cols / (size_t)j->packed.group);
    one.packed.n = 1;
    one.packed.codes += i * j->packed.stride;
    one.packed.scales += groups;
    one.packed.shifts += groups;
    one.packed.sums += groups;
    return one;
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

static void add_bias(float *y, size_t stride, const float *bias, size_t count, size_t n) {
    for (size_t t = 0; t < n; t++) {
        for (size_t i = 0; i < count; i++) y[t * stride + i] += bias[i];
    }
}

/* Rows begin .. end - 1 of w, biased, times every token t, to y[t * stride] and on. BLAS gets the
 * same rows in a call whatever the threads; for many tokens the bias is added to a block of rows at
 * a time, which is in the cache. */
static void multiply_rows(const struct job *j, float *y, size_t stride, const struct mat *w,
                          const float *bias, size_t begin, size_t end, float *scratch) {
    rows_fn *multiply = rows_of(j, w);
    bool in_blocks = multiply == blas_rows || (bias && j->n >= STRIP_TOKENS);
    for (size_t row = begin, count; row < end; row += count, y += count) {
        struct mat rows = format_rows(w, row, &count);
        count = smaller(count, end - row);
        if (in_blocks) count = smaller(count, BLOCK_ROWS - row % BLOCK_ROWS);
        multiply(j, y, stride, &rows, count, scratch);
        if (bias) add_bias(y, stride, bias + row, count, j->n);
    }
}

/* Of blocks *begin .. *end - 1, counted over all matrices that are left, those of w as rows *first
 * .. *last - 1; then begin and end count from the next matrix on. */
static bool take_blocks(size_t *begin, size_t *end, const struct mat *w, size_t *first,
                        size_t *last) {
    size_t from = smaller(*begin, blocks_of(w)), to = smaller(*end, blocks_of(w));
    *first = from * BLOCK_ROWS;
    *last = smaller(to * BLOCK_ROWS, w->rows);
    *begin -= from;
    *end -= to;
    return *first < *last;
}

/* A part of the blocks of all products, one product after the other. */
static void multiply_blocks(void *arg, size_t begin, size_t end, int thread) {
    const struct job *j = arg;
    float *scratch = backend_scratch(j->backend, thread);
    for (size_t i = 0, first, last; i < j->count; i++) {
        const struct linear *p = &j->products[i];
        if (!take_blocks(&begin, &end, p->w, &first, &last)) continue;
        struct job one = j->each ? job_of_token(j, i) : *j;
        multiply_rows(&one, p->y + first, p->w->rows, p->w, p->bias, first, last, scratch);
    }
}

/* What a block of rows costs. */
static size_t cost_of(const struct job *j, const struct mat *w) {
    bool decodes = w->format != &format_affine && !dots_of(j->backend, w);
    return BLOCK_ROWS * w->cols * (decodes ? j->n + DECODE_COST : j->n);
}

/* Few tokens take about as long as it takes to read the weights. */
static void split_blocks(struct job *j, size_t blocks, size_t cost, pool_fn *fn) {
    if (j->n < STRIP_TOKENS)
        backend_split_long(j->backend, blocks, cost, fn, j);
    else
        backend_split(j->backend, blocks, cost, fn, j);
}

static void multiply_products(struct job *j) {
    size_t blocks = 0;
    for (size_t i = 0; i < j->count; i++) blocks += blocks_of(j->products[i].w);
    prepare(j, j->products[0].w);
    for (size_t i = 0; i < j->count; i++) {
        observe(j, j->products[i].w, j->each ? i : 0, j->n, i && !j->each);
    }
    split_blocks(j, blocks, cost_of(j, j->products[0].w), multiply_blocks);
}

/* How many of the products are made in one go. */
static size_t count_alike(const struct linear *products, size_t count) {
    size_t alike = 1;
    while (alike < count && packs_alike(products[0].w, products[alike].w)) alike++;
    return alike;
}

void linear(const struct backend *b, const struct linear *products, size_t count, struct input in,
            size_t n) {
    for (size_t done; count; products += done, count -= done) {
        done = count_alike(products, count);
        struct job j = {.backend = b, .products = products, .count = done, .in = in, .n = n};
        multiply_products(&j);
        in = (struct input){.x = j.x}; /* which is made */
    }
}

void linear_each(const struct backend *b, const struct linear *products, size_t count,
                 const float *x) {
    for (size_t done; count; products += done, count -= done) {
        done = count_alike(products, count);
        struct job j = {.backend = b, .products = products, .count = done, .each = true, .n = 1};
        j.in = (struct input){.x = x};
        multiply_products(&j);
        x += done * products->w->cols;
    }
}

/* --- gates ------------------------------------------------------------------------------------ */

/* Blocks of rows of both products, or of the second where the first is there already, then their
 * gate. The second is nobody else's: it waits in the scratch. */
static void multiply_gate(const struct job *j, const struct gated *g, size_t begin, size_t end,
                          float *block) {
    size_t rows = g->up->rows;
    size_t most = j->n < STRIP_TOKENS ? rows : BLOCK_ROWS; /* of few tokens nothing has to stay */
    size_t stride = g->gate ? most : rows;
    float *scratch = block + most * j->n;
    for (size_t row = begin, last; row < end; row = last) {
        float *y = g->y + row, *up = g->gate ? block : y;
        last = smaller(end, row + most);
        if (g->gate && !j->gate_made) {
            multiply_rows(j, y, rows, g->gate, g->gate_bias, row, last, scratch);
        }
        multiply_rows(j, up, stride, g->up, g->up_bias, row, last, scratch);
        for (size_t t = 0; t < j->n; t++) {
            gate_apply(j->backend, j->activation, y + t * rows, g->gate ? up + t * stride : NULL,
                       last - row);
        }
    }
}

/* A part of the blocks of all gates, one gate after the other. */
static void multiply_gates(void *arg, size_t begin, size_t end, int thread) {
    const struct job *j = arg;
    float *scratch = backend_scratch(j->backend, thread);
    for (size_t i = 0, first, last; i < j->count; i++) {
        const struct gated *g = &j->gates[i];
        if (take_blocks(&begin, &end, g->up, &first, &last)) {
            multiply_gate(j, g, first, last, scratch);
        }
    }
}

/* How many of the gates are made in one go: those all of whose matrices x is packed alike for. */
static size_t count_gates(const struct gated *gates, size_t count) {
    size_t alike = 0;
    for (; alike < count; alike++) {
        const struct gated *g = &gates[alike];
        if (!packs_alike(gates->up, g->up)) break;
        if (g->gate && !packs_alike(gates->up, g->gate)) break;
    }
    return alike;
}

void linear_gated(const struct backend *b, const struct gated *gates, size_t count,
                  enum activation a, struct input in, size_t n) {
    for (size_t done; count; gates += done, count -= done) {
        const struct gated *g = gates;
        struct job j = {.backend = b, .gates = gates, .activation = a, .in = in, .n = n};
        j.count = count_gates(gates, count);
        if (!j.count) {
            linear(b, &(struct linear){g->y, g->gate, g->gate_bias}, 1, in, n);
            j.count = 1;
            j.gate_made = true;
            j.in = (struct input){.x = in.norm.kind ? in.h : in.x};
        }
        done = j.count;
        size_t blocks = 0, each = g->gate && !j.gate_made ? 2 : 1;
        for (size_t i = 0; i < done; i++) blocks += blocks_of(gates[i].up);
        prepare(&j, g->up);
        for (size_t i = 0; i < done; i++) {
            if (gates[i].gate && !j.gate_made) observe(&j, gates[i].gate, 0, n, i);
            observe(&j, gates[i].up, 0, n, i || (gates[i].gate && !j.gate_made));
        }
        split_blocks(&j, blocks, each * cost_of(&j, g->up), multiply_gates);
        in = (struct input){.x = j.x};
    }
}

/* --- memory ----------------------------------------------------------------------------------- */

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
