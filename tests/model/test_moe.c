/* Experts: every way to choose them, and what they make of tokens, against the equations of
 * ops/moe.h in double; the same bits for a token alone and in any company, on any threads; and that
 * experts nobody chose are not touched. */
#include "experts.h"

enum { DIM = 64, TOKENS = 40 };

/* --- choosing --------------------------------------------------------------------------------- */

/* Experts that say who they are: the router hands on x as logits, and expert e makes 1 of all and
 * then unit vector e, so that y is the weights. */
struct probe {
    struct moe m;
    float identity[MOST_EXPERTS * MOST_EXPERTS], zero[MOST_EXPERTS], ones[MOST_EXPERTS];
    struct mat router, up[MOST_EXPERTS], down[MOST_EXPERTS];
};

static void make_probe(struct probe *p, struct moe_choice choice, size_t experts) {
    *p = (struct probe){0};
    for (size_t e = 0; e < experts; e++) {
        p->identity[e * experts + e] = p->ones[e] = 1;
        p->up[e] = format_plain(DTYPE_F32, 1, experts, (const unsigned char *)p->zero);
        p->down[e] =
            format_plain(DTYPE_F32, experts, 1, (const unsigned char *)(p->identity + e * experts));
    }
    p->router = format_plain(DTYPE_F32, experts, experts, (const unsigned char *)p->identity);
    p->m = (struct moe){.choice = choice,
                        .activation = ACTIVATION_RELU,
                        .experts = experts,
                        .router = &p->router,
                        .expert = {.up = p->up, .down = p->down, .up_bias = p->ones}};
}

static const struct {
    const char *name;
    size_t experts;
    bool corrected;
    struct moe_choice choice;
} rules[] = {
    {"softmax, renormalized", 8, 0, {MOE_SOFTMAX, 2, .renormalize = true, .scale = 1}},
    {"softmax", 64, 0, {MOE_SOFTMAX, 8, .scale = 1}},
    {"the best one", 16, 0, {MOE_SOFTMAX, 1, .scale = 1}},
    {"softmax, corrected", 16, 1, {MOE_SOFTMAX, 3, .scale = 1}},
    {"logits", 32, 0, {MOE_LOGIT, 4, .scale = 1}},
    {"logits, renormalized", 32, 1, {MOE_LOGIT, 4, .renormalize = true, .scale = 0.5f}},
    {"all", 12, 0, {MOE_LOGIT, 12, .scale = 1}},
    {"groups by the best", 64, 0, {MOE_SOFTMAX, 6, 8, 3, 1, .scale = 16}},
    {"groups by two", 64, 1, {MOE_SIGMOID, 8, 8, 4, 2, .renormalize = true, .scale = 2.5f}},
    {"all of the groups", 16, 0, {MOE_SIGMOID, 4, 8, 2, 2, .renormalize = true, .scale = 1}},
    {"one group", 16, 1, {MOE_SIGMOID, 4, 1, 1, 2, .renormalize = true, .scale = 1}},
    {"sigmoid", 16, 0, {MOE_SIGMOID, 4, .scale = 3}},
};
enum { RULES = sizeof rules / sizeof *rules };

/* Logits of moderate size; then some that are equal, all equal, very small or far apart. */
static float *make_logits(size_t experts) {
    float *x = fixture_values(TOKENS * experts, 3);
    for (size_t i = 0; i < 8 * experts; i++) {
        size_t t = i / experts;
        if (t < 4) x[i] = (float)fixture_below(t + 1);
        if (t == 4) x[i] = -50 + x[i];
        if (t == 5) x[i] *= 25;
        if (t == 6) x[i] = -(float)(i % experts);
        if (t == 7) x[i] = (float)(i % experts) * 0.25f;
    }
    return x;
}

static void check_rule(int r, const char *level, int threads) {
    static struct probe p;
    size_t experts = rules[r].experts, close = 0;
    float *correction = fixture_values(experts, 0.3f), *x = make_logits(experts);
    make_probe(&p, rules[r].choice, experts);
    if (rules[r].corrected) p.m.correction = correction;
    struct moe_scratch s = experts_open_scratch(&p.m, experts, 1, TOKENS);
    struct fixture_backend f;
    float *y = fixture_nans(TOKENS * experts);
    fixture_open_linear(&f, threads, level, experts, TOKENS);
    moe(&f.b, &p.m, &s, y, (struct input){.x = x}, TOKENS);
    for (size_t t = 0; t < TOKENS; t++) {
        double logit[MOST_EXPERTS], want[MOST_EXPERTS];
        for (size_t e = 0; e < experts; e++) logit[e] = x[t * experts + e];
        if (!experts_weigh(&p.m, logit, want)) {
            close++;
            continue;
        }
        for (size_t e = 0; e < experts; e++) {
            float got = y[t * experts + e];
            CHECK_MSG(want[e] != 0 ? fabs(got - want[e]) <= 1e-5 * want[e] + 1e-36 : got == 0,
                      "%s, %s: token %zu, expert %zu weighs %g, not %g", rules[r].name, level, t, e,
                      got, want[e]);
        }
    }
    CHECK_MSG(close <= TOKENS / 8 && isnan(y[TOKENS * experts]), "%s: %zu close", rules[r].name,
              close);
    fixture_close(&f);
    experts_close_scratch(&s);
    free(correction);
    free(x);
    free(y);
}

static void test_choice(void) {
    const char *name;
    for (int level = 0; (name = fixture_next_level(&level)) != NULL;) {
        for (int r = 0; r < RULES; r++) check_rule(r, name, 1 + r % 3);
    }
}

/* --- a whole block ---------------------------------------------------------------------------- */

/* One with matrices of its own; what is not asked for is left out. */
struct block {
    struct moe m;
    size_t hidden, shared;
    struct matrix router, shared_router, gate[16], up[16], down[16]; /* [experts], then shared */
    struct mat gates[16], ups[16], downs[16];
    float *biases[6];
};

typedef struct matrix make_fn(size_t which, size_t rows, size_t cols);

static struct matrix make_f16(size_t which, size_t rows, size_t cols) {
    return matrix_plain(DTYPE_F16, rows, cols, which % 2);
}

static struct matrix make_codes(size_t which, size_t rows, size_t cols) {
    (void)which;
    return matrix_affine(4, 32, DTYPE_F16, rows, cols);
}

static struct matrix make_transposed(size_t which, size_t rows, size_t cols) {
    return matrix_transposed(DTYPE_BF16, rows, cols, rows + which);
}

static struct matrix make_mixed(size_t which, size_t rows, size_t cols) {
    if (which % 4 == 0) return matrix_affine(4, 32, DTYPE_F16, rows, cols);
    if (which % 4 == 1) return matrix_affine(6, 32, DTYPE_F32, rows, cols);
    return which % 4 == 2 ? make_transposed(which, rows, cols) : make_f16(which, rows, cols);
}

static void open_block(struct block *k, make_fn *make, struct moe_choice choice, size_t experts,
                       bool gated, bool biased, int shared) {
    *k = (struct block){.hidden = 96, .shared = shared ? 160 : 0};
    k->router = make(0, experts, DIM);
    k->m = (struct moe){.choice = choice, .experts = experts, .router = &k->router.mat};
    for (size_t e = 0; e < experts + (shared > 0); e++) {
        size_t hidden = e < experts ? k->hidden : k->shared;
        k->gate[e] = make(e, hidden, DIM);
        k->up[e] = make(e, hidden, DIM);
        k->down[e] = make(e, DIM, hidden);
        k->gates[e] = k->gate[e].mat;
        k->ups[e] = k->up[e].mat;
        k->downs[e] = k->down[e].mat;
    }
    for (int i = 0; i < 6; i++) k->biases[i] = fixture_values((experts + 2) * (96 + DIM), 0.4f);
    k->m.expert = (struct moe_ffn){gated ? k->gates : NULL, k->ups, k->downs, NULL, NULL, NULL};
    if (shared) {
        k->m.shared = (struct moe_ffn){gated ? k->gates + experts : NULL,
                                       k->ups + experts,
                                       k->downs + experts,
                                       NULL,
                                       NULL,
                                       NULL};
    }
    if (biased) {
        k->m.router_bias = k->biases[0];
        k->m.correction = k->biases[1];
        if (gated) k->m.expert.gate_bias = k->biases[2];
        k->m.expert.up_bias = k->biases[3];
        k->m.expert.down_bias = k->m.shared.down_bias = k->biases[4];
        k->m.shared.up_bias = k->biases[5];
    }
    k->shared_router = make(1, 1, DIM);
    if (shared == 2) k->m.shared_router = &k->shared_router.mat;
}

static void close_block(struct block *k) {
    for (size_t e = 0; e < 16; e++) {
        matrix_drop(&k->gate[e]);
        matrix_drop(&k->up[e]);
        matrix_drop(&k->down[e]);
    }
    matrix_drop(&k->router);
    matrix_drop(&k->shared_router);
    for (int i = 0; i < 6; i++) free(k->biases[i]);
}

/* --- its equations in double ------------------------------------------------------------------ */

static double dot(const struct matrix *w, size_t row, const double *x) {
    double sum = 0;
    for (size_t i = 0; i < w->mat.cols; i++) sum += w->value[row * w->mat.cols + i] * x[i];
    return sum;
}

static double activate(enum activation a, double x, double up) {
    double u = sqrt(2 / acos(-1)) * (x + 0.044715 * x * x * x), g = fmin(x, 7);
    switch (a) {
    case ACTIVATION_SILU: return x / (1 + exp(-x)) * up;
    case ACTIVATION_GELU: return x / 2 * (1 + erf(x / sqrt(2))) * up;
    case ACTIVATION_GELU_TANH: return x / 2 * (1 + tanh(u)) * up;
    case ACTIVATION_RELU: return fmax(x, 0) * up;
    case ACTIVATION_RELU2: return fmax(x, 0) * fmax(x, 0) * up;
    default: return (fmax(fmin(up, 7), -7) + 1) * g / (1 + exp(-1.702 * g));
    }
}

static double bias_at(const float *bias, size_t i) {
    return bias ? bias[i] : 0;
}

/* y += weight * block number e of x, whose biases begin at number `own`; magnitude += what goes
 * into the last sum. */
static void add_ffn(const struct block *k, const struct moe_ffn *f, size_t e, size_t own,
                    const double *x, double weight, double *y, double *magnitude) {
    size_t hidden = k->up[e].mat.rows;
    double h[160];
    for (size_t i = 0; i < hidden; i++) {
        double up = dot(&k->up[e], i, x) + bias_at(f->up_bias, own * hidden + i);
        double gate = dot(&k->gate[e], i, x) + bias_at(f->gate_bias, own * hidden + i);
        h[i] = f->gate ? activate(k->m.activation, gate, up) : activate(k->m.activation, up, 1);
    }
    for (size_t i = 0; i < DIM; i++) {
        double size = fabs(bias_at(f->down_bias, own * DIM + i));
        for (size_t c = 0; c < hidden; c++) size += fabs(k->down[e].value[i * hidden + c] * h[c]);
        y[i] += weight * (dot(&k->down[e], i, h) + bias_at(f->down_bias, own * DIM + i));
        magnitude[i] += weight * size;
    }
}

/* False if the choice was too close to tell. */
static bool compute(const struct block *k, const float *token, double *y, double *magnitude) {
    double x[DIM], logit[MOST_EXPERTS], weight[MOST_EXPERTS];
    for (size_t i = 0; i < DIM; i++) x[i] = token[i], y[i] = magnitude[i] = 0;
    for (size_t e = 0; e < k->m.experts; e++) {
        logit[e] = dot(&k->router, e, x) + bias_at(k->m.router_bias, e);
    }
    if (!experts_weigh(&k->m, logit, weight)) return false;
    for (size_t e = 0; e < k->m.experts; e++) {
        double in[DIM], by_input = k->m.choice.weigh_inputs ? weight[e] : 1;
        for (size_t i = 0; i < DIM; i++) in[i] = by_input * x[i];
        if (weight[e] != 0) add_ffn(k, &k->m.expert, e, e, in, weight[e] / by_input, y, magnitude);
    }
    if (!k->shared) return true;
    double share = k->m.shared_router ? 1 / (1 + exp(-dot(&k->shared_router, 0, x))) : 1;
    add_ffn(k, &k->m.shared, k->m.experts, 0, x, share, y, magnitude);
    return true;
}

static void check_values(const struct block *k, const char *level, int threads) {
    struct fixture_backend f;
    float *x = fixture_values(TOKENS * DIM, 0.5f), *y = fixture_nans(TOKENS * DIM);
    struct moe_scratch s = experts_open_scratch(&k->m, DIM, 160, TOKENS);
    size_t close = 0;
    fixture_open_both(&f, threads, level, linear_scratch(160, 160, TOKENS, false), 160, TOKENS);
    moe(&f.b, &k->m, &s, y, (struct input){.x = x}, TOKENS);
    for (size_t t = 0; t < TOKENS; t++) {
        double want[DIM], size[DIM];
        if (!compute(k, x + t * DIM, want, size)) {
            close++;
            continue;
        }
        for (size_t i = 0; i < DIM; i++) {
            CHECK_MSG(fabs(y[t * DIM + i] - want[i]) <= 2e-5 * size[i],
                      "%s, activation %d: [%zu, %zu] is %g, not %g of %g", level,
                      (int)k->m.activation, t, i, y[t * DIM + i], want[i], size[i]);
        }
    }
    CHECK_MSG(close <= TOKENS / 8 && isnan(y[TOKENS * DIM]), "%zu close", close);
    fixture_close(&f);
    experts_close_scratch(&s);
    free(x);
    free(y);
}

static const struct moe_choice choices[] = {
    {MOE_SOFTMAX, 2, .renormalize = true, .scale = 1},
    {MOE_SIGMOID, 4, 4, 2, 2, .renormalize = true, .scale = 2.5f},
    {MOE_LOGIT, 4, .scale = 1},
    {MOE_SOFTMAX, 3, 2, 1, 1, .scale = 16},
    {MOE_SIGMOID, 2, .scale = 0.7f, .weigh_inputs = true}};

static void test_values(void) {
    const char *name;
    for (int i = 0; i < 14; i++) { /* the last rule with the first activation alone */
        struct block k;
        bool gated = i % 2 == 0 || i / 2 == ACTIVATION_CLAMPED;
        open_block(&k, i == 4 ? make_transposed : make_f16, choices[i < 12 ? i % 4 : 4], 12, gated,
                   i % 3 > 0, i % 3);
        k.m.activation = i < 12 ? (enum activation)(i / 2) : ACTIVATION_SILU;
        for (int level = 0; (name = fixture_next_level(&level)) != NULL;) {
            check_values(&k, name, 1 + i % 4);
        }
        close_block(&k);
    }
}

/* --- bits ------------------------------------------------------------------------------------- */

struct laid_out {
    struct fixture_backend f;
    struct arena arena;
    struct moe_scratch s;
};

static void lay_out(struct laid_out *l, const struct block *k, const char *level, int threads,
                    size_t n) {
    struct arena count = {0};
    struct error e;
    fixture_open_both(&l->f, threads, level, linear_scratch(160, 160, n, false), 160,
                      n > k->m.choice.top_k ? n : k->m.choice.top_k);
    moe_layout(&l->s, &count, &k->m.choice, k->m.experts, DIM, 160, n);
    if (!arena_open(&l->arena, count.used, &e)) exit(1);
    moe_layout(&l->s, &l->arena, &k->m.choice, k->m.experts, DIM, 160, n);
    CHECK(l->arena.used == count.used);
}

static void put_away(struct laid_out *l) {
    arena_close(&l->arena);
    fixture_close(&l->f);
}

/* All tokens in batches of these sizes, in turn; malloc'd. */
static float *in_batches(const struct block *k, const char *level, int threads, const float *x,
                         const size_t *sizes) {
    float *y = fixture_nans(TOKENS * DIM);
    for (size_t from = 0, i = 0, n; from < TOKENS; from += n) {
        struct laid_out l;
        n = sizes[i] < TOKENS - from ? sizes[i] : TOKENS - from;
        i = sizes[i + 1] ? i + 1 : 0;
        lay_out(&l, k, level, threads, n);
        moe(&l.f.b, &k->m, &l.s, y + from * DIM, (struct input){.x = x + from * DIM}, n);
        put_away(&l);
    }
    CHECK(isnan(y[TOKENS * DIM]));
    return y;
}

static const size_t one[] = {1, 0}, all[] = {TOKENS, 0}, uneven[] = {2, 1, 13, 3, 4, 1, 9, 0};
static const size_t *const cuts[] = {all, one, uneven};

static void check_bits(const struct block *k, const char *level, const char *what) {
    float *x = fixture_values(TOKENS * DIM, 0.5f), *first = NULL;
    for (int i = 0; i < 12; i++) {
        float *y = in_batches(k, level, 1 + i % 4, x, cuts[i / 4]);
        if (!first) first = y;
        CHECK_MSG(fixture_same(y, first, TOKENS * DIM), "%s, %s: cut %d, %d threads: other bits",
                  what, level, i / 4, 1 + i % 4);
        if (y != first) free(y);
    }
    free(x);
    free(first);
}

static void test_bits(void) {
    static const struct {
        const char *what;
        make_fn *make;
    } kinds[] = {{"codes", make_codes},
                 {"f16", make_f16},
                 {"transposed", make_transposed},
                 {"mixed", make_mixed},
                 {"weighed inputs", make_codes}};
    const char *name;
    for (int i = 0; i < 5; i++) {
        struct block k;
        open_block(&k, kinds[i].make, choices[i], 12, i != 1, i % 2, i % 3);
        for (int level = 0; (name = fixture_next_level(&level)) != NULL;) {
            check_bits(&k, name, kinds[i].what);
        }
        close_block(&k);
    }
}

/* A token of NaN or infinity leaves the others alone. */
static void test_tokens_are_apart(void) {
    struct block k;
    const char *name;
    float *x = fixture_values(TOKENS * DIM, 0.5f);
    open_block(&k, make_codes, choices[1], 12, true, true, 2);
    for (int level = 0; (name = fixture_next_level(&level)) != NULL;) {
        float *y = in_batches(&k, name, 2, x, all), *spoilt = fixture_nans(TOKENS * DIM);
        memcpy(spoilt, x, TOKENS * DIM * sizeof *x);
        for (size_t i = 0; i < DIM; i++) spoilt[7 * DIM + i] = NAN;
        spoilt[20 * DIM + 3] = INFINITY;
        float *got = in_batches(&k, name, 2, spoilt, all);
        for (size_t t = 0; t < TOKENS; t++) {
            bool odd = t == 7 || t == 20;
            CHECK_MSG(odd ? !isfinite(got[t * DIM]) : fixture_same(got + t * DIM, y + t * DIM, DIM),
                      "%s: token %zu", name, t);
        }
        free(y);
        free(spoilt);
        free(got);
    }
    free(x);
    close_block(&k);
}

/* Experts 3 to 7 are never chosen: their weights are not there. */
static void test_untouched(void) {
    static const struct moe_choice choice = {MOE_LOGIT, 4, .scale = 1};
    struct block k;
    const char *name;
    float bias[12] = {0};
    open_block(&k, make_codes, choice, 12, true, false, 0);
    k.m.router_bias = bias;
    for (size_t e = 3; e < 8; e++) {
        bias[e] = -1e6f;
        for (int p = 0; p < MAT_PLANES; p++) {
            k.gates[e].plane[p] = k.ups[e].plane[p] = k.downs[e].plane[p] = NULL;
        }
    }
    for (int level = 0; (name = fixture_next_level(&level)) != NULL;) {
        check_bits(&k, name, "untouched");
    }
    close_block(&k);
}

int main(void) {
    check_run("choice", test_choice);
    check_run("values", test_values);
    check_run("bits", test_bits);
    check_run("tokens are apart", test_tokens_are_apart);
    check_run("experts that are not chosen", test_untouched);
    return check_done();
}
