/* PCG32 against the output that its author publishes, and the uniform numbers made of it. */
#include <math.h>

#include "check.h"
#include "gen/random.h"

/* pcg32-demo of pcg-c-basic: seed 42, sequence 54 */
static void test_reference(void) {
    static const uint32_t want[] = {0xa15c02b7, 0x7b47f409, 0xba1d3330,
                                    0x83d2f293, 0xbfa4784b, 0xcbed606e};
    struct random r;
    random_seed(&r, 42, 54);
    for (int i = 0; i < 6; i++) CHECK(random_u32(&r) == want[i]);
}

static void test_seeds_differ(void) {
    struct random r[4];
    static const uint64_t seeds[] = {0, 1, 1ull << 40, UINT64_MAX};
    int same = 0;
    for (int i = 0; i < 4; i++) random_seed(&r[i], seeds[i], 0);
    for (int n = 0; n < 100; n++) {
        uint32_t v[4];
        for (int i = 0; i < 4; i++) v[i] = random_u32(&r[i]);
        for (int i = 0; i < 4; i++) {
            for (int k = 0; k < i; k++) same += v[i] == v[k];
        }
    }
    CHECK(same == 0);
}

/* A unit is the upper 27 bits of one number and the upper 26 of the next, as a fraction. */
static void test_unit_bits(void) {
    struct random a, b;
    random_seed(&a, 7, 0);
    b = a;
    for (int i = 0; i < 1000; i++) {
        double high = floor(random_u32(&b) / 32.0), low = floor(random_u32(&b) / 64.0);
        CHECK(random_unit(&a) == (high * 67108864.0 + low) / 9007199254740992.0);
    }
}

/* Mean 1/2, variance 1/12, each of 64 intervals as often as the others, never 1. */
static void test_unit_is_uniform(void) {
    enum { N = 1 << 20, BINS = 64 };
    static int bins[BINS];
    struct random r;
    double sum = 0, squares = 0, chi2 = 0;
    random_seed(&r, 3, 0);
    for (int i = 0; i < N; i++) {
        double u = random_unit(&r);
        CHECK(u >= 0 && u < 1);
        if (!check_ok) return;
        bins[(int)(u * BINS)]++;
        sum += u;
        squares += u * u;
    }
    double mean = sum / N, expected = (double)N / BINS;
    CHECK(fabs(mean - 0.5) < 5 * sqrt(1.0 / 12 / N));
    CHECK(fabs(squares / N - mean * mean - 1.0 / 12) < 5 * sqrt(1.0 / 180 / N));
    for (int i = 0; i < BINS; i++) chi2 += (bins[i] - expected) * (bins[i] - expected) / expected;
    CHECK_MSG(chi2 > 25 && chi2 < 120, "chi-square %g over %d intervals", chi2, BINS);
}

int main(void) {
    check_run("reference", test_reference);
    check_run("seeds differ", test_seeds_differ);
    check_run("bits of a unit", test_unit_bits);
    check_run("units are uniform", test_unit_is_uniform);
    return check_done();
}
