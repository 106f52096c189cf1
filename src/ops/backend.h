/* What an operation runs on: threads, the kernels of a level, scratch memory for each thread.
 * Every file of src/ops states its equation over n tokens and splits the work over the threads
 * so that the result does not depend on how many there are. Operations cannot fail. */
#ifndef NIBBLE_OPS_BACKEND_H
#define NIBBLE_OPS_BACKEND_H

#include "base/arena.h"
#include "base/pool.h"
#include "kern/kern.h"

/* Who wants to know what matrices are multiplied with. Told before each product of w with n tokens
 * x [n, w->cols]; again: it is the input of the product before. */
struct observer {
    void (*see)(void *arg, const struct mat *w, const float *x, size_t n, bool again);
    void *arg;
};

struct backend {
    struct pool *pool;
    struct kern kern;
    const char *level;     /* the name of the best level in kern */
    bool blas;             /* products of plain weights with many tokens go through BLAS: the owner
                            * may ask for it, false after backend_open */
    float *scratch;        /* [threads, scratch_floats] */
    size_t scratch_floats; /* what the hungriest operation needs */
    const struct observer *observer; /* NULL: nobody */
    struct packed packed;            /* room for the activations of one product, see ops/linear.h */
};

/* threads and level as in pool_open and kern_select. */
bool backend_open(struct backend *b, int threads, const char *level, struct error *e);
void backend_close(struct backend *b);

/* Takes the scratch from the arena of whoever owns the backend. */
void backend_layout(struct backend *b, struct arena *a, size_t scratch_floats);

/* pool_split, or pool_split_long, over n items of `cost` multiply-adds each (or what takes as
 * long): threads are woken only for work that outweighs it. Never changes a result. fn runs with
 * denormal numbers flushed to zero (base/denormals.h). */
void backend_split(const struct backend *b, size_t n, size_t cost, pool_fn *fn, void *arg);
void backend_split_long(const struct backend *b, size_t n, size_t cost, pool_fn *fn, void *arg);

float *backend_scratch(const struct backend *b, int thread);

#endif
