#include "model/model.h"

#include <stdio.h>

/* The context of a file that does not say: what the first models with Meta's names were made for.
 */
enum { DEFAULT_CONTEXT = 4096 };

static bool add_ends(struct model *m, const struct config *c, struct error *e) {
    int ids[MODEL_MAX_ENDS], count = 0;
    if (!config_ids(c, "eos_token_id", ids, MODEL_MAX_ENDS, &count, e)) return false;
    for (int i = 0; i < count; i++) {
        bool known = false;
        for (int k = 0; k < m->end_count; k++) known |= m->ends[k] == ids[i];
        if (known) continue;
        if (m->end_count == MODEL_MAX_ENDS) {
            return fail(e, STATUS_MODEL, "%s: more than %d end tokens over all configs", c->where,
                        MODEL_MAX_ENDS);
        }
        m->ends[m->end_count++] = ids[i];
    }
    return true;
}

/* What model_open learns from the main config. One of a model that sees images too has the numbers
 * of its text model in an object of their own. */
static bool read_config(struct model *m, const struct config *c, struct error *e) {
    double bos = -1;
    struct config text = config_inner(c, "text_config");
    if (!arch_find(&m->arch, &text, e) || !arch_read(m->arch, &m->spec, &text, e)) return false;
    if (!config_number(c, "bos_token_id text_config.bos_token_id", 0, 1 << 30, true, &bos, e) ||
        !add_ends(m, &text, e) || !add_ends(m, c, e)) {
        return false;
    }
    m->bos = (int)bos;
    return true;
}

static bool open_config(struct model *m, const char *name, struct config *c, struct error *e) {
    char where[512];
    store_where(&m->store, name, where, sizeof where);
    return config_open(c, store_file(&m->store, name), where, e);
}

static bool read_configs(struct model *m, struct error *e) {
    const char *name = store_file(&m->store, "config.json").data ? "config.json" : "params.json";
    struct config c;
    if (!store_file(&m->store, name).data) {
        return fail(e, STATUS_MODEL,
                    "%s has no config.json and no params.json, which say the model's shape",
                    m->store.path);
    }
    if (!open_config(m, name, &c, e)) return false;
    bool ok = read_config(m, &c, e);
    config_close(&c);
    if (!ok || !store_file(&m->store, "generation_config.json").data) return ok;

    if (!open_config(m, "generation_config.json", &c, e)) return false;
    ok = add_ends(m, &c, e);
    config_close(&c);
    return ok;
}

static void layout(struct model *m, struct arena *a) {
    weights_layout(&m->weights, &m->spec, &m->store, a);
    for (int i = 0; i < ROTARY_TABLES; i++) {
        m->ropes[i].freq = arena_take(a, m->ropes[i].dim / 2, sizeof(float));
    }
}

static bool bind(struct model *m, struct error *e) {
    const struct spec *s = &m->spec;
    bool meta = m->weights.names == WEIGHTS_META;
    bool interleaved = s->rope_traditional < 0 ? meta : s->rope_traditional;
    struct arena count = {0};
    for (int i = 0; i < ROTARY_TABLES; i++) {
        m->ropes[i] = (struct rope){
            .first = s->nope_dim,
            .dim = rotary_has(s, (enum rotary_table)i) ? s->rope_dim : 0,
            .layout = interleaved ? ROPE_INTERLEAVED : ROPE_HALF,
        };
    }
    layout(m, &count);
    if (!arena_open(&m->arena, count.used, e)) return false;
    layout(m, &m->arena);
    weights_bind(&m->weights, &m->spec, &m->store);
    for (int i = 0; i < ROTARY_TABLES; i++) rotary_fill(&m->ropes[i], s, (enum rotary_table)i);
    return true;
}

static bool check_ids(const struct model *m, struct error *e) {
    for (int i = 0; i < m->end_count; i++) {
        if ((size_t)m->ends[i] < m->spec.vocab) continue;
        return fail(e, STATUS_MODEL, "%s: end token %d lies outside the vocabulary of %zu",
                    m->store.path, m->ends[i], m->spec.vocab);
    }
    if (m->bos < 0 || (size_t)m->bos < m->spec.vocab) return true;
    return fail(e, STATUS_MODEL, "%s: bos_token_id %d lies outside the vocabulary of %zu",
                m->store.path, m->bos, m->spec.vocab);
}

/* Makes a model of its open store. */
static bool open_from_store(struct model *m, struct error *e) {
    TRY(store_require_arrays(&m->store, e));
    TRY(read_configs(m, e));
    TRY(weights_settle(&m->weights, &m->spec, &m->store, e));
    TRY(weights_check(&m->weights, &m->spec, &m->store, e));
    TRY(check_ids(m, e));
    TRY(bind(m, e));
    if (!m->spec.context) m->spec.context = DEFAULT_CONTEXT;
    return true;
fail:
    model_close(m);
    return false;
}

bool model_open(struct model *m, const char *path, struct error *e) {
    *m = (struct model){.bos = -1};
    return store_open(&m->store, path, e) && open_from_store(m, e);
}

bool model_glance(struct model *m, const char *path, struct error *e) {
    *m = (struct model){.bos = -1};
    return store_glance(&m->store, path, e) && open_from_store(m, e);
}

void model_close(struct model *m) {
    arena_close(&m->arena);
    store_close(&m->store);
    *m = (struct model){0};
}

struct walk {
    const struct model *model;
    size_t sum;
    double bytes;
    struct model_ops ops;
};

/* How much of a tensor a token uses: of experts, those that it takes. */
static double share_of(const struct walk *w, const struct weights_tensor *t) {
    const struct spec *s = &w->model->spec;
    return t->of_experts ? (double)s->top_k / (double)s->experts : 1;
}

static void add_bytes(void *arg, const struct weights_tensor *t) {
    struct walk *w = arg;
    const struct weights *weights = &w->model->weights;
    size_t bytes = t->mat ? format_bytes(t->mat) : t->rows * t->cols * sizeof(float);
    bool row = t->mat == &weights->positions || (t->mat == &weights->embed && !w->model->spec.tied);
    w->bytes += share_of(w, t) * (double)(row ? format_row_bytes(t->mat) : bytes);
}

static struct walk walk(const struct model *m, weights_visit *visit) {
    struct walk w = {.model = m};
    weights_each(&m->weights, &m->spec, &m->store, visit, &w);
    return w;
}

size_t model_bytes_per_token(const struct model *m) {
    return (size_t)walk(m, add_bytes).bytes;
}

static void add_product(struct model_ops *ops, const struct mat *w, double share) {
    *(w->group ? &ops->int8 : &ops->f32) += (size_t)(share * (double)(w->rows * w->cols));
}

static void add_layer_product(void *arg, const struct weights_tensor *t) {
    struct walk *w = arg;
    const struct weights *weights = &w->model->weights;
    bool outside =
        t->mat == &weights->embed || t->mat == &weights->output || t->mat == &weights->positions;
    if (t->mat && !outside) add_product(&w->ops, t->mat, share_of(w, t));
}

static void add_last_product(void *arg, const struct weights_tensor *t) {
    struct walk *w = arg;
    const struct layer *last = &w->model->weights.layers[w->model->spec.layers - 1];
    const struct mat *before[] = {&last->wq,     &last->wk,   &last->wv,  &last->q_a, &last->q_b,
                                  &last->k_rope, &last->kv_a, &last->k_b, &last->v_b};
    const char *mat = (const char *)t->mat;
    if (mat < (const char *)last || mat >= (const char *)(last + 1)) return;
    for (size_t i = 0; i < sizeof before / sizeof *before; i++) {
        if (t->mat == before[i]) return;
    }
    add_product(&w->ops, t->mat, share_of(w, t));
}

struct model_ops model_layer_ops(const struct model *m) {
    return walk(m, add_layer_product).ops;
}

struct model_ops model_last_ops(const struct model *m) {
    return walk(m, add_last_product).ops;
}

struct model_ops model_output_ops(const struct model *m) {
    struct model_ops ops = {0};
    add_product(&ops, &m->weights.output, 1);
    return ops;
}

static void add_values(void *arg, const struct weights_tensor *t) {
    ((struct walk *)arg)->sum += t->rows * t->cols;
}

size_t model_parameters(const struct model *m) {
    return walk(m, add_values).sum;
}
