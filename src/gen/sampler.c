#include "gen/sampler.h"

#include <math.h>
#include <stdlib.h>

/* --- order ---------------------------------------------------------------------------------- */

static bool before(const struct candidate *a, const struct candidate *b) {
    return a->logit != b->logit ? a->logit > b->logit : a->id < b->id;
}

static int compare(const void *a, const void *b) {
    return before(a, b) ? -1 : before(b, a);
}

static void sort(struct sampler *s) {
    if (!s->sorted) qsort(s->candidates, s->count, sizeof *s->candidates, compare);
    s->sorted = true;
}

static void swap(struct candidate *a, struct candidate *b) {
    struct candidate t = *a;
    *a = *b;
    *b = t;
}

/* A heap of n candidates whose root is the worst of them. */
static void sift_down(struct candidate *heap, size_t n, size_t i) {
    for (;;) {
        size_t worst = i, left = 2 * i + 1;
        for (size_t child = left; child < left + 2 && child < n; child++) {
            if (before(&heap[worst], &heap[child])) worst = child;
        }
        if (worst == i) return;
        swap(&heap[i], &heap[worst]);
        i = worst;
    }
}

/* The k best, sorted, without sorting the rest. */
static void keep_best(struct sampler *s, size_t k) {
    struct candidate *c = s->candidates;
    if (k < s->count) {
        for (size_t i = k / 2; i-- > 0;) sift_down(c, k, i);
        for (size_t i = k; i < s->count; i++) {
            if (!before(&c[i], &c[0])) continue;
            c[0] = c[i];
            sift_down(c, k, 0);
        }
        s->count = k;
        s->sorted = false;
    }
    sort(s);
}

/* Fills p from the logits of the candidates still in. */
static void softmax(struct sampler *s) {
    float largest = -INFINITY;
    double sum = 0;
    for (size_t i = 0; i < s->count; i++) largest = fmaxf(largest, s->candidates[i].logit);
    for (size_t i = 0; i < s->count; i++) {
        s->candidates[i].p = expf(s->candidates[i].logit - largest);
        sum += s->candidates[i].p;
    }
    for (size_t i = 0; i < s->count; i++) s->candidates[i].p = (float)(s->candidates[i].p / sum);
}

/* How many candidates, in their order, it takes to make up `mass`; at least one. */
static size_t count_mass(const struct sampler *s, float mass) {
    double sum = 0;
    for (size_t i = 0; i < s->count; i++) {
        sum += s->candidates[i].p;
        if (sum >= mass) return i + 1;
    }
    return s->count;
}

/* --- stages --------------------------------------------------------------------------------- */

static void bias(struct sampler *s) {
    for (size_t i = 0; i < s->options.bias_count; i++) {
        s->candidates[s->options.bias[i].id].logit += s->options.bias[i].value;
    }
}

static void penalties(struct sampler *s) {
    const struct sampler_options *o = &s->options;
    for (size_t i = 0; i < s->count; i++) {
        struct candidate *c = &s->candidates[i];
        float times = (float)s->times[c->id];
        if (times == 0) continue;
        c->logit = c->logit > 0 ? c->logit / o->repeat_penalty : c->logit * o->repeat_penalty;
        c->logit -= times * o->frequency_penalty + o->presence_penalty;
    }
}

static void top_k(struct sampler *s) {
    if (s->options.top_k > 0) keep_best(s, (size_t)s->options.top_k);
}

static int compare_surprise(const void *a, const void *b) {
    const struct candidate *x = a, *y = b;
    if (x->p != y->p) return x->p < y->p ? -1 : 1;
    return x->id < y->id ? -1 : x->id > y->id;
}

/* Locally typical sampling (Meister et al., 2022): nearest to the entropy first. p holds the
 * distance while sorting. */
static void typical(struct sampler *s) {
    if (s->options.typical >= 1) return;
    double entropy = 0;
    softmax(s);
    for (size_t i = 0; i < s->count; i++) {
        float p = s->candidates[i].p;
        if (p > 0) entropy -= p * log(p);
    }
    for (size_t i = 0; i < s->count; i++) {
        s->candidates[i].p = (float)fabs(-log(s->candidates[i].p) - entropy);
    }
    qsort(s->candidates, s->count, sizeof *s->candidates, compare_surprise);
    softmax(s);
    s->count = count_mass(s, s->options.typical);
    s->sorted = false;
}

/* Nucleus sampling (Holtzman et al., 2020). */
static void top_p(struct sampler *s) {
    if (s->options.top_p >= 1) return;
    sort(s);
    softmax(s);
    s->count = count_mass(s, s->options.top_p);
}

static void min_p(struct sampler *s) {
    if (s->options.min_p <= 0) return;
    float largest = -INFINITY;
    for (size_t i = 0; i < s->count; i++) largest = fmaxf(largest, s->candidates[i].logit);
    float least = largest + logf(s->options.min_p);
    size_t kept = 0;
    for (size_t i = 0; i < s->count; i++) {
        if (s->candidates[i].logit >= least) s->candidates[kept++] = s->candidates[i];
    }
    s->count = kept;
}

static void temperature(struct sampler *s) {
    float largest = -INFINITY; /* taken off first: a tiny temperature must not overflow */
    for (size_t i = 0; i < s->count; i++) largest = fmaxf(largest, s->candidates[i].logit);
    for (size_t i = 0; i < s->count; i++) {
        s->candidates[i].logit = (s->candidates[i].logit - largest) / s->options.temp;
    }
}

/* The chain: a stage is a function and a line. Edits change logits, also for greedy; filters drop
 * what is unlikely and always leave one. */
typedef void stage(struct sampler *s);
static stage *const edits[] = {bias, penalties, NULL};
static stage *const filters[] = {top_k, typical, top_p, min_p, temperature, NULL};

/* --- choosing ------------------------------------------------------------------------------- */

static bool fill(struct sampler *s, const float *logits, struct error *e) {
    bool finite = false;
    for (size_t i = 0; i < s->vocab; i++) {
        if (isnan(logits[i]) || logits[i] == INFINITY) {
            return fail(e, STATUS_NUMERIC,
                        "logit %zu is %s: the model's weights are damaged or overflow f32", i,
                        isnan(logits[i]) ? "not a number" : "infinite");
        }
        finite |= logits[i] > -INFINITY;
        s->candidates[i] = (struct candidate){.id = (int)i, .logit = logits[i]};
    }
    if (!finite)
        return fail(e, STATUS_NUMERIC, "all logits are minus infinity: no token can be chosen");
    s->count = s->vocab;
    s->sorted = false;
    return true;
}

/* The likeliest candidate's place, or count if every one is forbidden. */
static size_t best(const struct sampler *s) {
    size_t best_at = s->count;
    for (size_t i = 0; i < s->count; i++) {
        if (s->candidates[i].logit == -INFINITY) continue;
        if (best_at == s->count || before(&s->candidates[i], &s->candidates[best_at])) best_at = i;
    }
    return best_at;
}

static size_t draw(struct sampler *s) {
    softmax(s);
    double total = 0, sum = 0;
    for (size_t i = 0; i < s->count; i++) total += s->candidates[i].p;
    double target = random_unit(&s->random) * total;
    for (size_t i = 0; i < s->count; i++) {
        sum += s->candidates[i].p;
        if (sum > target) return i;
    }
    return best(s);
}

bool sampler_pick(struct sampler *s, const float *logits, int *id, struct error *e) {
    if (!fill(s, logits, e)) return false;
    for (stage *const *edit = edits; *edit; edit++) (*edit)(s);
    size_t chosen = best(s);
    if (chosen == s->count)
        return fail(e, STATUS_NUMERIC, "every token is forbidden by a logit bias");
    if (s->options.temp > 0) {
        for (stage *const *filter = filters; *filter; filter++) (*filter)(s);
        chosen = draw(s);
    }
    *id = s->candidates[chosen].id;
    return true;
}

void sampler_accept(struct sampler *s, int id) {
    if (!s->recent_size || id < 0 || (size_t)id >= s->vocab) return;
    int *slot = &s->recent[s->recent_count++ % s->recent_size];
    if (s->recent_count > s->recent_size) s->times[*slot]--;
    *slot = id;
    s->times[id]++;
}

/* --- opening -------------------------------------------------------------------------------- */

static bool check_range(const char *name, double value, double low, double high, struct error *e) {
    if (value >= low && value <= high) return true;
    return fail(e, STATUS_ARGUMENT, "%s is %g, but must be from %g to %g", name, value, low, high);
}

static bool check(const struct sampler_options *o, size_t vocab, struct error *e) {
    if (!check_range("temperature", o->temp, 0, 1e6, e) ||
        !check_range("top-k", o->top_k, 0, 1e9, e) || !check_range("top-p", o->top_p, 0, 1, e) ||
        !check_range("min-p", o->min_p, 0, 1, e) || !check_range("typical", o->typical, 0, 1, e) ||
        !check_range("repeat penalty", o->repeat_penalty, 1e-6, 1e6, e) ||
        !check_range("presence penalty", o->presence_penalty, -1e6, 1e6, e) ||
        !check_range("frequency penalty", o->frequency_penalty, -1e6, 1e6, e) ||
        !check_range("repeat-last-n", o->repeat_last_n, -1, 1e9, e)) {
        return false;
    }
    for (size_t i = 0; i < o->bias_count; i++) {
        if (o->bias[i].id < 0 || (size_t)o->bias[i].id >= vocab) {
            return fail(e, STATUS_ARGUMENT,
                        "logit bias on token %d, which lies outside the vocabulary of %zu",
                        o->bias[i].id, vocab);
        }
        if (isnan(o->bias[i].value) || o->bias[i].value == INFINITY) {
            return fail(e, STATUS_ARGUMENT, "logit bias on token %d must be a number or -inf",
                        o->bias[i].id);
        }
    }
    return true;
}

static void layout(struct sampler *s, struct arena *a) {
    s->candidates = arena_take(a, s->vocab, sizeof *s->candidates);
    s->recent = arena_take(a, s->recent_size, sizeof *s->recent);
    s->times = arena_take(a, s->vocab, sizeof *s->times);
}

bool sampler_open(struct sampler *s, const struct sampler_options *o, size_t vocab, size_t context,
                  struct error *e) {
    *s = (struct sampler){.options = *o, .vocab = vocab};
    if (!check(o, vocab, e)) return false;
    s->recent_size = o->repeat_last_n < 0 || (size_t)o->repeat_last_n > context
                         ? context
                         : (size_t)o->repeat_last_n;
    random_seed(&s->random, o->seed, 0);
    struct arena count = {0};
    layout(s, &count);
    if (!arena_open(&s->arena, count.used, e)) return false;
    layout(s, &s->arena);
    return true;
}

void sampler_close(struct sampler *s) {
    arena_close(&s->arena);
}
