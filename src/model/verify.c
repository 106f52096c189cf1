#include "model/verify.h"

#include "base/pool.h"
#include "num/half.h"

/* Rows that are decoded together: where a matrix is stored by columns they share cache lines. */
enum { STRIP = 16 };

/* What a thread has found in one tensor. */
struct found {
    size_t count, first; /* values, and the first row that holds one */
};

struct walk {
    struct pool *pool;
    const struct weights_tensor *tensor;
    struct found *found; /* [threads] */
    float *rows;         /* [threads, STRIP, widest] */
    size_t widest;       /* columns of the widest matrix */
    size_t done, total;  /* values */
    size_t bad;          /* tensors */
    bool stopped;
    bool (*go_on)(void *arg, size_t done, size_t total);
    void *arg;
    const char *path;
    struct error *e;
};

static void note_row(struct found *f, size_t row, const float *x, size_t n) {
    size_t count = 0;
    for (size_t i = 0; i < n; i++) count += (half_to_bits(x[i]) & 0x7f800000) == 0x7f800000;
    if (count && (!f->count || row < f->first)) f->first = row;
    f->count += count;
}

static void check_rows(void *arg, size_t begin, size_t end, int thread) {
    struct walk *w = arg;
    const struct mat *m = w->tensor->mat;
    float *rows = w->rows + (size_t)thread * STRIP * w->widest;
    for (size_t i = begin, count; i < end; i += count) {
        count = end - i < STRIP ? end - i : STRIP;
        format_decode(m, i, count, rows);
        for (size_t k = 0; k < count; k++)
            note_row(&w->found[thread], i + k, rows + k * m->cols, m->cols);
    }
}

static struct found merge(struct walk *w) {
    struct found all = {0};
    for (int i = 0; i < pool_threads(w->pool); i++) {
        struct found *f = &w->found[i];
        if (f->count && (!all.count || f->first < all.first)) all.first = f->first;
        all.count += f->count;
        *f = (struct found){0};
    }
    return all;
}

static void report(struct walk *w, const struct found *f) {
    const struct weights_tensor *t = w->tensor;
    if (w->bad++ == 0) {
        fail(w->e, STATUS_MODEL,
             "%s: tensors hold values that are NaN or infinite; convert the model again, or fetch "
             "it again:",
             w->path);
    }
    if (t->mat)
        error_item(w->e, "%s: %zu of %zu values, the first in row %zu", t->name, f->count,
                   t->rows * t->cols, f->first);
    else
        error_item(w->e, "%s: %zu of %zu values", t->name, f->count, t->rows * t->cols);
}

static void check_tensor(void *arg, const struct weights_tensor *t) {
    struct walk *w = arg;
    if (w->stopped) return;
    w->tensor = t;
    if (t->mat)
        pool_split(w->pool, t->rows, 1, check_rows, w);
    else
        note_row(&w->found[0], 0, t->vec, t->rows * t->cols);
    struct found found = merge(w);
    if (found.count) report(w, &found);
    w->done += t->rows * t->cols;
    w->stopped = w->go_on && !w->go_on(w->arg, w->done, w->total);
}

static void measure(void *arg, const struct weights_tensor *t) {
    struct walk *w = arg;
    w->total += t->rows * t->cols;
    if (t->mat && t->cols > w->widest) w->widest = t->cols;
}

static void layout(struct walk *w, struct arena *a, size_t threads) {
    w->found = arena_take(a, threads, sizeof *w->found);
    w->rows = arena_take(a, threads * STRIP * w->widest, sizeof *w->rows);
}

bool verify_numbers(const struct model *m, int threads,
                    bool (*go_on)(void *arg, size_t done, size_t total), void *arg,
                    struct error *e) {
    struct walk w = {.go_on = go_on, .arg = arg, .path = m->store.path, .e = e};
    struct arena count = {0}, arena = {0};
    weights_each(&m->weights, &m->spec, &m->store, measure, &w);
    layout(&w, &count, (size_t)threads);
    TRY(arena_open(&arena, count.used, e));
    layout(&w, &arena, (size_t)threads);
    TRY(pool_open(&w.pool, threads, e));
    weights_each(&m->weights, &m->spec, &m->store, check_tensor, &w);
    pool_close(w.pool);
    arena_close(&arena);
    if (w.bad) error_items_end(e);
    if (w.stopped) return fail(e, STATUS_INTERRUPTED, "interrupted while %s was read", w.path);
    return w.bad == 0;
fail:
    arena_close(&arena);
    return false;
}
