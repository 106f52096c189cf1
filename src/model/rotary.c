#include "model/rotary.h"

#include <math.h>

static const double TURN = 6.283185307179586;

/* Llama 3.1: waves longer than the original context are slowed by factor, short ones stay, those
 * between are blended. */
static double llama3(const struct spec *s, double freq) {
    double waves = s->rope_original_context * freq / TURN; /* in the original context */
    double blend =
        (waves - s->rope_low_freq_factor) / (s->rope_high_freq_factor - s->rope_low_freq_factor);
    blend = fmin(fmax(blend, 0), 1);
    return freq * (blend + (1 - blend) / s->rope_factor);
}

/* The pair of dimensions whose wave turns `turns` times in the original context. */
static double yarn_pair(const struct spec *s, double dim, double turns) {
    return dim * log(s->rope_original_context / (turns * TURN)) / (2 * log(s->rope_theta));
}

/* YaRN: pairs below `first` stay, pairs above `last` are slowed by factor, a ramp lies between. */
static double yarn(const struct spec *s, double freq, double dim, double pair) {
    double first = yarn_pair(s, dim, s->rope_beta_fast),
           last = yarn_pair(s, dim, s->rope_beta_slow);
    if (s->rope_truncate != 0) {
        first = floor(first);
        last = ceil(last);
    }
    first = fmax(first, 0);
    last = fmin(last, dim - 1);
    if (first == last) last += 0.001;
    double slowed = fmin(fmax((pair - first) / (last - first), 0), 1);
    return freq * (1 - slowed + slowed / s->rope_factor);
}

static double yarn_mscale(double factor, double mscale) {
    return factor <= 1 ? 1 : 0.1 * mscale * log(factor) + 1;
}

static double yarn_attention_factor(const struct spec *s) {
    if (s->rope_attention_factor != 0) return s->rope_attention_factor;
    if (s->rope_mscale == 0 || s->rope_mscale_all_dim == 0) return yarn_mscale(s->rope_factor, 1);
    return yarn_mscale(s->rope_factor, s->rope_mscale) /
           yarn_mscale(s->rope_factor, s->rope_mscale_all_dim);
}

/* LongRoPE: what softmax needs to stay as sharp over a text so much longer. */
static double long_attention_factor(const struct spec *s) {
    if (s->rope_attention_factor != 0) return s->rope_attention_factor;
    if (s->rope_factor <= 1) return 1;
    return sqrt(1 + log(s->rope_factor) / log(s->rope_original_context));
}

bool rotary_has(const struct spec *s, enum rotary_table table) {
    if (!s->rope_dim || s->positions) return false;
    if (table == ROTARY_LOCAL) return s->rope_local_theta != 0;
    return table == ROTARY_GLOBAL || s->rope_kind == SPEC_ROPE_LONG;
}

/* The dimensions that turn, as frequencies count them: odd where the last pair has one to spare. */
static double turning(const struct rope *r, const struct spec *s) {
    double dim = floor((double)s->head_dim * s->rope_partial);
    return s->kv_rank || dim < 1 ? (double)r->dim : dim;
}

void rotary_fill(struct rope *r, const struct spec *s, enum rotary_table table) {
    bool local = table == ROTARY_LOCAL;
    double dim = turning(r, s), theta = local ? s->rope_local_theta : s->rope_theta;
    int kind = local ? SPEC_ROPE_DEFAULT : s->rope_kind;
    const float *divisors = table == ROTARY_LONG ? s->rope_long : s->rope_short;
    r->scale = 1;
    if (kind == SPEC_ROPE_YARN) r->scale = (float)yarn_attention_factor(s);
    if (kind == SPEC_ROPE_LONG) r->scale = (float)long_attention_factor(s);
    for (size_t i = 0; i < r->dim / 2; i++) {
        double pair = (double)i, freq = pow(theta, -2 * pair / dim);
        switch (kind) {
        case SPEC_ROPE_LINEAR: freq /= s->rope_factor; break;
        case SPEC_ROPE_LLAMA3: freq = llama3(s, freq); break;
        case SPEC_ROPE_YARN: freq = yarn(s, freq, dim, pair); break;
        case SPEC_ROPE_LONG: freq /= (double)divisors[i]; break;
        }
        r->freq[i] = (float)freq;
    }
}
