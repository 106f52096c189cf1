#include "model/calibrate.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "model/forward.h"
#include "ops/factor.h"
#include "ops/gram.h"

enum { WINDOW = 512, MOST_WINDOWS = 64, LOGIT_ROWS = 32 };

/* The fewer tokens to a column, the more of a Gram matrix is chance. */
static const double DAMP_NOISE = 2;

/* One input and who reads it. */
struct gram {
    size_t cols, tokens;
    float *g; /* [cols, cols], the lower triangle; whole once complete */
    bool complete;
};

struct reader {
    const struct mat *w;
    size_t gram;
};

struct calibration {
    struct model model; /* layers, and lists of experts, are our own */
    struct run run;
    bool running;
    size_t windows, length; /* of the text */
    float *x;               /* [windows * length, dim] between two layers */
    float *scratch;         /* [512, widest] of gram_add */
    float *logits;          /* [LOGIT_ROWS, vocab] */
    bool begun;             /* a layer was measured, and x is what it read */
    size_t layer;

    struct gram *grams; /* of what was measured last */
    struct reader *readers;
    size_t gram_count, reader_count, capacity;
    size_t last; /* gram of the product before */
    bool full;   /* no memory for another */

    struct observer observer;
    const struct gram *factored; /* what metric is of */
    double *wide;                /* [cols, cols] on the way */
    float *factor, *diagonal;
    size_t factor_cols; /* that wide and factor have room for */

    bool (*go_on)(void *arg);
    void *arg;
};

/* --- a model whose matrices may be replaced --------------------------------------------------- */

static bool copy_list(struct mat **list, size_t count) {
    if (!*list) return true;
    struct mat *copy = malloc(count * sizeof *copy);
    if (copy) memcpy(copy, *list, count * sizeof *copy);
    *list = copy;
    return copy != NULL;
}

static bool copy_layers(struct model *m) {
    size_t layers = m->spec.layers, experts = m->spec.experts;
    struct layer *copy = malloc(layers * sizeof *copy);
    bool ok = copy != NULL;
    if (copy) memcpy(copy, m->weights.layers, layers * sizeof *copy);
    m->weights.layers = copy;
    for (size_t i = 0; copy && i < layers; i++) {
        ok &= copy_list(&copy[i].expert_gate, experts);
        ok &= copy_list(&copy[i].expert_up, experts);
        ok &= copy_list(&copy[i].expert_down, experts);
    }
    return ok;
}

static void free_layers(struct model *m) {
    struct layer *layers = m->weights.layers;
    for (size_t i = 0; layers && i < m->spec.layers; i++) {
        free(layers[i].expert_gate);
        free(layers[i].expert_up);
        free(layers[i].expert_down);
    }
    free(layers);
}

/* --- measuring -------------------------------------------------------------------------------- */

static struct reader *find(const struct calibration *c, const struct mat *w) {
    for (size_t i = 0; i < c->reader_count; i++) {
        if (c->readers[i].w == w) return &c->readers[i];
    }
    return NULL;
}

static bool reserve(struct calibration *c) {
    if (c->reader_count < c->capacity) return true;
    size_t more = 2 * c->capacity + 16;
    struct reader *readers = realloc(c->readers, more * sizeof *readers);
    if (readers) c->readers = readers;
    struct gram *grams = readers ? realloc(c->grams, more * sizeof *grams) : NULL;
    if (!grams) return false;
    c->grams = grams;
    c->capacity = more;
    return true;
}

static bool add_gram(struct calibration *c, size_t cols) {
    float *g = calloc(cols, cols * sizeof *g);
    if (!g) return false;
    c->grams[c->gram_count++] = (struct gram){.cols = cols, .g = g};
    return true;
}

/* Experts share what all of them may read; what they make of it is each one's own. */
static bool is_shared(const struct calibration *c, const struct mat *w) {
    const struct layer *l = &c->model.weights.layers[c->layer];
    size_t experts = c->model.spec.experts;
    return l->expert_up &&
           ((l->expert_gate && w >= l->expert_gate && w < l->expert_gate + experts) ||
            (w >= l->expert_up && w < l->expert_up + experts));
}

static void see(void *arg, const struct mat *w, const float *x, size_t n, bool again) {
    struct calibration *c = arg;
    if (c->full || is_shared(c, w)) return;
    struct reader *reader = find(c, w);
    if (!reader) {
        c->full = !reserve(c) || (!again && !add_gram(c, w->cols));
        if (c->full) return;
        reader = &c->readers[c->reader_count++];
        *reader = (struct reader){w, again ? c->last : c->gram_count - 1};
    }
    c->last = reader->gram;
    if (again) return;
    gram_add(&c->run.backend, c->grams[reader->gram].g, x, n, w->cols, c->scratch);
    c->grams[reader->gram].tokens += n;
}

static void forget(struct calibration *c) {
    for (size_t i = 0; i < c->gram_count; i++) free(c->grams[i].g);
    c->gram_count = c->reader_count = 0;
    c->factored = NULL;
}

static size_t state_size(const struct calibration *c) {
    return c->length * c->model.spec.dim;
}

/* The measured layer over all windows; keeps what comes out, or what went in. */
static bool pass(struct calibration *c, bool keep, struct error *e) {
    size_t size = state_size(c);
    for (size_t i = 0; i < c->windows; i++) {
        if (!c->go_on(c->arg))
            return fail(e, STATUS_INTERRUPTED, "interrupted; nothing was written");
        memcpy(c->run.x, c->x + i * size, size * sizeof *c->x);
        forward_layer(&c->run, c->layer, c->length, 0, c->length);
        if (keep) memcpy(c->x + i * size, c->run.x, size * sizeof *c->x);
    }
    if (!c->full) return true;
    return fail(e, STATUS_MEMORY, "not enough memory to measure what layer %zu multiplies",
                c->layer);
}

/* Sends the text through the layer before, as it has become. */
static bool advance(struct calibration *c, struct error *e) {
    forget(c);
    if (c->begun && !pass(c, true, e)) return false;
    c->begun = true;
    return true;
}

bool calibrate_layer(struct calibration *c, size_t layer, struct error *e) {
    if (!advance(c, e)) return false;
    c->layer = layer;
    c->run.backend.observer = &c->observer;
    bool ok = pass(c, false, e);
    c->run.backend.observer = NULL;
    return ok;
}

bool calibrate_output(struct calibration *c, struct error *e) {
    size_t size = state_size(c);
    if (!advance(c, e)) return false;
    c->run.backend.observer = &c->observer;
    for (size_t i = 0; i < c->windows && c->go_on(c->arg); i++) {
        memcpy(c->run.x, c->x + i * size, size * sizeof *c->x);
        for (size_t t = 0; t < c->length; t += LOGIT_ROWS) {
            size_t rest = c->length - t;
            forward_logits(&c->run, t, rest < LOGIT_ROWS ? rest : LOGIT_ROWS, c->logits);
        }
    }
    c->run.backend.observer = NULL;
    return !c->full || fail(e, STATUS_MEMORY, "not enough memory to measure the output's input");
}

/* --- what was measured ------------------------------------------------------------------------ */

static bool take_room(struct calibration *c, size_t cols, struct error *e) {
    if (cols <= c->factor_cols) return true;
    free(c->wide);
    free(c->factor);
    free(c->diagonal);
    c->factor_cols = 0;
    c->wide = malloc(cols * cols * sizeof *c->wide);
    c->factor = malloc(cols * cols * sizeof *c->factor);
    c->diagonal = malloc(cols * sizeof *c->diagonal);
    if (!c->wide || !c->factor || !c->diagonal) {
        return fail(e, STATUS_MEMORY, "not enough memory for %zu MB of what %zu columns multiply",
                    cols * cols * 12 >> 20, cols);
    }
    c->factor_cols = cols;
    return true;
}

/* Divides by the tokens, adds to the diagonal, fills the upper triangle, once. False if the model
 * computed what is not finite. */
static bool complete(struct gram *g, double damp) {
    double trace = 0, cols = (double)g->cols;
    if (g->complete) return true;
    g->complete = true;
    for (size_t i = 0; i < g->cols; i++) {
        for (size_t k = 0; k <= i; k++) {
            float mean = g->g[i * g->cols + k] / (float)g->tokens;
            g->g[i * g->cols + k] = g->g[k * g->cols + i] = mean;
        }
        trace += (double)g->g[i * g->cols + i];
    }
    damp += DAMP_NOISE * cols / (double)g->tokens;
    float more = (float)(trace > 0 ? damp * trace / cols : 1);
    for (size_t i = 0; i < g->cols; i++) g->g[i * g->cols + i] += more;
    return isfinite(trace);
}

static bool factor(struct calibration *c, struct gram *g, double damp, struct error *e) {
    size_t n = g->cols;
    double trace = 0;
    if (!complete(g, damp)) {
        return fail(e, STATUS_NUMERIC,
                    "%s computes values on the calibration text that are not finite; its weights "
                    "are damaged or overflow f32",
                    c->model.store.path);
    }
    for (size_t i = 0; i < n * n; i++) c->wide[i] = (double)g->g[i];
    for (size_t i = 0; i < n; i++) trace += c->wide[i * n + i];
    factor_symmetric(c->run.backend.pool, c->wide, n, trace / (double)n * damp * 1e-3);
    for (size_t i = 0; i < n * n; i++) c->factor[i] = (float)c->wide[i];
    for (size_t i = 0; i < n; i++) c->diagonal[i] = (float)c->wide[i * n + i];
    c->factored = g;
    return true;
}

bool calibrate_metric(struct calibration *c, const struct mat *w, double damp, struct metric *out,
                      struct error *e) {
    const struct weights *weights = &c->model.weights;
    const struct mat *known = w == &weights->embed && c->model.spec.tied ? &weights->output : w;
    if (is_shared(c, w)) known = &weights->layers[c->layer].router;
    const struct reader *reader = find(c, known);
    *out = (struct metric){0};
    if (!reader || !c->grams[reader->gram].tokens) return true;
    struct gram *g = &c->grams[reader->gram];
    if (c->factored != g && (!take_room(c, g->cols, e) || !factor(c, g, damp, e))) return false;
    *out = (struct metric){g->g, c->factor, c->diagonal};
    return true;
}

/* --- opening ---------------------------------------------------------------------------------- */

struct model *calibrate_model(struct calibration *c) {
    return &c->model;
}

const struct backend *calibrate_backend(const struct calibration *c) {
    return &c->run.backend;
}

void calibrate_replace(struct calibration *c, const struct mat *w, const struct mat *by) {
    (void)c;
    *(struct mat *)w = *by; /* which is ours to change, though who visits tensors may not */
}

static void measure_widest(void *arg, const struct weights_tensor *t) {
    size_t *widest = arg;
    if (t->mat && t->mat->cols > *widest) *widest = t->mat->cols;
}

static bool cut(struct calibration *c, const struct calibrate_text *text, struct error *e) {
    size_t context = c->model.spec.context;
    c->length = context < WINDOW ? context : WINDOW;
    if (text->count < c->length) c->length = text->count;
    if (c->length <= text->lead + 1) {
        return fail(e, STATUS_ARGUMENT, "%zu tokens are too few to measure anything on",
                    text->count);
    }
    c->windows = (text->count - c->length) / (c->length - text->lead) + 1;
    if (c->windows > MOST_WINDOWS) c->windows = MOST_WINDOWS;
    return true;
}

static bool take_memory(struct calibration *c, struct error *e) {
    size_t widest = 0;
    weights_each(&c->model.weights, &c->model.spec, &c->model.store, measure_widest, &widest);
    c->x = malloc(c->windows * state_size(c) * sizeof *c->x);
    c->scratch = malloc(WINDOW * widest * sizeof *c->scratch);
    c->logits = malloc(LOGIT_ROWS * c->model.spec.vocab * sizeof *c->logits);
    if (c->x && c->scratch && c->logits) return true;
    return fail(e, STATUS_MEMORY, "not enough memory to run the model on %zu tokens",
                c->windows * c->length);
}

static bool embed_text(struct calibration *c, const struct calibrate_text *text, struct error *e) {
    size_t size = state_size(c), step = c->length - text->lead;
    int *ids = malloc(c->length * sizeof *ids);
    bool ok = ids || fail(e, STATUS_MEMORY, "not enough memory for %zu tokens", c->length);
    for (size_t i = 0; ok && i < c->windows; i++) {
        memcpy(ids, text->ids + i * step, c->length * sizeof *ids);
        memcpy(ids, text->ids, text->lead * sizeof *ids);
        ok = run_begin(&c->run, ids, c->length, e);
        if (ok) memcpy(c->x + i * size, c->run.x, size * sizeof *c->x);
    }
    free(ids);
    return ok;
}

bool calibrate_open(struct calibration **out, const struct model *m,
                    const struct calibrate_text *text, int threads, bool (*go_on)(void *arg),
                    void *arg, struct error *e) {
    struct calibration *c = calloc(1, sizeof *c);
    *out = c;
    if (!c) return fail(e, STATUS_MEMORY, "not enough memory to calibrate");
    c->model = *m; /* copy_layers comes before anything can fail */
    c->go_on = go_on;
    c->arg = arg;
    c->observer = (struct observer){see, c};
    bool copied = copy_layers(&c->model);
    TRY(copied || fail(e, STATUS_MEMORY, "not enough memory for the tables of the model"));
    TRY(cut(c, text, e) && take_memory(c, e));
    struct run_options o = {
        .context = c->length, .batch = c->length, .threads = threads, .kv_type = DTYPE_F16};
    c->running = run_open(&c->run, &c->model, &o, e);
    TRY(c->running);
    TRY(embed_text(c, text, e));
    return true;
fail:
    calibrate_close(c);
    *out = NULL;
    return false;
}

void calibrate_close(struct calibration *c) {
    if (!c) return;
    if (c->running) run_close(&c->run);
    forget(c);
    free_layers(&c->model);
    free(c->grams);
    free(c->readers);
    free(c->x);
    free(c->scratch);
    free(c->logits);
    free(c->wide);
    free(c->factor);
    free(c->diagonal);
    free(c);
}
