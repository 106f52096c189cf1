#include "model/encode.h"

#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "num/affine.h"
#include "num/search.h"

/* Rows that are decoded together: where a matrix is stored by columns they share cache lines. */
enum { STRIP = FEEDBACK_ROWS, SWEEPS = 3 };

struct job {
    const struct encoder *encoder;
    const struct mat *from;
    const struct mat *to;
    unsigned char *const *planes;
    const struct metric *metric;
    atomic_bool damaged; /* a value is not finite */
};

static bool are_finite(const float *x, size_t n) {
    for (size_t i = 0; i < n; i++) {
        if (!isfinite(x[i])) return false;
    }
    return true;
}

/* --- row by row ------------------------------------------------------------------------------- */

static void encode_row(const struct job *j, size_t row, const float *values) {
    const struct mat *to = j->to;
    unsigned char *at[MAT_PLANES];
    for (int p = 0; p < MAT_PLANES; p++) at[p] = j->planes[p] + row * to->stride[p];
    if (to->format == &format_f32)
        memcpy(at[0], values, to->stride[0]);
    else if (j->encoder->search)
        search_encode(values, NULL, to->cols, to->bits, to->group, to->dtype, at[0], at[1], at[2]);
    else
        affine_encode(values, to->cols, to->bits, to->group, to->dtype, at[0], at[1], at[2]);
}

/* --- with feedback ---------------------------------------------------------------------------- */

static void store_rows(const struct job *j, size_t row, size_t count,
                       const struct feedback_rows *rows) {
    const struct mat *to = j->to;
    size_t groups = to->cols / (size_t)to->group;
    for (size_t i = 0; i < count; i++) {
        unsigned char *scales = j->planes[1] + (row + i) * to->stride[1];
        unsigned char *offsets = j->planes[2] + (row + i) * to->stride[2];
        affine_store(rows->q + i * to->cols, to->cols, to->bits,
                     j->planes[0] + (row + i) * to->stride[0]);
        for (size_t g = 0; g < groups; g++) {
            affine_store_value(scales, g, to->dtype, rows->s[i * groups + g]);
            affine_store_value(offsets, g, to->dtype, rows->z[i * groups + g]);
        }
    }
}

static void encode_known(const struct job *j, size_t row, size_t count, const float *values,
                         float *scratch) {
    const struct mat *to = j->to;
    size_t groups = to->cols / (size_t)to->group;
    struct feedback f = {to->cols,        to->bits,          to->group,           to->dtype,
                         j->metric->h,    j->metric->factor, j->metric->diagonal, SWEEPS,
                         j->encoder->sums};
    struct feedback_rows rows;
    rows.s = scratch;
    rows.z = rows.s + STRIP * groups;
    rows.q = (unsigned char *)(rows.z + STRIP * groups);
    scratch = rows.z + STRIP * groups + STRIP * to->cols / sizeof(float);
    feedback_encode(&f, values, count, &rows, scratch);
    store_rows(j, row, count, &rows);
}

static size_t known_floats(size_t cols) {
    enum { LEAST_GROUP = 32 };
    return 2 * STRIP * (cols / LEAST_GROUP + 1) + STRIP * (cols / sizeof(float) + 1) +
           feedback_scratch(cols, LEAST_GROUP) + STRIP;
}

/* --- all of it -------------------------------------------------------------------------------- */

static void encode_strips(void *arg, size_t begin, size_t end, int thread) {
    struct job *j = arg;
    const struct encoder *c = j->encoder;
    float *values = c->scratch + (size_t)thread * c->scratch_floats;
    size_t cols = j->to->cols, rows = j->to->rows;
    bool codes = j->to->format != &format_f32, searches = c->search && codes;
    for (size_t i = begin * STRIP, count; i < rows && i < end * STRIP; i += count) {
        count = rows - i < STRIP ? rows - i : STRIP;
        format_decode(j->from, i, count, values);
        if (codes && !are_finite(values, count * cols)) {
            j->damaged = true;
        } else if (searches && j->metric->h) {
            encode_known(j, i, count, values, values + STRIP * cols);
        } else {
            for (size_t k = 0; k < count; k++) encode_row(j, i + k, values + k * cols);
        }
    }
}

bool encode_open(struct encoder *c, struct pool *pool, size_t widest, bool search,
                 feedback_sums *sums, struct error *e) {
    *c = (struct encoder){.pool = pool, .search = search, .sums = sums};
    c->scratch_floats = STRIP * widest + (search ? known_floats(widest) : 0);
    c->scratch_floats = (c->scratch_floats + 15) / 16 * 16;
    c->scratch = calloc((size_t)pool_threads(pool) * c->scratch_floats, sizeof *c->scratch);
    return c->scratch || fail(e, STATUS_MEMORY, "not enough memory to quantize");
}

void encode_close(struct encoder *c) {
    free(c->scratch);
    *c = (struct encoder){0};
}

void encode_free(struct mat *to) {
    for (int p = 0; p < MAT_PLANES; p++) {
        free((void *)to->plane[p]);
        to->plane[p] = NULL;
    }
}

bool encode_matrix(const struct encoder *c, struct mat *to, const struct mat *from,
                   const struct metric *metric, struct error *e) {
    unsigned char *planes[MAT_PLANES];
    struct job j = {c, from, to, planes, metric, false};
    bool ok = true;
    for (int p = 0; p < MAT_PLANES; p++) {
        to->plane[p] = planes[p] = malloc(to->rows * to->stride[p] + 1);
        ok &= planes[p] != NULL;
    }
    if (ok) {
        pool_split(c->pool, (to->rows + STRIP - 1) / STRIP, 1, encode_strips, &j);
        if (!j.damaged) return true;
        fail(e, STATUS_NUMERIC,
             "a matrix holds values that are NaN or infinite, for which there "
             "are no codes; nibble verify names it");
    } else {
        fail(e, STATUS_MEMORY, "not enough memory for a matrix of %zu MB", format_bytes(to) >> 20);
    }
    encode_free(to);
    return false;
}
