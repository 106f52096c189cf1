/* The sampler against llama.cpp's stages written out plainly: everything sorted, in double. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "gen/sampler.h"

enum { MOST = 2000, HISTORY = 200 };

static const struct sampler_options off = {.temp = 1,
                                           .top_p = 1,
                                           .typical = 1,
                                           .repeat_penalty = 1};

/* --- the stages ------------------------------------------------------------------------------- */

struct entry {
    int id;
    double logit, p, surprise;
};

struct chain {
    struct entry e[MOST];
    size_t count;
    bool close; /* a decision hung on less than what f32 can tell */
};

static bool nearly(double a, double b) {
    return a != b && fabs(a - b) < 1e-5 * (1 + fabs(a));
}

static int by_logit(const void *a, const void *b) {
    const struct entry *x = a, *y = b;
    if (x->logit != y->logit) return x->logit > y->logit ? -1 : 1;
    return x->id - y->id;
}

static int by_surprise(const void *a, const void *b) {
    const struct entry *x = a, *y = b;
    if (x->surprise != y->surprise) return x->surprise < y->surprise ? -1 : 1;
    return x->id - y->id;
}

static void normalize(struct chain *c) {
    double sum = 0, most = -INFINITY;
    for (size_t i = 0; i < c->count; i++) most = fmax(most, c->e[i].logit);
    for (size_t i = 0; i < c->count; i++) sum += exp(c->e[i].logit - most);
    for (size_t i = 0; i < c->count; i++) c->e[i].p = exp(c->e[i].logit - most) / sum;
}

/* Keeps the front of the list that makes up mass. */
static void cut(struct chain *c, double mass, double (*key)(const struct entry *)) {
    double sum = 0;
    size_t n = 0;
    while (n < c->count && (n == 0 || sum < mass)) {
        c->close |= n > 0 && fabs(sum - mass) < 1e-5;
        sum += c->e[n++].p;
    }
    c->close |= fabs(sum - mass) < 1e-5;
    c->close |= n < c->count && nearly(key(&c->e[n - 1]), key(&c->e[n]));
    c->count = n;
}

static double logit_of(const struct entry *e) {
    return e->logit;
}

static double surprise_of(const struct entry *e) {
    return e->surprise;
}

static void edit(struct chain *c, const struct sampler_options *o, const int *recent, size_t n) {
    for (size_t i = 0; i < o->bias_count; i++) c->e[o->bias[i].id].logit += o->bias[i].value;
    for (size_t i = 0; i < c->count; i++) {
        int times = 0;
        for (size_t k = 0; k < n; k++) times += recent[k] == c->e[i].id;
        if (times == 0) continue;
        if (c->e[i].logit <= 0)
            c->e[i].logit *= o->repeat_penalty;
        else
            c->e[i].logit /= o->repeat_penalty;
        c->e[i].logit -= (double)times * o->frequency_penalty + o->presence_penalty;
    }
}

static void keep_typical(struct chain *c, double mass) {
    double entropy = 0;
    normalize(c);
    for (size_t i = 0; i < c->count; i++) {
        if (c->e[i].p > 0) entropy -= c->e[i].p * log(c->e[i].p);
    }
    for (size_t i = 0; i < c->count; i++) c->e[i].surprise = fabs(-log(c->e[i].p) - entropy);
    qsort(c->e, c->count, sizeof *c->e, by_surprise);
    for (size_t i = 0; i + 1 < c->count; i++) { /* on both sides of the entropy, equally far */
        c->close |= nearly(c->e[i].surprise, c->e[i + 1].surprise);
    }
    cut(c, mass, surprise_of);
}

static void keep_min_p(struct chain *c, double p) {
    size_t kept = 0;
    qsort(c->e, c->count, sizeof *c->e, by_logit);
    double least = c->e[0].logit + log(p);
    for (size_t i = 0; i < c->count; i++) {
        c->close |= nearly(c->e[i].logit, least);
        if (c->e[i].logit >= least) c->e[kept++] = c->e[i];
    }
    c->count = kept;
}

/* What is left, with its probabilities, likeliest first. */
static void run_chain(struct chain *c, const struct sampler_options *o, const float *logits,
                      size_t vocab, const int *recent, size_t n) {
    c->count = vocab;
    c->close = false;
    for (size_t i = 0; i < vocab; i++) c->e[i] = (struct entry){.id = (int)i, .logit = logits[i]};
    edit(c, o, recent, n);
    size_t k = o->temp == 0 ? 1 : o->top_k > 0 && (size_t)o->top_k < vocab ? (size_t)o->top_k : 0;
    if (k) {
        qsort(c->e, c->count, sizeof *c->e, by_logit);
        c->close |= k < vocab && nearly(c->e[k - 1].logit, c->e[k].logit);
        c->count = k;
    }
    if (o->temp > 0 && o->typical < 1) keep_typical(c, o->typical);
    if (o->temp > 0 && o->top_p < 1) {
        qsort(c->e, c->count, sizeof *c->e, by_logit);
        normalize(c);
        cut(c, o->top_p, logit_of);
    }
    if (o->temp > 0 && o->min_p > 0) keep_min_p(c, o->min_p);
    for (size_t i = 0; o->temp > 0 && i < c->count; i++) c->e[i].logit /= o->temp;
    normalize(c);
    qsort(c->e, c->count, sizeof *c->e, by_logit);
}

/* --- random chains ---------------------------------------------------------------------------- */

static struct random dice;

static double unit(void) {
    return random_unit(&dice);
}

static int below(int n) {
    return (int)(unit() * n);
}

static float one_of(const float *values, int n) {
    return values[below(n)];
}

static void make_options(struct sampler_options *o, struct logit_bias bias[8], size_t vocab) {
    static const float temps[] = {0, 0.1f, 0.7f, 1, 1.5f, 5}, penalties[] = {1, 1.1f, 2, 0.5f},
                       extra[] = {0, 0, 0.3f, -0.5f, 3};
    static const int last[] = {0, 1, 5, 64, 1000, -1};
    *o = (struct sampler_options){.seed = (uint64_t)below(1000), .top_p = 1, .typical = 1};
    o->temp = one_of(temps, 6);
    if (below(2)) o->top_k = 1 + below((int)vocab * 3 / 2 + 1);
    if (below(2)) o->top_p = (float)unit();
    if (below(2)) o->min_p = (float)(unit() * unit());
    if (below(3) == 0) o->typical = (float)unit();
    o->repeat_penalty = one_of(penalties, 4);
    o->frequency_penalty = one_of(extra, 5);
    o->presence_penalty = one_of(extra, 5);
    o->repeat_last_n = last[below(6)];
    o->bias = bias;
    o->bias_count = below(2) ? (size_t)below(9) : 0;
    for (size_t i = 0; i < o->bias_count; i++) {
        bias[i].id = below((int)vocab);
        bias[i].value = below(4) && i > 0 ? (float)(unit() * 6 - 3) : -INFINITY;
        if (vocab == 1) bias[i].value = 1;
    }
}

static void make_logits(float *logits, size_t vocab) {
    int kind = below(3); /* 1: many are equal; 2: some are minus infinity */
    for (size_t i = 0; i < vocab; i++) {
        double x = (unit() + unit() + unit() - 1.5) * 6;
        logits[i] = kind == 1 ? (float)floor(x) : (float)x;
        if (kind == 2 && below(4) == 0) logits[i] = -INFINITY;
    }
    logits[below((int)vocab)] = 1;
}

/* The sampler's own list after a pick against the chain's. */
static void compare(const struct sampler *s, const struct chain *c, int trial) {
    static struct entry want[MOST];
    for (size_t i = 0; i < s->vocab; i++) want[i] = (struct entry){.id = -1};
    for (size_t i = 0; i < c->count; i++) want[c->e[i].id] = c->e[i];
    size_t kept = 0;
    for (size_t i = 0; i < s->count; i++) {
        const struct candidate *got = &s->candidates[i];
        const struct entry *w = &want[got->id];
        kept += got->p > 0;
        CHECK_MSG(w->id == got->id || got->p == 0, "trial %d: %d should be gone", trial, got->id);
        CHECK_MSG(fabs(got->p - w->p) <= 3e-4 * w->p + 1e-9, "trial %d: %d has %g, not %g", trial,
                  got->id, got->p, w->p);
    }
    size_t likely = 0;
    for (size_t i = 0; i < c->count; i++) likely += (float)c->e[i].p > 1e-30;
    CHECK_MSG(kept >= likely, "trial %d: %zu are left, not %zu", trial, kept, likely);
}

static bool is_left(const struct chain *c, int id) {
    for (size_t i = 0; i < c->count; i++) {
        if (c->e[i].id == id && c->e[i].p > 0) return true;
    }
    return false;
}

/* One pick after a random text; false if the chain is too close to call. */
static bool try_once(int trial, size_t vocab) {
    static struct chain c;
    static float logits[MOST];
    static const size_t contexts[] = {1, 8, 50, 1000};
    int history[HISTORY], count = 0, length = below(HISTORY), id = -1;
    size_t context = contexts[below(4)];
    struct logit_bias bias[8];
    struct sampler_options o;
    struct sampler s;
    struct error e;
    make_options(&o, bias, vocab);
    make_logits(logits, vocab);
    CHECK(sampler_open(&s, &o, vocab, context, &e));
    for (int i = 0; i < length; i++) {
        int token = below((int)(vocab < 12 ? vocab : 12) + 3) - 1; /* some no sampler knows */
        sampler_accept(&s, token);
        if (token >= 0 && (size_t)token < vocab) history[count++] = token;
    }
    size_t window = o.repeat_last_n < 0 ? context : (size_t)o.repeat_last_n;
    if (window > context) window = context;
    if (window > (size_t)count) window = (size_t)count;
    run_chain(&c, &o, logits, vocab, history + count - window, window);
    bool forbidden = c.e[0].logit == -INFINITY;
    CHECK(sampler_pick(&s, logits, &id, &e) == !forbidden);
    if (!forbidden && !c.close) {
        CHECK_MSG(is_left(&c, id), "trial %d: %d was picked", trial, id);
        if (o.temp > 0) compare(&s, &c, trial);
    }
    sampler_close(&s);
    return !c.close;
}

static void test_random_chains(void) {
    static const size_t vocabs[] = {1, 2, 3, 10, 60, 400, 2000};
    int decided = 0, trials = 4000;
    random_seed(&dice, 11, 0);
    for (int i = 0; i < trials && check_ok; i++) {
        size_t v = (size_t)below(i % 10 == 0 ? 7 : 5);
        decided += try_once(i, vocabs[v]);
    }
    CHECK_MSG(!check_ok || decided > trials * 9 / 10, "only %d of %d decided", decided, trials);
}

/* --- worked examples -------------------------------------------------------------------------- */

/* Probabilities in, what is left out: want[i] is 0 for a token that is gone. */
static void check_left(int line, const struct sampler_options *o, const int *recent, int n,
                       const double p[4], const double want[4]) {
    struct sampler s;
    struct error e;
    float logits[4];
    double got[4] = {0};
    int id;
    for (int i = 0; i < 4; i++) logits[i] = logf((float)p[i]);
    CHECK(sampler_open(&s, o, 4, 100, &e));
    for (int i = 0; i < n; i++) sampler_accept(&s, recent[i]);
    CHECK(sampler_pick(&s, logits, &id, &e));
    for (size_t i = 0; i < s.count; i++) got[s.candidates[i].id] = s.candidates[i].p;
    for (int i = 0; i < 4; i++) {
        CHECK_MSG(fabs(got[i] - want[i]) < 1e-6, "line %d: token %d has %g, not %g", line, i,
                  got[i], want[i]);
    }
    sampler_close(&s);
}

#define LIST(...)                                                                                  \
    { __VA_ARGS__ }
#define LEFT(change, w)                                                                            \
    do {                                                                                           \
        struct sampler_options o = off;                                                            \
        change;                                                                                    \
        check_left(__LINE__, &o, recent, recent_count, p, (const double[4])w);                     \
    } while (0)

static void test_filters(void) {
    static const double p[4] = {0.1, 0.2, 0.3, 0.4};
    const int *recent = NULL, recent_count = 0;
    LEFT(o.temp = 1, LIST(0.1, 0.2, 0.3, 0.4));
    LEFT(o.top_k = 1, LIST(0, 0, 0, 1));
    LEFT(o.top_k = 3, LIST(0, 2. / 9, 3. / 9, 4. / 9));
    LEFT(o.top_k = 5, LIST(0.1, 0.2, 0.3, 0.4));
    LEFT(o.top_p = 0, LIST(0, 0, 0, 1));
    LEFT(o.top_p = 0.39f, LIST(0, 0, 0, 1));
    LEFT(o.top_p = 0.41f, LIST(0, 0, 3. / 7, 4. / 7));
    LEFT(o.top_p = 0.71f, LIST(0, 2. / 9, 3. / 9, 4. / 9));
    LEFT(o.top_p = 0.95f, LIST(0.1, 0.2, 0.3, 0.4));
    LEFT(o.min_p = 0.24f, LIST(0.1, 0.2, 0.3, 0.4));
    LEFT(o.min_p = 0.26f, LIST(0, 2. / 9, 3. / 9, 4. / 9));
    LEFT(o.min_p = 0.74f, LIST(0, 0, 3. / 7, 4. / 7));
    LEFT(o.min_p = 1, LIST(0, 0, 0, 1));
    LEFT(o.temp = 0.5f, LIST(1. / 30, 4. / 30, 9. / 30, 16. / 30));
    LEFT(o.temp = 1e-9f, LIST(0, 0, 0, 1));
    LEFT((o.temp = 0.5f, o.top_p = 0.71f), LIST(0, 4. / 29, 9. / 29, 16. / 29)); /* p as before */
}

/* The entropy of p is 1.28: a surprise of 1.20 (0.3) is nearest, then 1.61, 0.92, 2.30. */
static void test_typical(void) {
    static const double p[4] = {0.1, 0.2, 0.3, 0.4};
    const int *recent = NULL, recent_count = 0;
    LEFT(o.typical = 0, LIST(0, 0, 1, 0));
    LEFT(o.typical = 0.29f, LIST(0, 0, 1, 0));
    LEFT(o.typical = 0.31f, LIST(0, 2. / 5, 3. / 5, 0));
    LEFT(o.typical = 0.6f, LIST(0, 2. / 9, 3. / 9, 4. / 9));
    LEFT(o.typical = 0.95f, LIST(0.1, 0.2, 0.3, 0.4));
    LEFT((o.typical = 0.6f, o.top_p = 0.5f), LIST(0, 0, 3. / 7, 4. / 7));
}

static void test_penalties(void) {
    static const double p[4] = {0.25, 0.25, 0.25, 0.25};
    static const int recent[] = {3, 0, 1, 1};
    const int recent_count = 4;
    double e = exp(-1), e2 = exp(-2), e3 = exp(-3);
    LEFT((o.repeat_last_n = -1, o.presence_penalty = 1),
         LIST(e / (1 + 3 * e), e / (1 + 3 * e), 1 / (1 + 3 * e), e / (1 + 3 * e)));
    LEFT((o.repeat_last_n = 4, o.frequency_penalty = 1),
         LIST(e / (1 + 2 * e + e2), e2 / (1 + 2 * e + e2), 1 / (1 + 2 * e + e2),
              e / (1 + 2 * e + e2)));
    LEFT((o.repeat_last_n = 3, o.frequency_penalty = 1),
         LIST(e / (2 + e + e2), e2 / (2 + e + e2), 1 / (2 + e + e2), 1 / (2 + e + e2)));
    LEFT((o.repeat_last_n = 2, o.frequency_penalty = 1, o.presence_penalty = 1),
         LIST(1 / (3 + e3), e3 / (3 + e3), 1 / (3 + e3), 1 / (3 + e3)));
    LEFT((o.repeat_last_n = 0, o.frequency_penalty = 1, o.presence_penalty = 1),
         LIST(0.25, 0.25, 0.25, 0.25));
    /* ln(1/4) * 2 is ln(1/16) */
    LEFT((o.repeat_last_n = 1, o.repeat_penalty = 2), LIST(4. / 13, 1. / 13, 4. / 13, 4. / 13));
}

/* --- choosing --------------------------------------------------------------------------------- */

/* 200,000 picks against the chain's probabilities. */
static void check_frequencies(const char *name, const struct sampler_options *o) {
    enum { VOCAB = 16, PICKS = 200000 };
    static struct chain c;
    float logits[VOCAB];
    int times[VOCAB] = {0}, bins = 0, id;
    struct sampler s;
    struct error e;
    for (int i = 0; i < VOCAB; i++) logits[i] = sinf((float)(i * i)) * 2.5f;
    run_chain(&c, o, logits, VOCAB, NULL, 0);
    CHECK(sampler_open(&s, o, VOCAB, 10, &e));
    for (int i = 0; i < PICKS; i++) {
        CHECK(sampler_pick(&s, logits, &id, &e) && id >= 0 && id < VOCAB);
        times[id]++;
    }
    sampler_close(&s);
    double chi2 = 0;
    int counted = 0;
    for (size_t i = 0; i < c.count; i++) {
        double expected = c.e[i].p * PICKS, off_by = times[c.e[i].id] - expected;
        counted += times[c.e[i].id];
        chi2 += off_by * off_by / expected;
        bins++;
    }
    double free = bins - 1, most = free + 4 * sqrt(2 * free) + 4;
    CHECK_MSG(counted == PICKS, "%s: %d picks of what is gone", name, PICKS - counted);
    CHECK_MSG(bins > 3 && chi2 < most, "%s: chi-square %g over %d tokens", name, chi2, bins);
}

static void test_frequencies(void) {
    struct sampler_options all = off, cut_short = off, defaults = off;
    all.seed = 5;
    cut_short.temp = 1.7f;
    cut_short.top_k = 9;
    cut_short.typical = 0.9f;
    defaults.temp = 0.8f;
    defaults.top_k = 40;
    defaults.top_p = 0.95f;
    defaults.min_p = 0.05f;
    check_frequencies("everything", &all);
    check_frequencies("typical", &cut_short);
    check_frequencies("defaults", &defaults);
}

static void test_ties_go_to_the_lower_id(void) {
    enum { VOCAB = 300 };
    float logits[VOCAB];
    struct sampler s;
    struct error e;
    int id;
    for (int i = 0; i < VOCAB; i++) logits[i] = i % 7 == 4 ? 2.5f : (float)(i % 5) / 2;
    struct sampler_options o = off;
    o.temp = 0;
    CHECK(sampler_open(&s, &o, VOCAB, 10, &e));
    CHECK(sampler_pick(&s, logits, &id, &e) && id == 4);
    sampler_close(&s);
    for (o.temp = 1, o.top_k = 1; o.top_k < 40; o.top_k++) { /* of the 43 that are equally likely */
        CHECK(sampler_open(&s, &o, VOCAB, 10, &e) && sampler_pick(&s, logits, &id, &e));
        CHECK(s.count == (size_t)o.top_k);
        for (size_t i = 0; i < s.count; i++) CHECK(s.candidates[i].id == 4 + 7 * (int)i);
        sampler_close(&s);
    }
}

/* A seed gives one sequence; another gives another. */
static void test_seeds(void) {
    enum { VOCAB = 50, PICKS = 200 };
    float logits[VOCAB] = {0};
    int ids[3][PICKS], differ = 0;
    struct error e;
    for (int run = 0; run < 3; run++) {
        struct sampler_options o = off;
        struct sampler s;
        o.seed = run < 2 ? 1234567890123u : 7;
        CHECK(sampler_open(&s, &o, VOCAB, 10, &e));
        for (int i = 0; i < PICKS; i++) CHECK(sampler_pick(&s, logits, &ids[run][i], &e));
        sampler_close(&s);
    }
    for (int i = 0; i < PICKS; i++) differ += ids[0][i] != ids[2][i];
    CHECK(memcmp(ids[0], ids[1], sizeof ids[0]) == 0 && differ > PICKS / 2);
}

/* --- refusals --------------------------------------------------------------------------------- */

static void check_refused(const struct sampler_options *o, float a, float b, const char *word) {
    struct sampler s;
    struct error e = {0};
    float logits[] = {a, b, a}, sound[] = {1, 2, 3};
    int id = 77;
    CHECK(sampler_open(&s, o, 3, 10, &e));
    CHECK(!sampler_pick(&s, logits, &id, &e) && e.status == STATUS_NUMERIC && id == 77);
    CHECK_MSG(strstr(e.message, word), "'%s' lacks '%s'", e.message, word);
    if (!o->bias_count) CHECK(sampler_pick(&s, sound, &id, &e)); /* and goes on after it */
    sampler_close(&s);
}

static void test_bad_logits(void) {
    static const struct logit_bias all[] = {{0, -INFINITY}, {1, -INFINITY}, {2, -INFINITY}};
    for (int i = 0; i < 2; i++) {
        struct sampler_options o = off, biased = off;
        o.temp = biased.temp = (float)i;
        biased.bias = all;
        biased.bias_count = 3;
        check_refused(&o, 1, NAN, "logit 1 is not a number");
        check_refused(&o, -NAN, 0, "logit 0 is not a number");
        check_refused(&o, 0, INFINITY, "logit 1 is infinite");
        check_refused(&o, -INFINITY, -INFINITY, "minus infinity");
        check_refused(&biased, 1, 2, "forbidden");
    }
}

static void test_bad_options(void) {
#define BAD(change, word)                                                                          \
    do {                                                                                           \
        struct sampler_options o = off;                                                            \
        struct sampler s;                                                                          \
        struct error e = {0};                                                                      \
        change;                                                                                    \
        CHECK(!sampler_open(&s, &o, 10, 10, &e) && e.status == STATUS_ARGUMENT);                   \
        CHECK_MSG(strstr(e.message, word), "'%s' lacks '%s'", e.message, word);                    \
        sampler_close(&s);                                                                         \
    } while (0)
    struct logit_bias bias = {10, 1};
    BAD(o.temp = -1, "temperature");
    BAD(o.temp = NAN, "temperature");
    BAD(o.temp = INFINITY, "temperature");
    BAD(o.top_k = -1, "top-k");
    BAD(o.top_p = 1.1f, "top-p");
    BAD(o.top_p = -0.1f, "top-p");
    BAD(o.min_p = NAN, "min-p");
    BAD(o.typical = 2, "typical");
    BAD(o.repeat_penalty = 0, "repeat penalty");
    BAD(o.presence_penalty = INFINITY, "presence penalty");
    BAD(o.frequency_penalty = NAN, "frequency penalty");
    BAD(o.repeat_last_n = -2, "repeat-last-n");
    BAD((o.bias = &bias, o.bias_count = 1), "token 10");
    BAD((bias.id = -1, o.bias = &bias, o.bias_count = 1), "token -1");
    BAD((bias = (struct logit_bias){1, NAN}, o.bias = &bias, o.bias_count = 1), "token 1");
    BAD((bias = (struct logit_bias){1, INFINITY}, o.bias = &bias, o.bias_count = 1), "token 1");
}

int main(void) {
    check_run("random chains", test_random_chains);
    check_run("filters", test_filters);
    check_run("typical", test_typical);
    check_run("penalties", test_penalties);
    check_run("frequencies", test_frequencies);
    check_run("ties go to the lower id", test_ties_go_to_the_lower_id);
    check_run("seeds", test_seeds);
    check_run("bad logits", test_bad_logits);
    check_run("bad options", test_bad_options);
    return check_done();
}
