#include "ops/linear.h"

#include <stdint.h>

#include "ops/blas.h"

/* Rows of one BLAS call: a constant, so that every thread count makes the same calls. */
enum { BLOCK_ROWS = 64 };

/* From how many tokens on BLAS is faster than a dot kernel a row (measured on 512 to 4096 columns).
 */
enum { BLAS_TOKENS = 8 };

enum { DECODE_COST = 8 }; /* of one weight, in multiply-adds */

struct product {
    const struct backend *backend;
    float *y;
    const struct mat *w;
    const float *x;
    size_t n;
};

typedef float dot_fn(const float *x, const void *w, size_t n);

/* The kernel that reads rows of w as they lie; NULL for formats that are decoded first. */
static dot_fn *dot_of(const struct product *p) {
    const struct kern *k = &p->backend->kern;
    const struct format *f = p->w->format;
    return f == &format_f32    ? k->dot_f32
           : f == &format_f16  ? k->dot_f16
           : f == &format_bf16 ? k->dot_bf16
                               : NULL;
}

/* Row `row` of w as it lies, or decoded into scratch; *dot is the kernel for what is returned. */
static const void *row_for_dot(const struct product *p, size_t row, float *scratch, dot_fn **dot) {
    *dot = dot_of(p);
    if (*dot) return p->w->plane[0] + row * p->w->stride[0];
    *dot = p->backend->kern.dot_f32;
    p->w->format->decode(p->w, row, scratch);
    return scratch;
}

static void multiply_rows(void *arg, size_t begin, size_t end, int thread) {
    const struct product *p = arg;
    float *scratch = backend_scratch(p->backend, thread);
    for (size_t row = begin; row < end; row++) {
        dot_fn *dot;
        const void *w = row_for_dot(p, row, scratch, &dot);
        for (size_t t = 0; t < p->n; t++) {
            p->y[t * p->w->rows + row] = dot(p->x + t * p->w->cols, w, p->w->cols);
        }
    }
}

/* count rows of plain weights as aligned f32: in place if they are, else decoded into scratch. */
static const float *rows_as_f32(const struct product *p, size_t row, size_t count, float *scratch) {
    const struct mat *w = p->w;
    const struct kern *k = &p->backend->kern;
    const unsigned char *bytes = w->plane[0] + row * w->stride[0];
    if (w->format == &format_f32) {
        if ((uintptr_t)bytes % sizeof(float) == 0) return (const float *)(const void *)bytes;
        for (size_t i = 0; i < count; i++) w->format->decode(w, row + i, scratch + i * w->cols);
    } else if (w->format == &format_f16) {
        k->load_f16(scratch, bytes, count * w->cols);
    } else {
        k->load_bf16(scratch, bytes, count * w->cols);
    }
    return scratch;
}

static void multiply_blocks(void *arg, size_t begin, size_t end, int thread) {
    const struct product *p = arg;
    for (size_t block = begin; block < end; block++) {
        size_t row = block * BLOCK_ROWS, rest = p->w->rows - row;
        size_t count = rest < BLOCK_ROWS ? rest : BLOCK_ROWS;
        const float *w = rows_as_f32(p, row, count, backend_scratch(p->backend, thread));
        blas_product(p->y + row, p->w->rows, p->x, p->n, w, count, p->w->cols);
    }
}

void linear(const struct backend *b, float *y, const struct mat *w, const float *x, size_t n) {
    struct product p = {b, y, w, x, n};
    bool plain = dot_of(&p) != NULL;
    if (b->blas && n >= BLAS_TOKENS && plain) {
        size_t blocks = (w->rows + BLOCK_ROWS - 1) / BLOCK_ROWS;
        backend_split(b, blocks, BLOCK_ROWS * w->cols * n, multiply_blocks, &p);
    } else {
        backend_split(b, w->rows, w->cols * (plain ? n : n + DECODE_COST), multiply_rows, &p);
    }
}

size_t linear_scratch(size_t cols) {
    return BLOCK_ROWS * cols;
}
