#include "ops/latent.h"

#include <string.h>

struct job {
    const struct latent *latent;
    float *k;
    const float *own, *shared;
};

static void join_tokens(void *arg, size_t begin, size_t end, int thread) {
    const struct job *j = arg;
    const struct latent *l = j->latent;
    size_t nope = l->nope_dim, turns = l->rope_dim;
    (void)thread;
    for (size_t i = begin * l->heads; i < end * l->heads; i++) {
        float *k = j->k + i * (nope + turns);
        memcpy(k, j->own + i * nope, nope * sizeof *k);
        memcpy(k + nope, j->shared + i / l->heads * turns, turns * sizeof *k);
    }
}

void latent_keys(const struct backend *b, const struct latent *l, float *k, const float *own,
                 const float *shared, size_t n) {
    struct job j = {l, k, own, shared};
    backend_split(b, n, l->heads * (l->nope_dim + l->rope_dim), join_tokens, &j);
}
