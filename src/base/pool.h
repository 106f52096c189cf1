/* A fixed set of threads that split loops.
 *
 * pool_split cuts [0, n) into contiguous parts, one a thread, and returns when all are done; the
 * caller works as thread 0. A part has at least `grain` items, so small loops use fewer threads and
 * the smallest wake nobody. Workers spin for some microseconds after a job, then sleep. One caller
 * at a time. */
#ifndef NIBBLE_BASE_POOL_H
#define NIBBLE_BASE_POOL_H

#include <stddef.h>

#include "base/error.h"

enum { POOL_MAX_THREADS = 256 };

struct pool;

typedef void pool_fn(void *arg, size_t begin, size_t end, int thread);

bool pool_open(struct pool **pool, int threads, struct error *e); /* 1 to POOL_MAX_THREADS */
void pool_close(struct pool *pool);                               /* NULL is fine */
int pool_threads(const struct pool *pool);
void pool_split(struct pool *pool, size_t n, size_t grain, pool_fn *fn, void *arg);

#endif
