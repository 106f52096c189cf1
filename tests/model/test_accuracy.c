/* How close products with affine weights come to those of the decoded weights: x is rounded to 8
 * bits in groups with a scale of their own, and nothing else may be lost, with outliers or not. */
#include "fixture.h"
#include "num/affine.h"

enum { COLS = 4096, ROWS = 48, TOKENS = 24 };

/* One of a normal distribution, by Box and Muller. */
static float normal(void) {
    double u = 1 - random_unit(&fixture_random), v = random_unit(&fixture_random);
    return (float)(sqrt(-2 * log(u)) * cos(2 * 3.14159265358979323846 * v));
}

/* Activations of which `outliers` in a row of 4096 are 50 times as large. */
static float *make_activations(int outliers) {
    float *x = malloc(TOKENS * COLS * sizeof *x);
    for (size_t i = 0; i < TOKENS * COLS; i++) x[i] = normal();
    for (size_t t = 0; t < TOKENS; t++) {
        for (int i = 0; i < outliers; i++) {
            size_t c = fixture_below(COLS / (size_t)outliers) + COLS / (size_t)outliers * (size_t)i;
            x[t * COLS + c] *= 50;
        }
    }
    return x;
}

/* Normal weights as nibble quantizes them; free what plane[0] points to. */
static struct mat make_weights(int bits, int group) {
    size_t code_bytes = affine_code_bytes(COLS, bits), scale_bytes = COLS / (size_t)group * 2;
    unsigned char *codes = malloc(ROWS * (code_bytes + 2 * scale_bytes));
    unsigned char *scales = codes + ROWS * code_bytes, *offsets = scales + ROWS * scale_bytes;
    float row[COLS];
    for (size_t i = 0; i < ROWS; i++) {
        for (size_t c = 0; c < COLS; c++) row[c] = normal() / 64;
        affine_encode(row, COLS, bits, group, DTYPE_F16, codes + i * code_bytes,
                      scales + i * scale_bytes, offsets + i * scale_bytes);
    }
    return affine_mat(ROWS, COLS, bits, group, DTYPE_F16, codes, scales, offsets);
}

/* Mean squares over all outputs. */
struct squares {
    double exact, expected; /* of the products, and of the error if all of it is rounding x */
};

/* Rounding to multiples of d = max|x| / 127 adds noise of variance d^2 / 12 to each x. */
static double expected_error(const float *x, const float *w, int group) {
    double sum = 0;
    for (int begin = 0; begin < COLS; begin += group) {
        double most = 0, squares = 0;
        for (int c = begin; c < begin + group; c++) {
            most = fmax(most, fabs((double)x[c]));
            squares += (double)w[c] * w[c];
        }
        sum += most / 127 * (most / 127) / 12 * squares;
    }
    return sum;
}

/* Products of the decoded weights in double, y [TOKENS, ROWS]. */
static struct squares multiply(const struct mat *w, const float *x, double *y) {
    struct squares mean = {0};
    float row[COLS];
    for (size_t r = 0; r < ROWS; r++) {
        w->format->decode(w, r, row);
        for (size_t t = 0; t < TOKENS; t++) {
            double sum = 0;
            for (size_t c = 0; c < COLS; c++) sum += (double)x[t * COLS + c] * row[c];
            y[t * ROWS + r] = sum;
            mean.exact += sum * sum / (TOKENS * ROWS);
            mean.expected += expected_error(x + t * COLS, row, w->group) / (TOKENS * ROWS);
        }
    }
    return mean;
}

static double mean_square_error(const char *level, const struct mat *w, const float *x,
                                const double *want) {
    struct fixture_backend f;
    float *y = fixture_nans(TOKENS * ROWS);
    double error = 0;
    fixture_open_linear(&f, 2, level, COLS, TOKENS);
    linear(&f.b, &(struct linear){y, w, NULL}, 1, (struct input){.x = x}, TOKENS);
    for (size_t i = 0; i < TOKENS * ROWS; i++) {
        error += (y[i] - want[i]) * (y[i] - want[i]) / (TOKENS * ROWS);
    }
    fixture_close(&f);
    free(y);
    return error;
}

static void check_error(int bits, int group, int outliers) {
    float *x = make_activations(outliers);
    double *want = malloc(TOKENS * ROWS * sizeof *want);
    struct mat w = make_weights(bits, group);
    struct squares mean = multiply(&w, x, want);
    const char *name;
    for (int level = 0; (name = fixture_next_level(&level)) != NULL;) {
        double error = sqrt(mean_square_error(name, &w, x, want));
        CHECK_MSG(error <= 1.1 * sqrt(mean.expected),
                  "%s, %d bits by %d, %d outliers: the error is %.3g, rounding x explains %.3g",
                  name, bits, group, outliers, error, sqrt(mean.expected));
        CHECK_MSG(outliers || error <= 0.01 * sqrt(mean.exact),
                  "%s, %d bits by %d: the error is %.2f%%", name, bits, group,
                  100 * error / sqrt(mean.exact));
    }
    free((void *)w.plane[0]);
    free(want);
    free(x);
}

static void check_groups(int outliers) {
    static const int widths[] = {2, 3, 4, 5, 6, 8};
    for (int group = 32; group <= 128; group *= 2) {
        for (int i = 0; i < 6; i++) check_error(widths[i], group, outliers);
    }
}

static void test_normal(void) {
    check_groups(0);
}

static void test_outliers(void) {
    check_groups(1);
    check_groups(4);
    check_groups(64);
}

int main(void) {
    check_run("normal activations", test_normal);
    check_run("activations with outliers", test_outliers);
    return check_done();
}
