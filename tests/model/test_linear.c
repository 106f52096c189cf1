/* linear() and embed(): every format, width and group against sums in double over weights that are
 * unpacked here, bit by bit, and the same bits whatever the threads and, for codes, the batch and
 * the other products of a call. How close products with codes come is test_accuracy.c's matter. */
#include "fixture.h"
#include "num/affine.h"
#include "ops/blas.h"
#include "ops/embed.h"
#include "ops/norm.h"

static const int thread_counts[] = {1, 2, 3, 4};
static const size_t token_counts[] = {1, 3, 4, 7, 64};
enum { THREADS = 4, COUNTS = 5, MOST_TOKENS = 64 };

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

/* The variance of x W if each x is rounded to a multiple of max|x| / 127 in its group. */
static double rounding_variance(const struct mat *w, const float *x, const double *value) {
    double sum = 0;
    for (size_t begin = 0; begin < w->cols; begin += (size_t)w->group) {
        double most = 0, squares = 0;
        for (size_t c = begin; c < begin + (size_t)w->group; c++) {
            most = fmax(most, fabs((double)x[c]));
            squares += value[c] * value[c];
        }
        sum += most / 127 * (most / 127) / 12 * squares;
    }
    return sum;
}

/* Products in double [n, rows], and how far f32 may lie from them: a quarter of the worst case of
 * a plain sum. That is far above what rounding does and far below one term. Where activations are
 * rounded to 8 bits, six standard deviations of that come on top. */
static void multiply(const struct weights *w, const float *x, size_t n, double *y, double *bound) {
    size_t rows = w->mat.rows, cols = w->mat.cols;
    for (size_t i = 0; i < n * rows; i++) {
        const double *v = w->value + i % rows * cols, *m = w->magnitude + i % rows * cols;
        const float *token = x + i / rows * cols;
        double sum = 0, size = 0;
        for (size_t c = 0; c < cols; c++) {
            sum += token[c] * v[c];
            size += fabs(token[c]) * m[c];
        }
        y[i] = sum;
        bound[i] = ((double)cols / 4 + 8) * 0x1p-24 * size;
        if (w->mat.group) bound[i] += 6 * sqrt(rounding_variance(&w->mat, token, v));
    }
}

static void multiply_one(const struct backend *b, float *y, const struct mat *w, const float *x,
                         size_t n) {
    linear(b, &(struct linear){y, w}, 1, (struct input){.x = x}, n);
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
        multiply_one(b, y, &w->mat, x, n);
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
        multiply_one(b, cut + from * rows, &w->mat, x + from * cols, n);
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
                fixture_open_linear(&f, thread_counts[t], name, w.mat.cols, n);
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
    /* wide enough to be packed by several threads and multiplied in several steps */
    check_weights(make_affine(4, 128, DTYPE_F16, 65, 2176));
    check_weights(make_affine(3, 32, DTYPE_BF16, 65, 2080));
}

/* One value that is not finite spoils its token and leaves the others alone. */
static void check_spoilt(const struct backend *b, const struct mat *w, float spoil) {
    enum { N = 9 };
    float *x = fixture_values(N * w->cols, 1), *y = fixture_nans(N * w->rows);
    size_t odd = fixture_below(N);
    x[odd * w->cols + fixture_below(w->cols)] = spoil;
    for (size_t n = 1; n <= N; n += N - 1) {
        size_t first = n == 1 ? odd : 0, wrong = 0;
        multiply_one(b, y, w, x + first * w->cols, n);
        for (size_t i = 0; i < n * w->rows; i++) {
            wrong += !isfinite(y[i]) != (first + i / w->rows == odd);
        }
        CHECK_MSG(!wrong, "%s, %s%d: %zu wrong of %zu tokens, one with %g", b->level,
                  w->format->name, w->bits, wrong, n, spoil);
    }
    free(x);
    free(y);
}

static void test_tokens_are_apart(void) {
    struct weights w[] = {make_affine(4, 32, DTYPE_F16, 33, 96),
                          make_affine(3, 32, DTYPE_BF16, 33, 96),
                          make_affine(8, 32, DTYPE_F32, 33, 96), make_plain(DTYPE_F32, 33, 96, 1)};
    const char *name;
    for (int level = 0; (name = fixture_next_level(&level)) != NULL;) {
        struct fixture_backend f;
        fixture_open_linear(&f, 2, name, 96, 9);
        for (int i = 0; i < 5; i++) {
            f.b.blas = i == 4;
            check_spoilt(&f.b, &w[i < 4 ? i : 3].mat, NAN);
            check_spoilt(&f.b, &w[i < 4 ? i : 3].mat, INFINITY);
            check_spoilt(&f.b, &w[i < 4 ? i : 3].mat, -INFINITY);
        }
        fixture_close(&f);
    }
    for (int i = 0; i < 4; i++) drop(&w[i]);
}

/* Products that share x in a call, of formats that are packed for in different ways or not at all,
 * are each what they are alone. */
static void test_products_of_one_call(void) {
    enum { PRODUCTS = 8, COLS = 256 };
    struct weights w[PRODUCTS] = {
        make_affine(4, 64, DTYPE_F16, 200, COLS), make_affine(4, 64, DTYPE_BF16, 3, COLS),
        make_affine(4, 64, DTYPE_F32, 130, COLS), make_affine(4, 128, DTYPE_F16, 64, COLS),
        make_affine(8, 128, DTYPE_F16, 65, COLS), make_affine(3, 32, DTYPE_F32, 129, COLS),
        make_plain(DTYPE_F16, 70, COLS, 1),       make_plain(DTYPE_F32, 130, COLS, 0)};
    const char *name;
    float *x = fixture_values(MOST_TOKENS * COLS, 1);
    for (int level = 0; (name = fixture_next_level(&level)) != NULL;) {
        for (int i = 0; i < THREADS * COUNTS; i++) {
            size_t n = token_counts[i / THREADS], count = PRODUCTS - (size_t)i % 3;
            struct fixture_backend f;
            struct linear all[PRODUCTS];
            fixture_open_linear(&f, thread_counts[i % THREADS], name, COLS, n);
            for (int p = 0; p < PRODUCTS; p++) {
                all[p] = (struct linear){fixture_nans(n * w[p].mat.rows), &w[p].mat};
            }
            linear(&f.b, all, count, (struct input){.x = x}, n);
            for (size_t p = 0; p < PRODUCTS; p++) {
                float *alone = fixture_nans(n * w[p].mat.rows);
                if (p < count) multiply_one(&f.b, alone, &w[p].mat, x, n);
                CHECK_MSG(fixture_same(all[p].y, alone, n * w[p].mat.rows + 1),
                          "%s, %d threads, %zu tokens: product %zu of %zu", name,
                          thread_counts[i % THREADS], n, p, count);
                free(alone);
                free(all[p].y);
            }
            fixture_close(&f);
        }
    }
    for (int p = 0; p < PRODUCTS; p++) drop(&w[p]);
    free(x);
}

/* What linear and linear_gated do on the way, in steps of their own. */
static void gate_apart(const struct backend *b, float *h, float *gate, const float *x,
                       const float *norm, const struct weights *w, size_t n) {
    float *up = fixture_nans(n * w[1].mat.rows);
    norm_rms(b, h, x, norm, n, w[0].mat.cols, 1e-5f);
    multiply_one(b, gate, &w[0].mat, h, n);
    multiply_one(b, up, &w[1].mat, h, n);
    b->kern.silu_mul(gate, up, n * w[0].mat.rows);
    free(up);
}

static void check_gated(const struct fixture_backend *f, const struct weights *w, const float *x,
                        const float *norm, size_t n) {
    size_t cols = w[0].mat.cols, size = n * w[0].mat.rows;
    float *h[2], *gate[2];
    for (int i = 0; i < 2; i++) {
        h[i] = fixture_nans(n * cols);
        gate[i] = fixture_nans(size);
    }
    gate_apart(&f->b, h[0], gate[0], x, norm, w, n);
    linear_gated(&f->b, gate[1], &w[0].mat, &w[1].mat, (struct input){x, norm, 1e-5f, h[1]}, n);
    CHECK_MSG(fixture_same(h[0], h[1], n * cols + 1) && fixture_same(gate[0], gate[1], size + 1),
              "%s, %s %d and %s %d bits, %zu tokens", f->b.level, w[0].name, w[0].mat.bits,
              w[1].name, w[1].mat.bits, n);
    for (int i = 0; i < 2; i++) {
        free(h[i]);
        free(gate[i]);
    }
}

static void test_norm_and_gate(void) {
    enum { PAIRS = 4, ROWS = 130, COLS = 256 };
    struct weights w[PAIRS][2] = {
        {make_affine(4, 64, DTYPE_F16, ROWS, COLS), make_affine(4, 64, DTYPE_F16, ROWS, COLS)},
        {make_affine(4, 64, DTYPE_F16, ROWS, COLS), make_affine(8, 64, DTYPE_F16, ROWS, COLS)},
        {make_plain(DTYPE_F16, ROWS, COLS, 1), make_plain(DTYPE_F16, ROWS, COLS, 0)},
        {make_plain(DTYPE_F32, ROWS, COLS, 1), make_affine(3, 32, DTYPE_F32, ROWS, COLS)}};
    float *x = fixture_values(MOST_TOKENS * COLS, 3), *norm = fixture_values(COLS, 1);
    const char *name;
    for (int level = 0; (name = fixture_next_level(&level)) != NULL;) {
        for (int i = 0; i < THREADS * COUNTS * PAIRS; i++) {
            struct fixture_backend f;
            size_t n = token_counts[i / THREADS % COUNTS];
            fixture_open_linear(&f, thread_counts[i % THREADS], name, COLS, n);
            check_gated(&f, w[i / THREADS / COUNTS], x, norm, n);
            fixture_close(&f);
        }
    }
    for (int i = 0; i < 2 * PAIRS; i++) drop(&w[i / 2][i % 2]);
    free(x);
    free(norm);
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
    check_run("products of one call", test_products_of_one_call);
    check_run("norm and gate", test_norm_and_gate);
    check_run("embed", test_embed);
    return check_done();
}
