#include "base/pool.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

/* A wait that spins first: most jobs follow each other within microseconds. Longer than this and
 * the thread sleeps, so that an idle pool costs nothing and a busy machine can run someone else. */
enum { SPINS = 2000 };

struct worker {
    struct pool *pool;
    pthread_t thread;
    int index;
};

struct pool {
    int threads;
    struct worker *workers; /* [threads]; 0 is the caller and has no thread */
    int started;            /* workers whose thread runs */

    /* The job: written by the caller before `job` is advanced, read by workers after. */
    pool_fn *fn; /* NULL: end */
    void *arg;
    size_t n, parts;
    atomic_uint job;    /* advances by one a job */
    atomic_int pending; /* workers still at it */

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

static void run_part(struct pool *p, int index) {
    size_t i = (size_t)index, part = p->n / p->parts, rest = p->n % p->parts;
    if (i >= p->parts) return;
    size_t begin = i * part + (i < rest ? i : rest);
    size_t end = begin + part + (i < rest);
    p->fn(p->arg, begin, end, index);
}

static void await_job(struct pool *p, unsigned seen) {
    for (int i = 0; i < SPINS; i++) {
        if (atomic_load(&p->job) != seen) return;
        spin_pause();
    }
    pthread_mutex_lock(&p->mutex);
    atomic_fetch_add(&p->sleepers,
                     1); /* before the test: the caller looks at it after advancing job */
    while (atomic_load(&p->job) == seen) pthread_cond_wait(&p->wake, &p->mutex);
    atomic_fetch_sub(&p->sleepers, 1);
    pthread_mutex_unlock(&p->mutex);
}

static void await_workers(struct pool *p) {
    for (int i = 0; i < SPINS; i++) {
        if (atomic_load(&p->pending) == 0) return;
        spin_pause();
    }
    pthread_mutex_lock(&p->mutex);
    atomic_store(&p->caller_sleeps, true);
    while (atomic_load(&p->pending) != 0) pthread_cond_wait(&p->done, &p->mutex);
    atomic_store(&p->caller_sleeps, false);
    pthread_mutex_unlock(&p->mutex);
}

static void post_job(struct pool *p, pool_fn *fn, void *arg, size_t n, size_t parts) {
    p->fn = fn;
    p->arg = arg;
    p->n = n;
    p->parts = parts;
    atomic_store(&p->pending, p->started);
    atomic_fetch_add(&p->job, 1);
    if (atomic_load(&p->sleepers) == 0) return;
    pthread_mutex_lock(&p->mutex);
    pthread_cond_broadcast(&p->wake);
    pthread_mutex_unlock(&p->mutex);
}

static void finish_part(struct pool *p) {
    if (atomic_fetch_sub(&p->pending, 1) != 1 || !atomic_load(&p->caller_sleeps)) return;
    pthread_mutex_lock(&p->mutex);
    pthread_cond_signal(&p->done);
    pthread_mutex_unlock(&p->mutex);
}

static void *work(void *arg) {
    struct worker *w = arg;
    struct pool *p = w->pool;
    for (unsigned seen = 0;; seen++) {
        await_job(p, seen);
        if (!p->fn) return NULL;
        run_part(p, w->index);
        finish_part(p);
    }
}

void pool_split(struct pool *p, size_t n, size_t grain, pool_fn *fn, void *arg) {
    size_t parts = n / (grain ? grain : 1), threads = (size_t)p->threads;
    if (parts > threads) parts = threads;
    if (parts <= 1) {
        if (n) fn(arg, 0, n, 0);
        return;
    }
    post_job(p, fn, arg, n, parts);
    run_part(p, 0);
    await_workers(p);
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
    post_job(p, NULL, NULL, 0, 0);
    for (int i = 1; i <= p->started; i++) pthread_join(p->workers[i].thread, NULL);
    pthread_mutex_destroy(&p->mutex);
    pthread_cond_destroy(&p->wake);
    pthread_cond_destroy(&p->done);
    free(p->workers);
    free(p);
}
