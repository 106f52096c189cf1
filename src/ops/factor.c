#include "ops/factor.h"

/* Rows that are eliminated together, and columns of them that stay in a cache meanwhile. */
enum { BLOCK = 32, TILE = 512 };

struct job {
    double *h;
    size_t n, first, end; /* the block's rows */
};

static size_t smaller(size_t a, size_t b) {
    return a < b ? a : b;
}

static void subtract(double *y, const double *x, double factor, size_t n) {
    for (size_t i = 0; i < n; i++) y[i] -= factor * x[i];
}

/* Within the block, whose rows reach from column 0 to the diagonal: of row k, which is done but for
 * its division by D, so many times are taken off rows above it. */
static void factor_block(const struct job *j, double least) {
    for (size_t k = j->end; k-- > j->first;) {
        double *row = j->h + k * j->n;
        if (!(row[k] > least)) row[k] = least;
        for (size_t i = j->first; i < k; i++) {
            subtract(j->h + i * j->n, row, row[i] / row[k], i + 1);
        }
        for (size_t c = 0; c < k; c++) row[c] /= row[k];
    }
}

/* Rows above the block: h[i] -= sum over k of D_k L[k][i] L[k], last k first. */
static void update_rows(void *arg, size_t begin, size_t end, int thread) {
    const struct job *j = arg;
    (void)thread;
    for (size_t tile = 0; tile < end; tile += TILE) {
        for (size_t i = begin > tile ? begin : tile; i < end; i++) {
            size_t count = smaller(i + 1 - tile, TILE);
            for (size_t k = j->end; k-- > j->first;) {
                const double *row = j->h + k * j->n;
                subtract(j->h + i * j->n + tile, row + tile, row[i] * row[k], count);
            }
        }
    }
}

void factor_symmetric(struct pool *pool, double *h, size_t n, double least) {
    for (size_t end = n; end;) {
        struct job j = {h, n, end > BLOCK ? end - BLOCK : 0, end};
        factor_block(&j, least);
        pool_split(pool, j.first, 8, update_rows, &j);
        end = j.first;
    }
}
