/* linear() over a matrix in every way: at each level, for all counts of threads and tokens, against
 * sums in double. */
#ifndef NIBBLE_TESTS_PRODUCTS_H
#define NIBBLE_TESTS_PRODUCTS_H

#include "matrix.h"

static const int thread_counts[] = {1, 2, 3, 4};
static const size_t token_counts[] = {1, 3, 4, 7, 64};
enum { THREADS = 4, COUNTS = 5, MOST_TOKENS = 64 };

static inline void products_one(const struct backend *b, float *y, const struct mat *w,
                                const float *x, size_t n) {
    linear(b, &(struct linear){y, w, NULL}, 1, (struct input){.x = x}, n);
}

static inline void products_compare(const struct matrix *w, const struct backend *b, const float *y,
                                    const double *want, const double *bound, size_t n) {
    size_t wrong = 0, first = 0, rows = w->mat.rows;
    for (size_t i = n * rows; i-- > 0;) {
        if (fabs(y[i] - want[i]) <= bound[i]) continue;
        wrong++;
        first = i;
    }
    CHECK_MSG(!wrong, "%s%d/%d %s %zux%zu, %s%s, %zu tokens: %zu wrong, [%zu, %zu] %g for %g",
              w->name, w->mat.bits, w->mat.group, dtype_name(w->mat.dtype), rows, w->mat.cols,
              b->level, b->blas ? " with BLAS" : "", n, wrong, first / rows, first % rows, y[first],
              want[first]);
    CHECK_MSG(isnan(y[n * rows]), "written beyond the end");
}

/* All token counts, and without BLAS all cuts of them, on one backend. *reference holds the result
 * for as many tokens of another thread count, or NULL. */
static inline void products_on_backend(const struct matrix *w, const struct backend *b,
                                       const float *x, const double *want, const double *bound,
                                       float *reference[COUNTS]) {
    size_t rows = w->mat.rows, cols = w->mat.cols;
    for (int c = 0; c < COUNTS; c++) {
        size_t n = token_counts[c];
        float *y = fixture_nans(n * rows);
        products_one(b, y, &w->mat, x, n);
        products_compare(w, b, y, want, bound, n);
        if (reference[c])
            CHECK_MSG(fixture_same(y, reference[c], n * rows), "%s%d: %zu tokens, other threads",
                      w->name, w->mat.bits, n);
        else
            reference[c] = y;
        if (y != reference[c]) free(y);
    }
    if (b->blas) return;
    float *cut = fixture_nans(MOST_TOKENS * rows);
    for (size_t from = 0, c = 0, n; from < MOST_TOKENS; from += n, c++) {
        n = token_counts[c % 4] < MOST_TOKENS - from ? token_counts[c % 4] : MOST_TOKENS - from;
        products_one(b, cut + from * rows, &w->mat, x + from * cols, n);
    }
    CHECK_MSG(fixture_same(cut, reference[COUNTS - 1], MOST_TOKENS * rows),
              "%s%d/%d, %s: another cut, other bits", w->name, w->mat.bits, w->mat.group, b->level);
    free(cut);
}

/* At every level, with BLAS and without, over all thread counts. */
static inline void products_check(struct matrix w) {
    size_t rows = w.mat.rows, n = MOST_TOKENS;
    float *x = fixture_values(n * w.mat.cols, 1);
    double *want = malloc(n * rows * sizeof *want), *bound = malloc(n * rows * sizeof *bound);
    matrix_multiply(&w, x, n, want, bound);
    const char *name;
    for (int level = 0; (name = fixture_next_level(&level)) != NULL;) {
        for (int blas = 0; blas <= (strcmp(name, "scalar") != 0 && !w.mat.group); blas++) {
            float *reference[COUNTS] = {NULL};
            for (int t = 0; t < THREADS; t++) {
                struct fixture_backend f;
                fixture_open_linear(&f, thread_counts[t], name, w.mat.cols, n);
                f.b.blas = blas;
                products_on_backend(&w, &f.b, x, want, bound, reference);
                fixture_close(&f);
            }
            for (int c = 0; c < COUNTS; c++) free(reference[c]);
        }
    }
    free(x);
    free(want);
    free(bound);
    matrix_drop(&w);
}

#endif
