#include "num/search.h"

#include <math.h>

#include "num/affine.h"
#include "num/half.h"

/* Lanes of a sum: a fixed order of additions that a compiler can keep in vectors. */
enum { LANES = 8, MAX_GROUP = 128, ROUNDS = 6, MAX_CODE_BYTES = MAX_GROUP };

struct group {
    float w[MAX_GROUP], h[MAX_GROUP];
    int n;
    float levels, low, high;
};

struct line {
    float s, z;
};

static float total(const float lanes[LANES]) {
    return ((lanes[0] + lanes[4]) + (lanes[2] + lanes[6])) +
           ((lanes[1] + lanes[5]) + (lanes[3] + lanes[7]));
}

/* clip(rint(x), 0, levels): below 2^23 an addition rounds. */
static inline float nearest(float x, float levels) {
    x = x > 0 ? x : 0;
    x = x < levels ? x : levels;
    return x + 0x1p23f - 0x1p23f;
}

/* What weights are multiplied with to become codes; 0 where every code stands for the offset. */
static inline float inverse(float s) {
    float inv = 1 / s;
    return isfinite(inv) ? inv : 0;
}

float search_code(float w, float s, float z, int bits) {
    return nearest((w - z) * inverse(s), (float)((1 << bits) - 1));
}

float search_round(float f, enum dtype dtype) {
    if (dtype == DTYPE_F16) return half_from_f16(half_to_f16(f));
    return dtype == DTYPE_BF16 ? half_from_bf16(half_to_bf16(f)) : f;
}

static float error_of(const struct group *g, struct line l) {
    float sum[LANES] = {0}, inv = inverse(l.s);
    for (int i = 0; i < g->n; i += LANES) {
        for (int k = 0; k < LANES; k++) {
            /* n is a multiple of LANES. NOLINTNEXTLINE(clang-analyzer-core.uninitialized.Assign) */
            float w = g->w[i + k], q = nearest((w - l.z) * inv, g->levels);
            float d = w - (l.s * q + l.z);
            sum[k] += g->h[i + k] * d * d;
        }
    }
    return total(sum);
}

/* The regression of the weights on their nearest codes; sums are of values around the middle, in
 * which little cancels. */
static struct line regress(const struct group *g, struct line l) {
    float h[LANES] = {0}, q[LANES] = {0}, w[LANES] = {0}, qq[LANES] = {0}, qw[LANES] = {0};
    float inv = inverse(l.s), middle = g->low / 2 + g->high / 2;
    for (int i = 0; i < g->n; i += LANES) {
        for (int k = 0; k < LANES; k++) {
            float weight = g->h[i + k], value = g->w[i + k] - middle;
            float code = nearest((g->w[i + k] - l.z) * inv, g->levels), weighted = weight * code;
            h[k] += weight;
            q[k] += weighted;
            w[k] += weight * value;
            qq[k] += weighted * code;
            qw[k] += weighted * value;
        }
    }
    float all = total(h), mean_q = total(q) / all, mean_w = total(w) / all;
    float variance = total(qq) - total(q) * mean_q;
    if (variance > 1e-6f * all) l.s = (total(qw) - total(q) * mean_w) / variance;
    l.z = mean_w - l.s * mean_q + middle;
    return l;
}

static void consider(const struct group *g, struct line l, enum dtype dtype, struct line *best,
                     float *least) {
    l.s = search_round(l.s, dtype);
    l.z = search_round(l.z, dtype);
    float error = error_of(g, l);
    if (!(error < *least)) return; /* or not a number */
    *least = error;
    *best = l;
}

static void open_group(struct group *g, const float *w, const float *h, int n, int bits) {
    float most = 0;
    g->n = n;
    g->levels = (float)((1 << bits) - 1);
    g->low = g->high = w[0];
    for (int i = 0; h && i < n; i++) most = h[i] > most ? h[i] : most;
    for (int i = 0; i < n; i++) {
        g->low = w[i] < g->low ? w[i] : g->low;
        g->high = w[i] > g->high ? w[i] : g->high;
        g->w[i] = w[i];
        g->h[i] = h && most > 0 ? h[i] / most : 1;
    }
}

/* The line from one end of the range to the other, of so much of it. */
static struct line range(const struct group *g, float part) {
    float middle = g->low / 2 + g->high / 2, half = (g->high - middle) * part;
    return (struct line){2 * half / g->levels, middle - half};
}

static struct line plain(const float *w, int n, int bits, enum dtype dtype) {
    unsigned char codes[MAX_CODE_BYTES], s[4], z[4];
    affine_encode(w, (size_t)n, bits, n, dtype, codes, s, z);
    return (struct line){affine_load(s, 0, dtype), affine_load(z, 0, dtype)};
}

void search_group(const float *w, const float *h, int group, int bits, enum dtype dtype, float *s,
                  float *z) {
    static const float parts[] = {1, 0.94f, 0.88f, 0.82f, 0.76f, 0.7f, 0.62f, 0.54f};
    int tries = bits > 4 ? 3 : bits > 2 ? 6 : 8;
    struct group g;
    struct line best = plain(w, group, bits, dtype);
    open_group(&g, w, h, group, bits);
    float least = error_of(&g, best);
    for (int t = 0; t < tries && isfinite(g.high - g.low); t++) {
        struct line l = range(&g, parts[t]);
        for (int i = 0; i < ROUNDS; i++) l = regress(&g, l);
        consider(&g, l, dtype, &best, &least);
    }
    *s = best.s;
    *z = best.z;
}

void search_encode(const float *row, const float *h, size_t cols, int bits, int group,
                   enum dtype dtype, unsigned char *codes, unsigned char *scales,
                   unsigned char *offsets) {
    float levels = (float)((1 << bits) - 1);
    for (size_t g = 0, begin = 0; begin < cols; g++, begin += (size_t)group) {
        unsigned char q[MAX_GROUP];
        float s, z;
        search_group(row + begin, h ? h + begin : NULL, group, bits, dtype, &s, &z);
        float inv = inverse(s);
        for (int i = 0; i < group; i++) {
            q[i] = (unsigned char)nearest((row[begin + (size_t)i] - z) * inv, levels);
        }
        affine_store(q, (size_t)group, bits, codes + affine_code_bytes(begin, bits));
        affine_store_value(scales, g, dtype, s);
        affine_store_value(offsets, g, dtype, z);
    }
}
