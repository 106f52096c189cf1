/* Matrices that are parts of larger tensors, in blocks of rows or every so many rows, and those
 * that are stored the other way around: what decoding, products, the embedding and quantizing make
 * of them is what the rows stand for. */
#include "model/quantize.h"
#include "ops/blas.h"
#include "ops/embed.h"
#include "products.h"
#include "tiny.h"

/* --- rows ------------------------------------------------------------------------------------- */

/* Decoding gives the values, from any row on, in one go and one by one. */
static void check_decoded(const struct matrix *w) {
    size_t rows = w->mat.rows, cols = w->mat.cols, wrong = 0;
    float *all = fixture_nans(rows * cols), *some = fixture_nans(rows * cols);
    format_decode(&w->mat, 0, rows, all);
    for (size_t i = 0; i < rows * cols; i++) {
        wrong += !(fabs(all[i] - w->value[i]) <= 0x1p-23 * w->magnitude[i]);
    }
    CHECK_MSG(!wrong && isnan(all[rows * cols]), "%s%d: %zu of %zux%zu wrong", w->name, w->mat.bits,
              wrong, rows, cols);
    for (size_t from = 0, n = 1; from < rows; from += n, n = n * 3 % 7 + 1) {
        n = n < rows - from ? n : rows - from;
        format_decode(&w->mat, from, n, some + from * cols);
    }
    CHECK_MSG(fixture_same(all, some, rows * cols) && isnan(some[rows * cols]),
              "%s%d, %zux%zu: other rows in parts", w->name, w->mat.bits, rows, cols);
    free(all);
    free(some);
}

/* The parts that format_rows gives are all rows, each where the formula says. */
static void check_rows(const struct mat *m) {
    for (size_t row = 0, n; row < m->rows; row++) {
        struct mat part = format_rows(m, row, &n);
        size_t block = m->block ? m->block : m->rows, end = (row / block + 1) * block;
        CHECK(n == (end < m->rows ? end : m->rows) - row && part.rows == n && !part.block);
        for (int p = 0; p < MAT_PLANES; p++) {
            const unsigned char *at = m->plane[p];
            if (at) at += row / block * m->block_stride[p] + row % block * m->stride[p];
            CHECK_MSG(part.plane[p] == at && part.stride[p] == m->stride[p], "row %zu", row);
        }
    }
}

static void check_embedded(const struct matrix *w) {
    enum { N = 50 };
    int ids[N];
    struct fixture_backend f;
    float *x = fixture_nans(N * w->mat.cols);
    size_t wrong = 0;
    for (int i = 0; i < N; i++) ids[i] = i ? (int)fixture_below(w->mat.rows) : (int)w->mat.rows - 1;
    fixture_open(&f, 2, NULL, 1);
    embed(&f.b, x, &w->mat, 1, ids, N);
    for (size_t i = 0; i < N * w->mat.cols; i++) {
        size_t at = (size_t)ids[i / w->mat.cols] * w->mat.cols + i % w->mat.cols;
        wrong += !(fabs(x[i] - w->value[at]) <= 0x1p-23 * w->magnitude[at]);
    }
    CHECK_MSG(!wrong, "%s%d: %zu embedded values are wrong", w->name, w->mat.bits, wrong);
    fixture_close(&f);
    free(x);
}

static void check_all(struct matrix w) {
    check_rows(&w.mat);
    check_decoded(&w);
    check_embedded(&w);
    products_check(w);
}

/* --- views ------------------------------------------------------------------------------------ */

/* Heads whose queries, keys and values follow each other; single rows that alternate; a range. */
static void check_views(struct matrix w) {
    static const struct {
        size_t first, block, apart;
    } views[] = {{0, 24, 72},   {24, 24, 72}, {48, 24, 72}, {0, 64, 72}, {64, 4, 72}, {68, 4, 72},
                 {0, 130, 144}, {1, 1, 2},    {0, 0, 2},    {1, 0, 2},   {7, 0, 5},   {9, 0, 1}};
    for (size_t i = 0; i < sizeof views / sizeof *views; i++) {
        struct matrix v = matrix_view(&w, views[i].first, views[i].block, views[i].apart);
        CHECK_MSG(format_bytes(&v.mat) == v.mat.rows * format_row_bytes(&w.mat), "view %zu", i);
        check_all(v);
    }
    matrix_drop(&w);
}

static void test_views_of_plain(void) {
    check_views(matrix_plain(DTYPE_F32, 288, 100, 1));
    check_views(matrix_plain(DTYPE_F32, 288, 100, 0));
    check_views(matrix_plain(DTYPE_F16, 288, 101, 1));
    check_views(matrix_plain(DTYPE_BF16, 288, 96, 0));
}

static void test_views_of_codes(void) {
    static const int widths[] = {2, 3, 4, 5, 6, 8};
    for (int b = 0; b < 6; b++) {
        enum dtype dtype = b % 3 == 0 ? DTYPE_F16 : b % 3 == 1 ? DTYPE_BF16 : DTYPE_F32;
        check_views(matrix_affine(widths[b], b % 2 ? 32 : 64, dtype, 288, 192));
    }
}

/* The last row of every other ends where memory does: loads of codes must not reach beyond it. */
static void test_last_row(void) {
    static const int widths[] = {2, 3, 4, 5, 6, 8};
    const char *name;
    for (int b = 0; b < 6; b++) {
        struct matrix w = matrix_affine(widths[b], 32, DTYPE_F16, 65, 96);
        struct matrix v = matrix_view(&w, 0, 0, 2);
        size_t used = 64 * w.mat.stride[0] + w.mat.row_bytes[0];
        unsigned char *codes = malloc(used);
        memcpy(codes, w.mat.plane[0], used);
        v.mat.plane[0] = codes;
        float *x = fixture_values(9 * 96, 1), *y = fixture_nans(9 * 33);
        for (int level = 0; (name = fixture_next_level(&level)) != NULL;) {
            struct fixture_backend f;
            fixture_open_linear(&f, 1, name, 96, 9);
            products_one(&f.b, y, &v.mat, x, 9);
            products_one(&f.b, y, &v.mat, x, 1);
            fixture_close(&f);
        }
        CHECK(isnan(y[9 * 33]));
        free(x);
        free(y);
        free(codes);
        matrix_drop(&v);
        matrix_drop(&w);
    }
}

/* --- transposed ------------------------------------------------------------------------------- */

static void check_transposed(enum dtype dtype) {
    static const size_t shapes[][3] = {{133, 256, 133}, {517, 160, 520}, {1, 3, 1},
                                       {64, 1, 70},     {129, 37, 200},  {3, 24600, 3}};
    for (int i = 0; i < 6; i++) {
        struct matrix w = matrix_transposed(dtype, shapes[i][0], shapes[i][1], shapes[i][2]);
        CHECK(format_bytes(&w.mat) == w.mat.rows * w.mat.cols * dtype_bytes(dtype));
        if (shapes[i][0] > 100) {
            check_all(matrix_view(&w, 0, 0, 2)); /* every other column: gate and up */
            check_all(matrix_view(&w, 1, 0, 2));
            check_all(matrix_view(&w, 40, 20, 60));
        }
        check_all(w);
    }
}

static void test_transposed(void) {
    check_transposed(DTYPE_F32);
    check_transposed(DTYPE_F16);
    check_transposed(DTYPE_BF16);
}

/* --- quantizing ------------------------------------------------------------------------------- */

/* The same values of 2 bytes by columns; malloc'd. */
static unsigned char *by_columns(const struct mat *m) {
    unsigned char *data = malloc(m->rows * m->row_bytes[0]);
    for (size_t i = 0; i < m->rows * m->cols; i++) {
        memcpy(data + 2 * (i % m->cols * m->rows + i / m->cols), m->plane[0] + 2 * i, 2);
    }
    return data;
}

/* The same rows in blocks of 5 with a row between them; malloc'd. */
static unsigned char *in_blocks(const struct mat *m) {
    size_t bytes = m->row_bytes[0];
    unsigned char *data = calloc(m->rows * 2, bytes);
    for (size_t r = 0; r < m->rows; r++) {
        memcpy(data + (r / 5 * 6 + r % 5) * bytes, m->plane[0] + r * bytes, bytes);
    }
    return data;
}

static bool same_planes(const struct mat *a, const struct mat *b) {
    bool same = a->group && a->bits == b->bits && a->rows == b->rows && a->cols == b->cols;
    for (int p = 0; same && p < MAT_PLANES; p++) {
        same = memcmp(a->plane[p], b->plane[p], a->rows * a->row_bytes[p]) == 0;
    }
    return same;
}

/* A model whose matrices lie in other ways becomes the same file. */
static void test_quantize(void) {
    struct tiny t = tiny_default;
    struct quantize_options o = {.bits = 4, .group = 32, .threads = 3};
    struct quantize_report report;
    struct model m, dense, other;
    struct error e;
    t.dtype = DTYPE_F16;
    tiny_open(&m, &t, "source.npz", 5);
    CHECK(quantize(&m, scratch_path("dense.npz"), &o, &report, &e));
    struct layer *l = &m.weights.layers[1];
    unsigned char *columns = by_columns(&l->up), *blocks = in_blocks(&l->wq);
    l->up = transposed_mat(l->up.dtype, l->up.rows, l->up.cols, l->up.rows, columns);
    l->wq.plane[0] = blocks;
    l->wq.block = 5;
    l->wq.block_stride[0] = 6 * l->wq.stride[0];
    CHECK(quantize(&m, scratch_path("other.npz"), &o, &report, &e));
    if (model_open(&dense, scratch_path("dense.npz"), &e) &&
        model_open(&other, scratch_path("other.npz"), &e)) {
        const struct layer *a = &dense.weights.layers[1], *b = &other.weights.layers[1];
        CHECK(same_planes(&a->up, &b->up));
        CHECK(same_planes(&a->wq, &b->wq));
        CHECK(same_planes(&a->down, &b->down) && !same_planes(&a->up, &b->gate));
        model_close(&dense);
        model_close(&other);
    } else {
        CHECK_MSG(false, "%s", e.message);
    }
    model_close(&m);
    free(columns);
    free(blocks);
}

int main(void) {
    scratch_open();
    blas_init();
    check_run("views of plain weights", test_views_of_plain);
    check_run("views of codes", test_views_of_codes);
    check_run("the last row of a view", test_last_row);
    check_run("transposed", test_transposed);
    check_run("quantizing", test_quantize);
    return check_done();
}
