#include "ops/backend.h"

#include "base/denormals.h"

/* About what one thread multiplies while another is told to begin and reports back. */
enum { WORTH_A_THREAD = 1 << 15 };

bool backend_open(struct backend *b, int threads, const char *level, struct error *e) {
    *b = (struct backend){0};
    if (!kern_select(&b->kern, level, &b->level, e)) return false;
    return pool_open(&b->pool, threads, e);
}

void backend_close(struct backend *b) {
    pool_close(b->pool);
    *b = (struct backend){0};
}

void backend_layout(struct backend *b, struct arena *a, size_t scratch_floats) {
    b->scratch_floats = (scratch_floats + 15) / 16 * 16; /* no cache line belongs to two threads */
    b->scratch = arena_take(a, (size_t)pool_threads(b->pool), b->scratch_floats * sizeof(float));
}

float *backend_scratch(const struct backend *b, int thread) {
    return b->scratch + (size_t)thread * b->scratch_floats;
}

struct job {
    pool_fn *fn;
    void *arg;
};

/* Every chunk flushes, whoever runs it: a result must not depend on that. */
static void run_flushed(void *arg, size_t begin, size_t end, int thread) {
    const struct job *j = arg;
    unsigned long before = denormals_flush();
    j->fn(j->arg, begin, end, thread);
    denormals_restore(before);
}

void backend_split(const struct backend *b, size_t n, size_t cost, pool_fn *fn, void *arg) {
    struct job job = {fn, arg};
    pool_split(b->pool, n, WORTH_A_THREAD / (cost ? cost : 1), run_flushed, &job);
}

void backend_split_long(const struct backend *b, size_t n, size_t cost, pool_fn *fn, void *arg) {
    struct job job = {fn, arg};
    pool_split_long(b->pool, n, WORTH_A_THREAD / (cost ? cost : 1), run_flushed, &job);
}
