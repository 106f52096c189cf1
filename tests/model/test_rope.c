/* Rope against its formula in double, and tables of rope frequencies against those of
 * transformers. */
#include "model/rotary.h"
#include "ops/rope.h"
#include "work.h"

/* --- rope ------------------------------------------------------------------------------------- */

static struct {
    enum rope_layout layout;
    size_t turned, head_dim; /* how many of head_dim dimensions turn, */
    size_t from;             /* and the first of them */
    size_t pos;
    float scale;
} rope_case;

/* Turns w->dim / head_dim heads of each of n tokens. */
static float *check_rope(const struct work *w) {
    float freq[64];
    size_t half = rope_case.turned / 2, head_dim = rope_case.head_dim, count = w->n * w->dim;
    for (size_t i = 0; i < half; i++) freq[i] = (float)pow(500, -(double)i / (double)half);
    struct rope r = {freq, rope_case.from, rope_case.turned, rope_case.layout, rope_case.scale};
    float *angles = fixture_nans(w->n * rope_case.turned), *x = fixture_values(count, 2);
    float *out = fixture_nans(count);
    memcpy(out, x, count * sizeof *x);
    rope_angles(&r, angles, w->n, rope_case.pos);
    CHECK(isnan(angles[w->n * rope_case.turned]));
    rope_apply(w->b, &r, angles, out, w->n, w->dim / head_dim, head_dim);
    for (size_t at = 0; at < count; at++) {
        size_t t = at / w->dim, d = at % head_dim - rope_case.from, pair, first, second;
        if (d >= rope_case.turned) { /* or before the first */
            CHECK_MSG(out[at] == x[at], "dimension %zu turned", at % head_dim);
            continue;
        }
        if (rope_case.layout == ROPE_HALF) {
            pair = d % half;
            first = at - d + pair;
            second = first + half;
        } else {
            pair = d / 2;
            first = at - d + 2 * pair;
            second = first + 1;
        }
        /* positions are f32, as in transformers */
        float angle = (float)(rope_case.pos + t) * freq[pair];
        double c = cos(angle) * rope_case.scale, s = sin(angle) * rope_case.scale;
        double want = at == first ? x[first] * c - x[second] * s : x[first] * s + x[second] * c;
        CHECK_MSG(fabs(out[at] - want) <= 2e-6, "token %zu, dimension %zu: %g for %g", t, d,
                  out[at], want);
    }
    free(angles);
    free(x);
    return out;
}

static void test_rope(void) {
    static const size_t dims[][3] = {{2, 2, 0},  {16, 16, 0}, {24, 24, 0},    {128, 128, 0},
                                     {8, 20, 0}, {4, 11, 5},  {64, 192, 128}, {16, 20, 4}};
    static const size_t positions[] = {0, 1, 37, 131000};
    for (int i = 0; i < 8; i++) {
        for (int p = 0; p < 4; p++) {
            for (int layout = 0; layout < 4; layout++) {
                rope_case.layout = layout % 2 ? ROPE_INTERLEAVED : ROPE_HALF;
                rope_case.turned = dims[i][0];
                rope_case.head_dim = dims[i][1];
                rope_case.from = dims[i][2];
                rope_case.pos = positions[p];
                rope_case.scale = layout < 2 ? 1 : 1.25f;
                work_everywhere(check_rope, 1, dims[i][1]);
                work_everywhere(check_rope, 70, 3 * dims[i][1]);
            }
        }
    }
}

/* --- growing queries -------------------------------------------------------------------------- */

static struct {
    struct rope_growth law;
    size_t pos;
} growth_case;

static float *check_growth(const struct work *w) {
    const struct rope_growth *law = &growth_case.law;
    size_t count = w->n * w->dim, wrong = 0;
    float *x = fixture_values(count, 2), *q = fixture_nans(count);
    memcpy(q, x, count * sizeof *x);
    rope_query_scale(w->b, law, q, w->n, w->dim, growth_case.pos);
    for (size_t i = 0; i < count; i++) {
        double at = (double)(growth_case.pos + i / w->dim + law->offset);
        double scale =
            law->beta == 0 ? 1 : 1 + (double)law->beta * log(1 + floor(at / (double)law->context));
        wrong += !(fabs(q[i] - x[i] * scale) <= 2e-7 * fabs(x[i] * scale));
    }
    CHECK_MSG(!wrong, "%zu of %zu after %zu, context %zu: %zu are wrong", w->n, w->dim,
              growth_case.pos, law->context, wrong);
    free(x);
    return q;
}

static void test_growing_queries(void) {
    static const struct rope_growth laws[] = {{0.1f, 16, 0},    {0.3f, 8, 1}, {0.1f, 8192, 1},
                                              {0.1f, 16384, 0}, {0, 1, 0},    {0, 0, 0}};
    static const size_t positions[] = {0, 7, 15, 8190, 16383, 1048575};
    for (int i = 0; i < 36; i++) {
        growth_case.law = laws[i / 6];
        growth_case.pos = positions[i % 6];
        work_everywhere(check_growth, 1, 64);
        work_everywhere(check_growth, 70, 1030);
    }
}

/* --- tables of frequencies -------------------------------------------------------------------- */

/* wanted is what transformers 5.17 computes, in double, by the formulas of its
 * modeling_rope_utils.py:
 *
 *     f[i] = theta ** (-2 * i / dim)
 *     linear: f / factor
 *     llama3: wavelen = 2 * pi / f
 *             f where wavelen < old / high; f / factor where wavelen > old / low; between,
 *             s = (old / wavelen - low) / (high - low); (1 - s) * f / factor + s * f
 *     yarn:   at(r) = dim * log(old / (r * 2 * pi)) / (2 * log(theta))
 *             first = max(floor(at(fast)), 0), last = min(ceil(at(slow)), dim - 1), rounded only
 *             where truncate is true; last += 0.001 if it equals first
 *             ramp = clamp((i - first) / (last - first), 0, 1)
 *             f / factor * ramp + f * (1 - ramp)
 *             scale m(factor, 1), or m(factor, mscale) / m(factor, mscale_all_dim), where
 *             m(s, a) = 1 if s <= 1 else 0.1 * a * log(s) + 1; or attention_factor
 */
static const struct {
    const char *name;
    size_t dim;
    struct spec s;
    double scale;
    double wanted[16];
} tables[] = {
    {"default",
     16,
     {.rope_theta = 1e4},
     1,
     {1, 0.316227766, 0.1, 0.0316227766, 0.01, 0.00316227766, 0.001, 0.000316227766}},
    {"linear",
     16,
     {.rope_kind = SPEC_ROPE_LINEAR, .rope_theta = 1e4, .rope_factor = 4},
     1,
     {0.25, 0.0790569415, 0.025, 0.00790569415, 0.0025, 0.000790569415, 0.00025, 7.90569415e-05}},
    {"llama3",
     16,
     {.rope_kind = SPEC_ROPE_LLAMA3,
      .rope_theta = 5e5,
      .rope_factor = 8,
      .rope_low_freq_factor = 1,
      .rope_high_freq_factor = 4,
      .rope_original_context = 8192},
     1,
     {1, 0.193922745, 0.0376060309, 0.00729266474, 0.000524846161, 3.4281022e-05, 6.64786987e-06,
      1.28917317e-06}},
    {"llama3, factor 32",
     24,
     {.rope_kind = SPEC_ROPE_LLAMA3,
      .rope_theta = 5e5,
      .rope_factor = 32,
      .rope_low_freq_factor = 1,
      .rope_high_freq_factor = 4,
      .rope_original_context = 8192},
     1,
     {1, 0.335031648, 0.112246205, 0.0376060309, 0.0125992105, 0.00422113425, 0.000429556797,
      1.48064469e-05, 4.96062829e-06, 1.66196747e-06, 5.56811699e-07, 1.86549541e-07}},
    {"yarn",
     16,
     {.rope_kind = SPEC_ROPE_YARN,
      .rope_theta = 1e4,
      .rope_factor = 4,
      .rope_beta_fast = 32,
      .rope_beta_slow = 1,
      .rope_original_context = 64,
      .rope_truncate = -1},
     1.13862944,
     {1, 0.237170825, 0.05, 0.00790569415, 0.0025, 0.000790569415, 0.00025, 7.90569415e-05}},
    {"yarn, mscale",
     32,
     {.rope_kind = SPEC_ROPE_YARN,
      .rope_theta = 1e6,
      .rope_factor = 40,
      .rope_beta_fast = 32,
      .rope_beta_slow = 1,
      .rope_original_context = 4096,
      .rope_truncate = 1,
      .rope_mscale = 0.8,
      .rope_mscale_all_dim = 0.5},
     1.09343319,
     {1, 0.421696503, 0.177827941, 0.0749894209, 0.0254563352, 0.00813448074, 0.0023337165,
      0.000521702215, 2.5e-05, 1.05424126e-05, 4.44569853e-06, 1.87473552e-06, 7.90569415e-07,
      3.33380358e-07, 1.40585331e-07, 5.92843426e-08}},
    {"yarn, not truncated",
     32,
     {.rope_kind = SPEC_ROPE_YARN,
      .rope_theta = 1e6,
      .rope_factor = 40,
      .rope_beta_fast = 16,
      .rope_beta_slow = 2,
      .rope_original_context = 4096,
      .rope_truncate = 0,
      .rope_mscale = 2},
     1.36888795,
     {1, 0.421696503, 0.177827941, 0.0749894209, 0.0316227766, 0.00952086063, 0.00173821862,
      5.92843426e-05, 2.5e-05, 1.05424126e-05, 4.44569853e-06, 1.87473552e-06, 7.90569415e-07,
      3.33380358e-07, 1.40585331e-07, 5.92843426e-08}},
    {"yarn, attention factor",
     8,
     {.rope_kind = SPEC_ROPE_YARN,
      .rope_theta = 1e4,
      .rope_factor = 2,
      .rope_beta_fast = 5,
      .rope_beta_slow = 5,
      .rope_original_context = 64,
      .rope_truncate = 0,
      .rope_attention_factor = 0.75,
      .rope_mscale = 1,
      .rope_mscale_all_dim = 1},
     0.75,
     {1, 0.05, 0.005, 0.0005}},
};

static void test_rotary_tables(void) {
    for (size_t i = 0; i < sizeof tables / sizeof *tables; i++) {
        float freq[17];
        freq[tables[i].dim / 2] = NAN;
        struct rope r = {.freq = freq, .dim = tables[i].dim};
        rotary_fill(&r, &tables[i].s, ROTARY_GLOBAL);
        CHECK_MSG(fabs(r.scale - tables[i].scale) < 1e-7, "%s: scale %.9g", tables[i].name,
                  r.scale);
        for (size_t k = 0; k < r.dim / 2; k++) {
            double want = tables[i].wanted[k];
            CHECK_MSG(fabs(freq[k] - want) <= 1e-7 * want, "%s: [%zu] is %.9g, not %.9g",
                      tables[i].name, k, freq[k], want);
        }
        CHECK(isnan(freq[tables[i].dim / 2]));
    }
}

int main(void) {
    check_run("rope", test_rope);
    check_run("growing queries", test_growing_queries);
    check_run("rotary tables", test_rotary_tables);
    return check_done();
}
