#include "ops/embed.h"

struct lookup {
    float *x;
    const struct mat *table;
    const int *ids;
};

static void embed_tokens(void *arg, size_t begin, size_t end, int thread) {
    const struct lookup *a = arg;
    (void)thread;
    for (size_t t = begin; t < end; t++) {
        a->table->format->decode(a->table, (size_t)a->ids[t], a->x + t * a->table->cols);
    }
}

void embed(const struct backend *b, float *x, const struct mat *table, const int *ids, size_t n) {
    struct lookup a = {x, table, ids};
    backend_split(b, n, 4 * table->cols, embed_tokens, &a);
}
