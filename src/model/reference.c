#include "model/reference.h"

#include <cjson/cJSON.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/arena.h"

enum { VERSION = 1, IDS = 16, TOP = 10 };

static const char file_name[] = "reference.json";

/* --- running -------------------------------------------------------------------------------- */

static bool run_ids(const struct model *m, const int *ids, size_t n, int threads, const char *level,
                    float *logits, struct error *e) {
    struct run run;
    struct run_options o = {
        .context = n, .batch = n, .threads = threads, .level = level, .kv_type = DTYPE_F32};
    if (!run_open(&run, m, &o, e)) return false;
    bool ok = run_append(&run, ids, n, logits, false, e);
    run_close(&run);
    return ok;
}

/* Logits [vocab] of what follows r->ids, in memory of the arena; all of them finite. */
static bool run_reference(const struct reference *r, const struct model *m, int threads,
                          const char *level, struct arena *a, float **logits, struct error *e) {
    size_t vocab = m->spec.vocab;
    struct arena count = {0};
    arena_take(&count, vocab, sizeof **logits);
    if (!arena_open(a, count.used, e)) return false;
    *logits = arena_take(a, vocab, sizeof **logits);
    if (!run_ids(m, r->ids, (size_t)r->count, threads, level, *logits, e)) return false;
    for (size_t i = 0; i < vocab; i++) {
        if (isfinite((*logits)[i])) continue;
        return fail(e, STATUS_NUMERIC,
                    "%s: logit %zu is not a number: the weights are damaged or overflow f32",
                    m->store.path, i);
    }
    return true;
}

/* --- making one ----------------------------------------------------------------------------- */

/* Tokens that are nothing special, the same for each size of vocabulary (Knuth's MMIX generator).
 */
static void choose_ids(struct reference *r, const struct model *m) {
    size_t context = m->spec.context;
    uint64_t x = 1;
    r->count = context < IDS ? (int)context : IDS;
    for (int i = 0; i < r->count; i++) {
        x = x * 6364136223846793005u + 1442695040888963407u;
        r->ids[i] = (int)((x >> 33) % m->spec.vocab);
    }
}

static double deviation_of(const float *logits, size_t n) {
    double sum = 0, squares = 0;
    for (size_t i = 0; i < n; i++) sum += (double)logits[i];
    for (size_t i = 0; i < n; i++) {
        double d = (double)logits[i] - sum / (double)n;
        squares += d * d;
    }
    return sqrt(squares / (double)n);
}

/* As it is stored: far finer than what is compared. */
static double six_digits(float logit) {
    char text[32];
    snprintf(text, sizeof text, "%.6g", (double)logit);
    return strtod(text, NULL);
}

static bool is_chosen(const struct reference *r, size_t id) {
    for (int i = 0; i < r->top_count; i++) {
        if ((size_t)r->top[i].id == id) return true;
    }
    return false;
}

static void choose_top(struct reference *r, const float *logits, size_t vocab) {
    for (r->top_count = 0; r->top_count < TOP && (size_t)r->top_count < vocab; r->top_count++) {
        size_t best = vocab;
        for (size_t i = 0; i < vocab; i++) {
            bool better = best == vocab || logits[i] > logits[best];
            if (better && !is_chosen(r, i)) best = i;
        }
        r->top[r->top_count] = (struct reference_token){(int)best, six_digits(logits[best])};
    }
}

bool reference_compute(struct reference *r, const struct model *m, int threads, const char *level,
                       struct error *e) {
    struct arena arena = {0};
    float *logits;
    *r = (struct reference){0};
    choose_ids(r, m);
    bool ok = run_reference(r, m, threads, level, &arena, &logits, e);
    if (ok) {
        r->deviation = six_digits((float)deviation_of(logits, m->spec.vocab));
        choose_top(r, logits, m->spec.vocab);
        if (r->deviation == 0)
            ok = fail(e, STATUS_NUMERIC, "%s: all logits are equal: the weights are damaged",
                      m->store.path);
    }
    arena_close(&arena);
    return ok;
}

char *reference_write(const struct reference *r) {
    cJSON *root = cJSON_CreateObject();
    cJSON_AddNumberToObject(root, "nibble_reference", VERSION);
    cJSON_AddItemToObject(root, "ids", cJSON_CreateIntArray(r->ids, r->count));
    cJSON_AddNumberToObject(root, "deviation", r->deviation);
    cJSON *top = cJSON_AddArrayToObject(root, "top");
    for (int i = 0; i < r->top_count; i++) {
        cJSON *token = cJSON_CreateObject();
        cJSON_AddNumberToObject(token, "id", r->top[i].id);
        cJSON_AddNumberToObject(token, "logit", r->top[i].logit);
        cJSON_AddItemToArray(top, token);
    }
    char *text = cJSON_PrintUnformatted(root);
    cJSON_Delete(root);
    return text;
}

/* --- reading one ---------------------------------------------------------------------------- */

static bool read_top(struct reference *r, const struct model *m, const struct config *c,
                     struct error *e) {
    const double most = 1e30, last = (double)m->spec.vocab - 1;
    for (; r->top_count < REFERENCE_MAX_TOP; r->top_count++) {
        char id_name[32], logit_name[32];
        double id = -1, logit = NAN;
        snprintf(id_name, sizeof id_name, "top.%d.id", r->top_count);
        snprintf(logit_name, sizeof logit_name, "top.%d.logit", r->top_count);
        if (!config_number(c, id_name, 0, last, true, &id, e) ||
            !config_number(c, logit_name, -most, most, false, &logit, e)) {
            return false;
        }
        if (id < 0 || isnan(logit)) break;
        r->top[r->top_count] = (struct reference_token){(int)id, logit};
    }
    return true;
}

static bool check_ids(const struct reference *r, const struct model *m, const struct config *c,
                      struct error *e) {
    for (int i = 0; i < r->count; i++) {
        if (r->ids[i] >= 0 && (size_t)r->ids[i] < m->spec.vocab) continue;
        return fail(e, STATUS_MODEL,
                    "%s: token id %d lies outside the vocabulary of %zu; it is the reference of "
                    "another model, remove it",
                    c->where, r->ids[i], m->spec.vocab);
    }
    return true;
}

static bool read_numbers(struct reference *r, const struct model *m, const struct config *c,
                         struct error *e) {
    double version = 0;
    if (!config_find(c, "nibble_reference", NULL)) return true;
    if (!config_number(c, "nibble_reference", VERSION, VERSION, true, &version, e) ||
        !config_ids(c, "ids", r->ids, REFERENCE_MAX_IDS, &r->count, e) ||
        !config_number(c, "deviation", 1e-30, 1e30, false, &r->deviation, e)) {
        return false;
    }
    if (!read_top(r, m, c, e) || !check_ids(r, m, c, e)) return false;
    if (r->count && r->top_count && r->deviation > 0) return true;
    return fail(e, STATUS_MODEL, "%s lacks ids, top or deviation; write it again", c->where);
}

bool reference_read(struct reference *r, const struct model *m, struct error *e) {
    struct span text = store_file(&m->store, file_name);
    struct config c;
    char where[512];
    *r = (struct reference){0};
    if (!text.data) return true;
    store_where(&m->store, file_name, where, sizeof where);
    if (!config_open(&c, text, where, e)) return false;
    bool ok = read_numbers(r, m, &c, e);
    config_close(&c);
    return ok;
}

/* --- comparing ------------------------------------------------------------------------------ */

/* Parts of the deviation. Levels were seen to differ by 2e-6 of it; by up to 0.03 where a last bit
 * decides something, that is how an activation is rounded or which expert is taken. */
static const double exact_part = 1e-3, tipping_part = 0.1;

static void note_tipping(void *arg, const struct weights_tensor *t) {
    *(bool *)arg |= t->of_experts || (t->mat && t->mat->group);
}

double reference_bound(const struct reference *r, const struct model *m) {
    bool tips = false;
    weights_each(&m->weights, &m->spec, &m->store, note_tipping, &tips);
    return r->deviation * (tips ? tipping_part : exact_part);
}

/* How far the logits are from the reference, and the token for which that is. */
static double largest_difference(const struct reference *r, const float *logits, size_t vocab,
                                 size_t *at) {
    double worst = -1, least = INFINITY;
    for (int i = 0; i < r->top_count; i++) {
        double difference = fabs((double)logits[r->top[i].id] - r->top[i].logit);
        if (difference > worst) *at = (size_t)r->top[i].id;
        worst = fmax(worst, difference);
        least = fmin(least, r->top[i].logit);
    }
    for (size_t i = 0; i < vocab; i++) {
        double excess = (double)logits[i] - least;
        if (excess <= worst || is_chosen(r, i)) continue;
        worst = excess;
        *at = i;
    }
    return worst;
}

bool reference_check(const struct reference *r, const struct model *m, int threads,
                     const char *level, double *difference, struct error *e) {
    struct arena arena = {0};
    float *logits;
    size_t at = 0;
    bool ok = run_reference(r, m, threads, level, &arena, &logits, e);
    if (ok) {
        double bound = reference_bound(r, m);
        *difference = largest_difference(r, logits, m->spec.vocab, &at);
        if (*difference > bound) {
            ok = fail(e, STATUS_MODEL,
                      "%s does not answer as its reference.json says: the logit of token %zu "
                      "differs by %.3g where %.3g is allowed; the file is damaged, or was not "
                      "converted right: convert or fetch it again",
                      m->store.path, at, *difference, bound);
        }
    }
    arena_close(&arena);
    return ok;
}
