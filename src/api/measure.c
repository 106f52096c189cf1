/* include/nibble.h: the peaks of the machine. */
#include <stdlib.h>
#include <string.h>

#include "api/handles.h"
#include "base/clock.h"
#include "base/memory.h"
#include "ops/backend.h"

/* Tries, and how long one lasts at least; the median counts, as it does for what is compared with
 * it. One of reading takes in the whole memory, several times if that is small. */
enum { TRIES = 5, READ_NS = 10000000, COMPUTE_NS = 10000000 };

enum { LEAST_MEMORY = 1 << 20, MOST_MEMORY = 1 << 30, ROUNDS = 1 << 12 };

struct probe;
typedef void loop_fn(const struct probe *p, size_t i);

/* One loop that every thread runs `times` times, over a part of its own. */
struct probe {
    const struct backend *backend;
    unsigned char *memory; /* [threads, part] */
    size_t part, times;
    loop_fn *loop;
};

static void touch(const struct probe *p, size_t i) {
    memset(p->memory + i * p->part, (int)i + 1, p->part);
}

static void read_as_is(const struct probe *p, size_t i) {
    p->backend->kern.peak_read(p->memory + i * p->part, p->part, false);
}

static void read_ahead(const struct probe *p, size_t i) {
    p->backend->kern.peak_read(p->memory + i * p->part, p->part, true);
}

static void multiply_int8(const struct probe *p, size_t i) {
    (void)i;
    p->backend->kern.peak_int8(1, 1, ROUNDS);
}

static void multiply_f32(const struct probe *p, size_t i) {
    (void)i;
    p->backend->kern.peak_f32(1, 1, ROUNDS);
}

static void repeat(void *arg, size_t begin, size_t end, int thread) {
    const struct probe *p = arg;
    (void)thread;
    for (size_t i = begin; i < end; i++) {
        for (size_t k = 0; k < p->times; k++) p->loop(p, i);
    }
}

/* As many parts as threads are as many chunks; one lasts so long that each thread claims one. */
static double run(struct probe *p) {
    uint64_t begin = clock_ns();
    pool_split(p->backend->pool, (size_t)pool_threads(p->backend->pool), 1, repeat, p);
    return (double)(clock_ns() - begin + 1);
}

static int by_size(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* How often a second all threads do one repetition. */
static double median_rate(struct probe *p, loop_fn *loop, double least_ns) {
    double rates[TRIES];
    p->loop = loop;
    p->times = 1;
    for (int i = 0; i < TRIES;) {
        double ns = run(p), missing = least_ns / ns;
        rates[i] = (double)p->times / ns * 1e9;
        if (missing > 1)
            p->times = (size_t)((double)p->times * (missing < 8 ? missing : 8)) + 1;
        else
            i++;
    }
    qsort(rates, TRIES, sizeof *rates, by_size);
    return rates[TRIES / 2];
}

static void measure(const struct backend *b, unsigned char *memory, size_t size,
                    nibble_peaks *out) {
    double threads = pool_threads(b->pool);
    struct probe p = {.backend = b, .memory = memory, .times = 1, .loop = touch};
    p.part = size / (size_t)pool_threads(b->pool) / 64 * 64;
    run(&p);
    double read = threads * (double)p.part;
    double int8 = threads * (double)b->kern.peak_int8(1, 1, ROUNDS);
    double f32 = threads * b->kern.peak_f32(1, 1, ROUNDS);
    double as_is = median_rate(&p, read_as_is, READ_NS);
    double ahead = median_rate(&p, read_ahead, READ_NS);
    out->read_bytes = read * (as_is > ahead ? as_is : ahead);
    out->int8_ops = int8 * median_rate(&p, multiply_int8, COMPUTE_NS);
    out->f32_ops = f32 * median_rate(&p, multiply_f32, COMPUTE_NS);
}

static bool open_memory(struct arena *a, size_t size, struct error *e) {
    size_t available = memory_available();
    if (!available || size <= available) return arena_open(a, size, e);
    return fail(e, STATUS_MEMORY,
                "measuring how fast memory is read takes %zu MB and %zu MB are available; end "
                "other programs or measure with less",
                size >> 20, available >> 20);
}

bool nibble_measure_peaks(size_t memory, int threads, const char *level, nibble_peaks *out,
                          nibble_error *error) {
    struct error e = {0};
    struct backend backend = {0};
    struct arena arena = {0};
    size_t most = memory < MOST_MEMORY ? memory : MOST_MEMORY;
    size_t size = most > LEAST_MEMORY ? most : LEAST_MEMORY;
    bool ok = backend_open(&backend, handles_threads(threads), level, &e) &&
              open_memory(&arena, size, &e);
    if (ok) arena_prefer_huge(&arena, size); /* as models lie in that are read from the disk */
    if (ok) measure(&backend, arena.base, size, out);
    backend_close(&backend);
    arena_close(&arena);
    return handles_report(ok, &e, error);
}
