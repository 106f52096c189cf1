/* include/nibble.h: contexts, evaluation, generation, files. */
#include <stdlib.h>
#include <string.h>

#include "api/handles.h"
#include "gen/logprobs.h"
#include "model/quantize.h"
#include "model/reference.h"
#include "store/append.h"
#include "store/write.h"

nibble_context_options nibble_context_defaults(void) {
    return (nibble_context_options){0};
}

static bool open_run(nibble_context *c, const nibble_context_options *o, struct error *e) {
    if (!kv_type_find(o->kv_type ? o->kv_type : "f16", &c->kv_type, e)) return false;
    struct run_options options = {
        .context = o->context,
        .batch = o->batch,
        .threads = handles_threads(o->threads),
        .level = o->level,
        .kv_type = c->kv_type,
        .blas = o->blas,
    };
    return run_open(&c->run, &c->model->model, &options, e);
}

nibble_context *nibble_context_open(const nibble_model *m, const nibble_context_options *o,
                                    nibble_error *out) {
    struct error e = {0};
    nibble_context *c = calloc(1, sizeof *c);
    if (c) c->model = m;
    bool ok = c ? open_run(c, o, &e) : fail(&e, STATUS_MEMORY, "not enough memory for a context");
    if (ok) return c;
    free(c);
    handles_report(false, &e, out);
    return NULL;
}

void nibble_context_close(nibble_context *c) {
    if (c) run_close(&c->run);
    free(c);
}

void nibble_context_describe(const nibble_context *c, nibble_context_info *info) {
    *info = (nibble_context_info){
        .context = c->run.context,
        .batch = c->run.batch,
        .used = c->run.pos,
        .ids = c->run.ids,
        .own_bytes = run_bytes(&c->run),
        .scratch_bytes = c->run.scratch_bytes,
        .kv_bytes = kv_position_bytes(&c->model->model.spec, c->kv_type),
        .threads = pool_threads(c->run.backend.pool),
        .level = c->run.backend.level,
        .kv_type = kv_type_name(c->kv_type),
    };
}

void nibble_expect(nibble_context *c, size_t tokens) {
    run_expect(&c->run, tokens);
}

bool nibble_eval(nibble_context *c, const int *ids, size_t n, float *logits, bool all,
                 nibble_error *out) {
    struct error e = {0};
    return handles_report(run_append(&c->run, ids, n, logits, all, &e), &e, out);
}

void nibble_rewind(nibble_context *c, size_t pos) {
    run_rewind(&c->run, pos);
}

size_t nibble_keep(nibble_context *c, const int *ids, size_t n) {
    return run_keep(&c->run, ids, n);
}

/* --- generating ------------------------------------------------------------------------------- */

nibble_sampling nibble_sampling_defaults(void) {
    return (nibble_sampling){.temp = 0.8f,
                             .top_k = 40,
                             .top_p = 0.95f,
                             .min_p = 0.05f,
                             .typical = 1,
                             .repeat_penalty = 1,
                             .repeat_last_n = 64};
}

_Static_assert(sizeof(nibble_bias) == sizeof(struct logit_bias) &&
                   offsetof(nibble_bias, value) == offsetof(struct logit_bias, value),
               "a list of one is a list of the other");

static struct sampler_options sampler_options_of(const nibble_sampling *s) {
    return (struct sampler_options){
        .seed = s->seed,
        .temp = s->temp,
        .top_k = s->top_k,
        .top_p = s->top_p,
        .min_p = s->min_p,
        .typical = s->typical,
        .repeat_penalty = s->repeat_penalty,
        .presence_penalty = s->presence_penalty,
        .frequency_penalty = s->frequency_penalty,
        .repeat_last_n = s->repeat_last_n,
        .bias = (const struct logit_bias *)(const void *)s->bias,
        .bias_count = s->bias_count,
    };
}

/* The caller's callbacks, in the library's own terms. */
static void pass_text(void *arg, const char *text, size_t size) {
    const nibble_generation *g = arg;
    g->on_text(g->arg, text, size);
}

static void pass_token(void *arg, const struct generate_token *t) {
    const nibble_generation *g = arg;
    nibble_token token = {t->id, (const char *)t->text.data, t->text.size, t->logits};
    g->on_token(g->arg, &token);
}

static bool pass_question(void *arg, size_t prompt_done) {
    const nibble_generation *g = arg;
    return g->go_on(g->arg, prompt_done);
}

static bool run_generation(nibble_context *c, const nibble_generation *g, struct sampler *sampler,
                           const int *prompt, size_t n, nibble_generated *out, struct error *e) {
    int *ends;
    size_t end_count;
    if (!handles_ends(c->model, g->ends, g->end_count, &ends, &end_count, e)) return false;
    struct generate_options options = {.max_tokens = g->max_tokens,
                                       .ends = ends,
                                       .end_count = end_count,
                                       .ignore_ends = g->ignore_end,
                                       .stops = g->stops,
                                       .stop_count = g->stop_count,
                                       .slide = g->slide,
                                       .keep = g->keep};
    struct generate_events events = {.arg = (void *)g,
                                     .on_text = g->on_text ? pass_text : NULL,
                                     .on_token = g->on_token ? pass_token : NULL,
                                     .go_on = g->go_on ? pass_question : NULL};
    struct generated done;
    bool ok = generate(&c->run, c->model->tokenizer.tokens, sampler, prompt, n, &options, &events,
                       &done, e);
    free(ends);
    *out = (nibble_generated){.finish = (nibble_finish)done.finish,
                              .prompt_tokens = done.prompt_tokens,
                              .tokens = done.tokens,
                              .slides = done.slides,
                              .dropped = done.dropped,
                              .prompt_ns = done.prompt_ns,
                              .first_ns = done.first_ns,
                              .tokens_ns = done.tokens_ns};
    return ok;
}

_Static_assert((int)NIBBLE_FINISH_INTERRUPTED == (int)FINISH_INTERRUPTED,
               "the two lists of reasons agree");

bool nibble_generate(nibble_context *c, const nibble_generation *g, const int *prompt, size_t n,
                     nibble_generated *out, nibble_error *error) {
    struct error e = {0};
    struct sampler sampler = {0};
    struct sampler_options options = sampler_options_of(&g->sampling);
    if (!n) {
        fail(&e, STATUS_ARGUMENT, "the prompt has no tokens; give at least one");
        goto fail;
    }
    for (size_t i = 0; i < g->stop_count; i++) {
        if (*g->stops[i]) continue;
        fail(&e, STATUS_ARGUMENT, "a stop string is empty");
        goto fail;
    }
    TRY(sampler_open(&sampler, &options, c->model->sampled, c->run.context, &e));
    TRY(run_generation(c, g, &sampler, prompt, n, out, &e));
    sampler_close(&sampler);
    return true;
fail:
    sampler_close(&sampler);
    return handles_report(false, &e, error);
}

_Static_assert(sizeof(nibble_logprob) == sizeof(struct logprob) &&
                   offsetof(nibble_logprob, logprob) == offsetof(struct logprob, value),
               "a list of one is a list of the other");

double nibble_logprobs(const float *logits, size_t vocab, int id, nibble_logprob *top, size_t n) {
    return logprobs(logits, vocab, id, (struct logprob *)(void *)top, n);
}

/* --- files ------------------------------------------------------------------------------------ */

/* A model whose logits are not finite has no answer to keep; nibble_check_numbers tells why. */
static bool add_reference(const char *path, int threads, struct error *e) {
    struct model m;
    struct reference r;
    if (!model_open(&m, path, e)) return false;
    bool ok = reference_compute(&r, &m, threads, NULL, e);
    char *json = ok ? reference_write(&r) : NULL;
    model_close(&m);
    if (!ok) return e->status == STATUS_NUMERIC;
    if (!json) return fail(e, STATUS_MEMORY, "not enough memory for the reference");
    ok = append_file(path, "reference.json",
                     (struct span){(const unsigned char *)json, strlen(json)}, e);
    free(json);
    return ok;
}

bool nibble_quantize(const nibble_model *m, const char *path, const nibble_quantization *q,
                     nibble_quantized *out, nibble_error *error) {
    struct error e = {0};
    struct calibrate_text text = {q->calibration, q->calibration_count, q->lead};
    struct quantize_options options = {.search = q->search,
                                       .calibration = q->calibration ? &text : NULL,
                                       .bits = q->bits,
                                       .group = q->group,
                                       .embed_bits = q->embed_bits,
                                       .high_bits = q->high_bits,
                                       .threads = handles_threads(q->threads),
                                       .progress = q->progress,
                                       .arg = q->arg};
    struct quantize_report report;
    bool ok = quantize(&m->model, path, &options, &report, &e) &&
              add_reference(path, options.threads, &e);
    *out = (nibble_quantized){report.quantized, report.kept, report.bytes_in, report.bytes_out};
    return handles_report(ok, &e, error);
}

bool nibble_write_npy(const char *path, const float *data, size_t rows, size_t cols,
                      nibble_error *error) {
    struct error e = {0};
    uint64_t shape[2] = {rows, cols};
    struct span bytes = {(const unsigned char *)data, rows * cols * sizeof *data};
    return handles_report(write_npy(path, DTYPE_F32, 2, shape, bytes, &e), &e, error);
}
