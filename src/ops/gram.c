#include "ops/gram.h"

/* A tile of G, and how long the sums are that are made before they are added to it. */
enum { TILE = 32, TOKENS = 512 };

struct job {
    const struct backend *backend;
    float *g, *columns; /* columns: x transposed, [cols, n] */
    const float *x;
    size_t n, cols;
};

static void transpose(void *arg, size_t begin, size_t end, int thread) {
    const struct job *j = arg;
    (void)thread;
    for (size_t c = begin; c < end; c++) {
        for (size_t t = 0; t < j->n; t++) j->columns[c * j->n + t] = j->x[t * j->cols + c];
    }
}

/* Tile [row, col] of G, by products of columns of x. */
static void add_tile(const struct job *j, size_t row, size_t col) {
    size_t rows = j->cols - row < TILE ? j->cols - row : TILE;
    size_t cols = j->cols - col < TILE ? j->cols - col : TILE;
    float y[TILE * TILE];
    j->backend->kern.dots_f32(y, TILE, j->columns + row * j->n, j->n, rows, j->columns + col * j->n,
                              j->n * sizeof(float), cols, j->n);
    for (size_t r = 0; r < rows; r++) {
        float *g = j->g + (row + r) * j->cols + col;
        for (size_t c = 0; c < cols; c++) g[c] += y[r * TILE + c];
    }
}

static void add_rows(void *arg, size_t begin, size_t end, int thread) {
    const struct job *j = arg;
    (void)thread;
    for (size_t i = begin; i < end; i++) {
        for (size_t k = 0; k <= i; k++) add_tile(j, i * TILE, k * TILE);
    }
}

void gram_add(const struct backend *b, float *g, const float *x, size_t n, size_t cols,
              float *scratch) {
    for (size_t done = 0, count; done < n; done += count) {
        count = n - done < TOKENS ? n - done : TOKENS;
        struct job j = {b, g, scratch, x + done * cols, count, cols};
        backend_split(b, cols, count, transpose, &j);
        backend_split(b, (cols + TILE - 1) / TILE, TILE * cols / 2 * count, add_rows, &j);
    }
}
