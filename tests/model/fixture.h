/* Random numbers and backends for the tests of src/ops and src/model. */
#ifndef NIBBLE_TESTS_FIXTURE_H
#define NIBBLE_TESTS_FIXTURE_H

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "gen/random.h"
#include "ops/backend.h"
#include "ops/linear.h"

static struct random fixture_random = {1, 1};

/* From -1 to 1. */
static inline float fixture_value(void) {
    return (float)(2 * random_unit(&fixture_random) - 1);
}

static inline size_t fixture_below(size_t n) {
    return (size_t)(random_unit(&fixture_random) * (double)n);
}

/* n values from -scale to scale; malloc'd. */
static inline float *fixture_values(size_t n, float scale) {
    float *x = malloc((n + 1) * sizeof *x);
    for (size_t i = 0; i < n; i++) x[i] = scale * fixture_value();
    return x;
}

/* n NaNs, then one more that nobody may write; malloc'd. */
static inline float *fixture_nans(size_t n) {
    float *x = malloc((n + 1) * sizeof *x);
    for (size_t i = 0; i <= n; i++) x[i] = NAN;
    return x;
}

static inline bool fixture_same(const float *a, const float *b, size_t n) {
    return memcmp(a, b, n * sizeof *a) == 0;
}

/* The names of the levels that this CPU runs, one each call; NULL after the last. *level begins
 * at 0. */
static inline const char *fixture_next_level(int *level) {
    while (*level < KERN_LEVELS) {
        enum kern_level next = (enum kern_level)(*level)++;
        if (kern_level_available(next)) return kern_level_name(next);
    }
    return NULL;
}

struct fixture_backend {
    struct backend b;
    struct arena arena;
};

static inline void fixture_lay_out(struct backend *b, struct arena *a, size_t scratch_floats,
                                   size_t cols, size_t n) {
    backend_layout(b, a, scratch_floats);
    if (n) linear_layout(b, a, cols, n);
}

static inline void fixture_open_both(struct fixture_backend *f, int threads, const char *level,
                                     size_t scratch_floats, size_t cols, size_t n) {
    struct error e;
    struct arena count = {0};
    if (!backend_open(&f->b, threads, level, &e)) {
        printf("%s\n", e.message);
        exit(1);
    }
    fixture_lay_out(&f->b, &count, scratch_floats, cols, n);
    if (!arena_open(&f->arena, count.used, &e)) exit(1);
    fixture_lay_out(&f->b, &f->arena, scratch_floats, cols, n);
}

/* A backend with scratch of exactly so many floats. */
static inline void fixture_open(struct fixture_backend *f, int threads, const char *level,
                                size_t scratch_floats) {
    fixture_open_both(f, threads, level, scratch_floats, 0, 0);
}

/* One with what linear() needs for matrices of so many columns and batches of n tokens. */
static inline void fixture_open_linear(struct fixture_backend *f, int threads, const char *level,
                                       size_t cols, size_t n) {
    fixture_open_both(f, threads, level, linear_scratch(cols, cols, n, true), cols, n);
}

static inline void fixture_close(struct fixture_backend *f) {
    backend_close(&f->b);
    arena_close(&f->arena);
}

#endif
