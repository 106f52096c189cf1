/* A fixed set of threads that split loops.
 *
 * pool_split cuts [0, n) into contiguous chunks of at least `grain` items, which the threads claim
 * one by one, and returns when all are done; the caller works as thread 0, and a loop of one chunk
 * wakes nobody. Which thread runs a chunk is not determined, and a thread may run several. Workers
 * spin for some microseconds after a job, then sleep. One caller at a time.
 *
 * pool_split_long makes fewer and longer chunks, for loops that do little but read memory: each
 * chunk has to find its pace anew. A thread that is slower than the rest then holds up more, so for
 * more than two threads it is pool_split. */
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
void pool_split_long(struct pool *pool, size_t n, size_t grain, pool_fn *fn, void *arg);

#endif
