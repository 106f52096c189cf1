#include "base/pool.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>

/* A wait that spins first: most jobs follow each other within microseconds. Longer than this and
 * the thread sleeps, so that an idle pool costs nothing and a busy machine can run someone else. */
enum { SPINS = 2000 };

/* Guided self-scheduling (Polychronopoulos and Kuck, 1987): a part of a loop is shared out, then
 * the same part of what is left, and so on: most of it in long chunks, while who is late at the end
 * is late by a short one. HALVES leaves half each time, EIGHTHS an eighth, or a quarter or half
 * where that would not be a chunk for each. More than FEW threads are seldom equally fast: some
 * share a core, others run on small ones. */
enum { MOST_ROUNDS = 5, HALVES = 1, EIGHTHS = 3, FEW = 2 };

struct worker {
    struct pool *pool;
    pthread_t thread;
    int index;
};

/* A job is cut into chunks, which threads claim one by one: a thread that is late, or that another
 * process keeps from its core, leaves its share to the rest. `tickets` holds the job's number in
 * its upper half and the chunks not yet claimed in its lower. What describes the job is read only
 * by who has claimed a chunk of it, and until that chunk is finished the caller does not overwrite
 * it. */
struct pool {
    int threads;
    struct worker *workers; /* [threads]; 0 is the caller and has no thread */
    int started;            /* workers whose thread runs */

    pool_fn *fn;
    void *arg;
    size_t n;
    uint32_t parts, rounds; /* chunks of a round, and how many there are of these */
    uint32_t leaves;        /* HALVES or EIGHTHS */
    atomic_uint_fast64_t tickets;
    atomic_uint unfinished; /* chunks claimed or not that are not done */
    atomic_bool closing;

    pthread_mutex_t mutex;
    pthread_cond_t wake, done;
    atomic_int sleepers; /* workers asleep, or about to be */
    atomic_bool caller_sleeps;
};

static void spin_pause(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static uint32_t job_of(uint64_t tickets) {
    return (uint32_t)(tickets >> 32);
}

static uint32_t unclaimed(uint64_t tickets) {
    return (uint32_t)tickets;
}

static void run_chunk(struct pool *p, size_t i, int thread) {
    size_t round = i / p->parts, part = i % p->parts;
    size_t left = p->n >> round * p->leaves;
    size_t after = round + 1 < p->rounds ? left >> p->leaves : 0;
    size_t each = (left - after) / p->parts, rest = (left - after) % p->parts;
    size_t begin = p->n - left + part * each + (part < rest ? part : rest);
    p->fn(p->arg, begin, begin + each + (part < rest), thread);
}

static void finish_chunk(struct pool *p) {
    if (atomic_fetch_sub(&p->unfinished, 1) != 1 || !atomic_load(&p->caller_sleeps)) return;
    pthread_mutex_lock(&p->mutex);
    pthread_cond_signal(&p->done);
    pthread_mutex_unlock(&p->mutex);
}

/* Claims and runs chunks while there are any; returns the number of the job they were of. */
static uint32_t run_chunks(struct pool *p, int thread) {
    uint64_t tickets = atomic_load(&p->tickets);
    while (unclaimed(tickets)) {
        if (!atomic_compare_exchange_weak(&p->tickets, &tickets, tickets - 1)) continue;
        run_chunk(p, p->parts * p->rounds - unclaimed(tickets), thread);
        finish_chunk(p);
        tickets = atomic_load(&p->tickets);
    }
    return job_of(tickets);
}

static bool has_news(struct pool *p, uint32_t seen) {
    return job_of(atomic_load(&p->tickets)) != seen || atomic_load(&p->closing);
}

static void await_job(struct pool *p, uint32_t seen) {
    for (int i = 0; i < SPINS; i++) {
        if (has_news(p, seen)) return;
        spin_pause();
    }
    pthread_mutex_lock(&p->mutex);
    atomic_fetch_add(&p->sleepers, 1); /* before the test: who posts a job looks at it after */
    while (!has_news(p, seen)) pthread_cond_wait(&p->wake, &p->mutex);
    atomic_fetch_sub(&p->sleepers, 1);
    pthread_mutex_unlock(&p->mutex);
}

static void await_chunks(struct pool *p) {
    for (int i = 0; i < SPINS; i++) {
        if (atomic_load(&p->unfinished) == 0) return;
        spin_pause();
    }
    pthread_mutex_lock(&p->mutex);
    atomic_store(&p->caller_sleeps, true);
    while (atomic_load(&p->unfinished) != 0) pthread_cond_wait(&p->done, &p->mutex);
    atomic_store(&p->caller_sleeps, false);
    pthread_mutex_unlock(&p->mutex);
}

static void wake_sleepers(struct pool *p) {
    if (atomic_load(&p->sleepers) == 0) return;
    pthread_mutex_lock(&p->mutex);
    pthread_cond_broadcast(&p->wake);
    pthread_mutex_unlock(&p->mutex);
}

static void *work(void *arg) {
    struct worker *w = arg;
    while (!atomic_load(&w->pool->closing)) await_job(w->pool, run_chunks(w->pool, w->index));
    return NULL;
}

static void split(struct pool *p, size_t n, size_t grain, uint32_t leaves, pool_fn *fn, void *arg) {
    if (!grain) grain = 1;
    size_t parts = n / grain, rounds = 1;
    if (parts > (size_t)p->threads) parts = (size_t)p->threads;
    if (parts <= 1) {
        if (n) fn(arg, 0, n, 0);
        return;
    }
    while (leaves > HALVES && (n >> leaves) / parts < grain) leaves--;
    while (rounds < MOST_ROUNDS && (n >> rounds * leaves) / parts >= grain) rounds++;
    uint32_t chunks = (uint32_t)(parts * rounds);
    p->fn = fn;
    p->arg = arg;
    p->n = n;
    p->parts = (uint32_t)parts;
    p->rounds = (uint32_t)rounds;
    p->leaves = leaves;
    atomic_store(&p->unfinished, chunks);
    uint64_t job = job_of(atomic_load(&p->tickets)) + 1u;
    atomic_store(&p->tickets, job << 32 | chunks);
    wake_sleepers(p);
    run_chunks(p, 0);
    await_chunks(p);
}

void pool_split(struct pool *p, size_t n, size_t grain, pool_fn *fn, void *arg) {
    split(p, n, grain, HALVES, fn, arg);
}

void pool_split_long(struct pool *p, size_t n, size_t grain, pool_fn *fn, void *arg) {
    split(p, n, grain, p->threads > FEW ? HALVES : EIGHTHS, fn, arg);
}

int pool_threads(const struct pool *p) {
    return p->threads;
}

bool pool_open(struct pool **out, int threads, struct error *e) {
    *out = NULL;
    if (threads < 1 || threads > POOL_MAX_THREADS) {
        return fail(e, STATUS_ARGUMENT, "%d threads: the count must be 1 to %d", threads,
                    POOL_MAX_THREADS);
    }
    struct pool *p = calloc(1, sizeof *p);
    struct worker *workers = calloc((size_t)threads, sizeof *workers);
    if (!p || !workers) {
        free(p);
        free(workers);
        return fail(e, STATUS_MEMORY, "not enough memory for %d threads", threads);
    }
    p->threads = threads;
    p->workers = workers;
    pthread_mutex_init(&p->mutex, NULL);
    pthread_cond_init(&p->wake, NULL);
    pthread_cond_init(&p->done, NULL);
    for (int i = 1; i < threads; i++) {
        workers[i] = (struct worker){.pool = p, .index = i};
        if (pthread_create(&workers[i].thread, NULL, work, &workers[i]) != 0) {
            pool_close(p);
            return fail(e, STATUS_MEMORY, "thread %d of %d cannot be started; ask for fewer", i + 1,
                        threads);
        }
        p->started++;
    }
    *out = p;
    return true;
}

void pool_close(struct pool *p) {
    if (!p) return;
    atomic_store(&p->closing, true);
    wake_sleepers(p);
    for (int i = 1; i <= p->started; i++) pthread_join(p->workers[i].thread, NULL);
    pthread_mutex_destroy(&p->mutex);
    pthread_cond_destroy(&p->wake);
    pthread_cond_destroy(&p->done);
    free(p->workers);
    free(p);
}
