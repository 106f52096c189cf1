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

/* A backend with scratch of exactly so many floats. */
struct fixture_backend {
    struct backend b;
    struct arena arena;
};

static inline void fixture_open(struct fixture_backend *f, int threads, const char *level,
                                size_t scratch_floats) {
    struct error e;
    struct arena count = {0};
    if (!backend_open(&f->b, threads, level, &e)) {
        printf("%s\n", e.message);
        exit(1);
    }
    backend_layout(&f->b, &count, scratch_floats);
    if (!arena_open(&f->arena, count.used, &e)) exit(1);
    backend_layout(&f->b, &f->arena, scratch_floats);
}

static inline void fixture_close(struct fixture_backend *f) {
    backend_close(&f->b);
    arena_close(&f->arena);
}

#endif
