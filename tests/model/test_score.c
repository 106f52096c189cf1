/* src/gen/score.h on values that can be worked out by hand. */
#include "gen/score.h"

#include <math.h>

#include "check.h"

static bool near(double a, double b) {
    return fabs(a - b) < 1e-12;
}

static void test_row(void) {
    const float logits[4] = {0, 1, 2, 2};
    struct score s;
    double norm = log(1 + exp(1) + 2 * exp(2));
    CHECK(score_row(logits, 4, 1, &s));
    CHECK(near(s.norm, norm) && near(s.logp, 1 - norm) && s.best == 2);
    const float far[3] = {1e4f, -1e4f, -INFINITY}; /* no sum overflows, nothing is lost */
    CHECK(score_row(far, 3, 1, &s) && s.logp == -2e4 && s.best == 0);
    CHECK(score_row(far, 3, 2, &s) && s.logp == (double)-INFINITY);
}

static void test_rows_that_are_no_distribution(void) {
    struct score s;
    const float nan[2] = {0, NAN}, infinite[2] = {INFINITY, 0}, none[2] = {-INFINITY, -INFINITY};
    CHECK(!score_row(nan, 2, 0, &s));
    CHECK(!score_row(infinite, 2, 0, &s));
    CHECK(!score_row(none, 2, 0, &s));
}

static void test_divergence(void) {
    const float log_p[3] = {logf(0.5f), logf(0.5f), -INFINITY}, logits[3] = {logf(3), 0, 0};
    struct score s;
    CHECK(score_row(logits, 3, 0, &s)); /* q = 0.6, 0.2, 0.2 */
    double want = 0.5 * log(0.5 / 0.6) + 0.5 * log(0.5 / 0.2);
    CHECK(fabs(score_divergence(log_p, logits, s.norm, 3) - want) < 1e-7);
    const float twice[3] = {0, 0, -INFINITY}; /* the same p, not divided by its sum */
    CHECK(fabs(score_divergence(twice, logits, s.norm, 3) - want) < 1e-7);
    CHECK(fabs(score_divergence(logits, logits, s.norm, 3)) < 1e-12);
}

static void test_windows(void) {
    const int ids[] = {1, 10, 11, 12, 13, 14, 15, 16, 17, 18};
    struct windows w;
    struct error e;
    int out[4];
    CHECK(score_windows(&w, WINDOWS_HALVES, 4, 1, 0, &e));
    CHECK(score_window_count(&w, 10) == 2 && score_window_count(&w, 3) == 0);
    CHECK(score_window(&w, ids, 1, out) == 3 && out[0] == 1 && out[1] == 14 && out[3] == 16);
    CHECK(score_windows(&w, WINDOWS_ALL, 4, 1, 0, &e));
    CHECK(score_window_count(&w, 10) == 3);
    CHECK(score_window(&w, ids, 2, out) == 1 && out[0] == 1 && out[1] == 16 && out[3] == 18);
    CHECK(score_windows(&w, WINDOWS_ALL, 4, 0, 2, &e));
    CHECK(score_window(&w, ids, 0, out) == 1 && out[0] == 1);
    CHECK(score_window(&w, ids, 1, out) == 2 && out[0] == 11 && out[3] == 14);
}

static void test_windows_that_score_nothing(void) {
    struct windows w;
    struct error e;
    CHECK(!score_windows(&w, WINDOWS_HALVES, 2, 0, 0, &e) && e.status == STATUS_ARGUMENT);
    CHECK(!score_windows(&w, WINDOWS_ALL, 2, 2, 0, &e));
    CHECK(!score_windows(&w, WINDOWS_HALVES, 8, 6, 0, &e));
    CHECK(!score_windows(&w, WINDOWS_HALVES, 8, 1, 4, &e));
    CHECK(score_windows(&w, WINDOWS_HALVES, 8, 1, 3, &e));
    CHECK(!score_windows(&w, WINDOWS_HALVES, 0, 0, 0, &e));
}

static void test_figures(void) {
    const double sorted[5] = {1, 2, 3, 4, 10};
    struct score_mean m = {0};
    for (int i = 0; i < 5; i++) score_add(&m, sorted[i]);
    CHECK(near(m.mean, 4) && near(score_error(&m), sqrt(50 / 4.0 / 5)));
    CHECK(near(score_percentile(sorted, 5, 0.5), 3) && score_percentile(sorted, 5, 1) == 10);
    CHECK(near(score_percentile(sorted, 5, 0.9), 7.6) && score_percentile(sorted, 1, 0.9) == 1);
    struct score_mean one = {0};
    score_add(&one, 7);
    CHECK(one.mean == 7 && score_error(&one) == 0);
}

int main(void) {
    check_run("row", test_row);
    check_run("rows that are no distribution", test_rows_that_are_no_distribution);
    check_run("divergence", test_divergence);
    check_run("windows", test_windows);
    check_run("windows that score nothing", test_windows_that_score_nothing);
    check_run("figures", test_figures);
    return check_done();
}
