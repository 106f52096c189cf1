/* Trying an operation at every level with every number of threads. */
#ifndef NIBBLE_TESTS_WORK_H
#define NIBBLE_TESTS_WORK_H

#include "fixture.h"

/* What an operation is tried on: n tokens of dim values. */
struct work {
    const struct backend *b;
    size_t n, dim;
};

/* Calls check on every level and thread count; what it returns (malloc'd floats) must be the same
 * for all threads of a level. */
static inline void work_everywhere(float *(*check)(const struct work *w), size_t n, size_t dim) {
    static const int thread_counts[] = {1, 2, 4};
    const char *name;
    for (int level = 0; (name = fixture_next_level(&level)) != NULL;) {
        float *first = NULL;
        for (int t = 0; t < 3; t++) {
            struct fixture_backend f;
            fixture_open(&f, thread_counts[t], name, 1);
            struct work w = {&f.b, n, dim};
            fixture_random = (struct random){99, 1}; /* the same inputs for all */
            float *out = check(&w);
            CHECK_MSG(isnan(out[n * dim]), "%zux%zu: written beyond the end", n, dim);
            CHECK_MSG(!first || fixture_same(out, first, n * dim), "%zux%zu, %d threads, %s", n,
                      dim, thread_counts[t], name);
            if (!first) first = out;
            if (out != first) free(out);
            fixture_close(&f);
        }
        free(first);
    }
}

#endif
