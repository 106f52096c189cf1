/* include/nibble.h: what a model's generation_config.json says of sampling. */
#include <limits.h>

#include "api/handles.h"

struct reader {
    const struct config *config;
    struct error *e;
    bool found;
};

static bool read_real(struct reader *r, const char *name, double low, double high, float *value) {
    double v = *value;
    if (!config_find(r->config, name, NULL)) return true;
    if (!config_number(r->config, name, low, high, false, &v, r->e)) return false;
    *value = (float)v;
    r->found = true;
    return true;
}

/* Without sampling the likeliest token is taken. */
static bool read_greedy(struct reader *r, nibble_sampling *s) {
    int samples = -1;
    if (!config_flag(r->config, "do_sample", &samples, r->e)) return false;
    r->found |= samples >= 0;
    if (samples == 0) s->temp = 0;
    return true;
}

static bool read_sampling(struct reader *r, nibble_sampling *s) {
    double top_k = s->top_k;
    r->found |= config_find(r->config, "top_k", NULL) != NULL;
    if (!config_number(r->config, "top_k", 0, INT_MAX, true, &top_k, r->e)) return false;
    s->top_k = (int)top_k;
    return read_real(r, "temperature", 0, 1e6, &s->temp) &&
           read_real(r, "top_p", 0, 1, &s->top_p) && read_real(r, "min_p", 0, 1, &s->min_p) &&
           read_real(r, "typical_p", 0, 1, &s->typical) &&
           read_real(r, "repetition_penalty", 1e-6, 1e6, &s->repeat_penalty) && read_greedy(r, s);
}

bool nibble_model_sampling(const nibble_model *m, nibble_sampling *s, bool *found,
                           nibble_error *error) {
    static const char name[] = "generation_config.json";
    const struct store *store = &m->model.store;
    struct span text = store_file(store, name);
    struct error e = {0};
    struct config c;
    char where[512];
    *found = false;
    if (!text.data) return true;
    store_where(store, name, where, sizeof where);
    if (!config_open(&c, text, where, &e)) return handles_report(false, &e, error);
    struct reader r = {&c, &e, false};
    bool ok = read_sampling(&r, s);
    config_close(&c);
    *found = r.found;
    return handles_report(ok, &e, error);
}
