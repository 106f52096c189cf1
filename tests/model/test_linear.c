/* linear() and embed(): every format, width and group against sums in double over weights that are
 * unpacked here, bit by bit, and the same bits whatever the threads and, for codes, the batch. */
#include "fixture.h"
#include "num/affine.h"
#include "ops/blas.h"
#include "ops/embed.h"
#include "ops/linear.h"

static const int thread_counts[] = {1, 2, 4};
static const size_t token_counts[] = {1, 3, 4, 7, 64};
enum { THREADS = 3, COUNTS = 5, MOST_TOKENS = 64 };

/* A matrix at an odd address, and what it stands for. */
struct weights {
    struct mat mat;
    unsigned char *memory;
    double *value;     /* [rows, cols] */
    double *magnitude; /* |s q| + |z|, or |value|: what rounding is relative to */
    const char *name;
};

/* --- making weights --------------------------------------------------------------------------- */

/* 16 random bits that are a number of moderate size, at p. */
static double put_f16(unsigned char *p) {
    unsigned sign = (unsigned)fixture_below(2), exponent = 8 + (unsigned)fixture_below(7);
    unsigned fraction = (unsigned)fixture_below(1024);
    unsigned bits = sign << 15 | exponent << 10 | fraction;
    p[0] = (unsigned char)bits;
    p[1] = (unsigned char)(bits >> 8);
    return (sign ? -1 : 1) * ldexp(1 + fraction / 1024.0, (int)exponent - 15);
}

static double put_bf16(unsigned char *p) {
    unsigned sign = (unsigned)fixture_below(2), exponent = 120 + (unsigned)fixture_below(7);
    unsigned fraction = (unsigned)fixture_below(128);
    unsigned bits = sign << 15 | exponent << 7 | fraction;
    p[0] = (unsigned char)bits;
    p[1] = (unsigned char)(bits >> 8);
    return (sign ? -1 : 1) * ldexp(1 + fraction / 128.0, (int)exponent - 127);
}

static double put(unsigned char *p, size_t i, enum dtype dtype) {
    if (dtype == DTYPE_F16) return put_f16(p + 2 * i);
    if (dtype == DTYPE_BF16) return put_bf16(p + 2 * i);
    float f = fixture_value();
    memcpy(p + 4 * i, &f, sizeof f);
    return f;
}

static void allocate(struct weights *w, size_t rows, size_t cols, size_t bytes, size_t skip) {
    w->memory = malloc(bytes + skip);
    w->value = malloc(rows * cols * sizeof *w->value);
    w->magnitude = malloc(rows * cols * sizeof *w->magnitude);
}

static struct weights make_plain(enum dtype dtype, size_t rows, size_t cols, size_t skip) {
    struct weights w = {.name = dtype_name(dtype)};
    allocate(&w, rows, cols, rows * cols * dtype_bytes(dtype), skip);
    for (size_t i = 0; i < rows * cols; i++) {
        w.value[i] = put(w.memory + skip, i, dtype);
        w.magnitude[i] = fabs(w.value[i]);
    }
    w.mat = format_plain(dtype, rows, cols, w.memory + skip);
    return w;
}

/* Code k of a row: the bits from k * bits on, least significant first. */
static unsigned code_at(const unsigned char *row, size_t k, int bits) {
    unsigned code = 0;
    for (size_t i = 0; i < (size_t)bits; i++) {
        size_t bit = k * (size_t)bits + i;
        code |= (row[bit / 8] >> bit % 8 & 1u) << i;
    }
    return code;
}

static struct weights make_affine(int bits, int group, enum dtype dtype, size_t rows, size_t cols) {
    struct weights w = {.name = "affine"};
    size_t code_bytes = cols * (size_t)bits / 8, groups = cols / (size_t)group;
    size_t scale_bytes = groups * dtype_bytes(dtype), skip = 1;
    allocate(&w, rows, cols, rows * (code_bytes + 2 * scale_bytes), skip);
    unsigned char *codes = w.memory + skip, *scales = codes + rows * code_bytes;
    unsigned char *offsets = scales + rows * scale_bytes;
    for (size_t i = 0; i < rows * code_bytes; i++) codes[i] = (unsigned char)fixture_below(256);
    for (size_t g = 0; g < rows * groups; g++) {
        double s = put(scales, g, dtype), z = put(offsets, g, dtype);
        for (size_t i = 0; i < (size_t)group; i++) {
            size_t row = g / groups, col = g % groups * (size_t)group + i;
            unsigned q = code_at(codes + row * code_bytes, col, bits);
            w.value[row * cols + col] = s * q + z;
            w.magnitude[row * cols + col] = fabs(s * q) + fabs(z);
        }
    }
    w.mat = affine_mat(rows, cols, bits, group, dtype, codes, scales, offsets);
    return w;
}

static void drop(struct weights *w) {
    free(w->memory);
    free(w->value);
    free(w->magnitude);
}

/* --- the product ------------------------------------------------------------------------------ */

/* Products in double [n, rows], and how far f32 may lie from them: a quarter of the worst case of
 * a plain sum. That is far above what rounding does and far below one term. */
static void multiply(const struct weights *w, const float *x, size_t n, double *y, double *bound) {
    size_t rows = w->mat.rows, cols = w->mat.cols;
    for (size_t i = 0; i < n * rows; i++) {
        const double *v = w->value + i % rows * cols, *m = w->magnitude + i % rows * cols;
        double sum = 0, size = 0;
        for (size_t c = 0; c < cols; c++) {
            sum += x[i / rows * cols + c] * v[c];
            size += fabs(x[i / rows * cols + c]) * m[c];
        }
        y[i] = sum;
        bound[i] = ((double)cols / 4 + 8) * 0x1p-24 * size;
    }
}

static void check_product(const struct weights *w, const struct backend *b, const float *y,
                          const double *want, const double *bound, size_t n) {
    size_t wrong = 0, first = 0, rows = w->mat.rows;
    for (size_t i = n * rows; i-- > 0;) {
        if (fabs(y[i] - want[i]) <= bound[i]) continue;
        wrong++;
        first = i;
    }
    CHECK_MSG(!wrong, "%s%d/%d %s %zux%zu, %s%s, %zu tokens: %zu wrong, [%zu, %zu] %g for %g",
              w->name, w->mat.bits, w->mat.group, dtype_name(w->mat.dtype), rows, w->mat.cols,
              b->level, b->blas ? " with BLAS" : "", n, wrong, first / rows, first % rows, y[first],
              want[first]);
    CHECK_MSG(isnan(y[n * rows]), "written beyond the end");
}

/* All token counts, and for codes all cuts of them, on one backend. *reference holds the result
 * for as many tokens of another thread count, or NULL. */
static void check_backend(const struct weights *w, const struct backend *b, const float *x,
                          const double *want, const double *bound, float *reference[COUNTS]) {
    size_t rows = w->mat.rows, cols = w->mat.cols;
    for (int c = 0; c < COUNTS; c++) {
        size_t n = token_counts[c];
        float *y = fixture_nans(n * rows);
        linear(b, y, &w->mat, x, n);
        check_product(w, b, y, want, bound, n);
        if (reference[c])
            CHECK_MSG(fixture_same(y, reference[c], n * rows), "%s%d: %zu tokens, other threads",
                      w->name, w->mat.bits, n);
        else
            reference[c] = y;
        if (y != reference[c]) free(y);
    }
    if (!w->mat.group) return;
    float *cut = fixture_nans(MOST_TOKENS * rows);
    for (size_t from = 0, c = 0, n; from < MOST_TOKENS; from += n, c++) {
        n = token_counts[c % 4] < MOST_TOKENS - from ? token_counts[c % 4] : MOST_TOKENS - from;
        linear(b, cut + from * rows, &w->mat, x + from * cols, n);
    }
    CHECK_MSG(fixture_same(cut, reference[COUNTS - 1], MOST_TOKENS * rows),
              "%s%d/%d, %s: another cut, other bits", w->name, w->mat.bits, w->mat.group, b->level);
    free(cut);
}

/* At every level, with BLAS and without, over all thread counts. */
static void check_weights(struct weights w) {
    size_t rows = w.mat.rows, n = MOST_TOKENS;
    float *x = fixture_values(n * w.mat.cols, 1);
    double *want = malloc(n * rows * sizeof *want), *bound = malloc(n * rows * sizeof *bound);
    multiply(&w, x, n, want, bound);
    const char *name;
    for (int level = 0; (name = fixture_next_level(&level)) != NULL;) {
        for (int blas = 0; blas <= (strcmp(name, "scalar") != 0 && !w.mat.group); blas++) {
            float *reference[COUNTS] = {NULL};
            for (int t = 0; t < THREADS; t++) {
                struct fixture_backend f;
                fixture_open(&f, thread_counts[t], name, linear_scratch(w.mat.cols));
                f.b.blas = blas;
                check_backend(&w, &f.b, x, want, bound, reference);
                fixture_close(&f);
            }
            for (int c = 0; c < COUNTS; c++) free(reference[c]);
        }
    }
    free(x);
    free(want);
    free(bound);
    drop(&w);
}

static void test_plain(void) {
    static const enum dtype dtypes[] = {DTYPE_F32, DTYPE_F16, DTYPE_BF16};
    static const size_t shapes[][2] = {{133, 256}, {517, 160}, {1, 3}, {64, 1}, {129, 37}};
    for (int d = 0; d < 3; d++) {
        for (size_t skip = 0; skip < 2; skip++) {
            for (int i = 0; i < 5; i++) {
                check_weights(make_plain(dtypes[d], shapes[i][0], shapes[i][1], skip));
            }
        }
    }
}

static void test_affine(void) {
    static const int widths[] = {2, 3, 4, 5, 6, 8}, groups[] = {32, 64, 128};
    static const enum dtype dtypes[] = {DTYPE_F16, DTYPE_BF16, DTYPE_F32};
    for (int b = 0; b < 6; b++) {
        for (int g = 0; g < 3; g++) {
            for (int d = 0; d < 3; d++) {
                check_weights(make_affine(widths[b], groups[g], dtypes[d], 67, 256));
            }
        }
        check_weights(make_affine(widths[b], 32, DTYPE_F16, 1, 32));
        check_weights(make_affine(widths[b], 64, DTYPE_F16, 517, 192));
    }
}

/* What must not be multiplied: a NaN token leaves the others alone. */
static void test_tokens_are_apart(void) {
    struct weights w = make_affine(4, 32, DTYPE_F16, 33, 64), p = make_plain(DTYPE_F32, 33, 64, 1);
    const struct mat *mats[] = {&w.mat, &p.mat};
    float *x = fixture_values(9 * 64, 1);
    for (size_t i = 0; i < 64; i++) x[4 * 64 + i] = i == 5 ? NAN : INFINITY;
    struct fixture_backend f;
    fixture_open(&f, 2, NULL, linear_scratch(64));
    for (int m = 0; m < 4; m++) {
        float y[9 * 33];
        f.b.blas = m >= 2;
        linear(&f.b, y, mats[m % 2], x, 9);
        for (size_t i = 0; i < 9 * 33; i++) CHECK(isnan(y[i]) == (i / 33 == 4));
    }
    fixture_close(&f);
    free(x);
    drop(&w);
    drop(&p);
}

static void check_embed(struct weights w) {
    enum { N = 200 };
    size_t rows = w.mat.rows, cols = w.mat.cols;
    int ids[N];
    for (int i = 0; i < N; i++) ids[i] = i < 2 ? (int)rows - 1 : (int)fixture_below(rows);
    for (int t = 0; t < THREADS; t++) {
        struct fixture_backend f;
        fixture_open(&f, thread_counts[t], NULL, 1);
        float *x = fixture_nans(N * cols);
        embed(&f.b, x, &w.mat, ids, N);
        size_t wrong = 0;
        for (size_t i = 0; i < N * cols; i++) {
            size_t at = (size_t)ids[i / cols] * cols + i % cols;
            wrong += !(fabs(x[i] - w.value[at]) <= 0x1p-23 * w.magnitude[at]);
        }
        CHECK_MSG(!wrong && isnan(x[N * cols]), "%s%d: %zu wrong", w.name, w.mat.bits, wrong);
        free(x);
        fixture_close(&f);
    }
    drop(&w);
}

static void test_embed(void) {
    check_embed(make_plain(DTYPE_F32, 41, 96, 1));
    check_embed(make_plain(DTYPE_F16, 41, 97, 1));
    check_embed(make_plain(DTYPE_BF16, 41, 97, 0));
    check_embed(make_affine(3, 32, DTYPE_BF16, 41, 96));
    check_embed(make_affine(8, 64, DTYPE_F32, 41, 512));
}

int main(void) {
    blas_init();
    check_run("plain weights", test_plain);
    check_run("affine weights", test_affine);
    check_run("tokens are apart", test_tokens_are_apart);
    check_run("embed", test_embed);
    return check_done();
}
