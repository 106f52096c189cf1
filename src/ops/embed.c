#include "ops/embed.h"

struct lookup {
    float *x, *h;
    const struct mat *table;
    const int *ids;
    float scale;
    size_t pos;
};

static void embed_tokens(void *arg, size_t begin, size_t end, int thread) {
    const struct lookup *a = arg;
    size_t dim = a->table->cols;
    (void)thread;
    for (size_t t = begin; t < end; t++) {
        float *x = a->x + t * dim;
        format_decode(a->table, (size_t)a->ids[t], 1, x);
        for (size_t i = 0; a->scale != 1 && i < dim; i++) x[i] *= a->scale;
    }
}

void embed(const struct backend *b, float *x, const struct mat *table, float scale, const int *ids,
           size_t n) {
    struct lookup a = {.x = x, .table = table, .ids = ids, .scale = scale};
    backend_split(b, n, 4 * table->cols, embed_tokens, &a);
}

static void add_positions(void *arg, size_t begin, size_t end, int thread) {
    const struct lookup *a = arg;
    size_t dim = a->table->cols;
    (void)thread;
    format_decode(a->table, a->pos + begin, end - begin, a->h + begin * dim);
    for (size_t i = begin * dim; i < end * dim; i++) a->x[i] += a->h[i];
}

void embed_positions(const struct backend *b, float *x, float *h, const struct mat *table, size_t n,
                     size_t pos) {
    struct lookup a = {.x = x, .h = h, .table = table, .pos = pos};
    backend_split(b, n, 5 * table->cols, add_positions, &a);
}
