#include "gen/generate.h"

#include "base/clock.h"

struct generation {
    struct run *run;
    const struct tokens *tokens;
    struct sampler *sampler;
    const struct generate_options *options;
    const struct generate_events *events;
    struct generated *out;
    struct detokenizer detokenizer;
    struct stream stream;
    float *logits; /* [vocab] */
    char *piece;   /* [longest] */
    size_t longest;
    uint64_t start;
    struct arena arena;
};

static void emit_text(void *arg, const char *text, size_t size) {
    const struct generation *g = arg;
    if (g->events->on_text) g->events->on_text(g->events->arg, text, size);
}

static void layout(struct generation *g, struct arena *a) {
    g->longest = g->tokens ? tokens_longest(g->tokens) : 0;
    g->logits = arena_take(a, g->run->model->spec.vocab, sizeof *g->logits);
    g->piece = arena_take(a, g->longest, 1);
    stream_open(&g->stream, a, g->options->stops, g->options->stop_count, g->longest, emit_text, g);
}

static bool is_end(const struct generation *g, int id) {
    const struct model *m = g->run->model;
    for (int i = 0; i < m->end_count; i++) {
        if (m->ends[i] == id) return true;
    }
    for (size_t i = 0; i < g->options->end_count; i++) {
        if (g->options->ends[i] == id) return true;
    }
    return g->tokens && id == tokens_eos(g->tokens);
}

static bool go_on(const struct generation *g, size_t prompt_done) {
    return !g->events->go_on || g->events->go_on(g->events->arg, prompt_done);
}

/* A batch at a time, so that a long prompt can be interrupted. */
static bool read_prompt(struct generation *g, const int *prompt, size_t n, bool *interrupted,
                        struct error *e) {
    run_expect(g->run, g->run->pos + n);
    for (size_t done = 0; done < n;) {
        *interrupted = !go_on(g, done);
        if (*interrupted) return true;
        size_t count = n - done < g->run->batch ? n - done : g->run->batch;
        if (!run_append(g->run, prompt + done, count, g->logits, false, e)) return false;
        done += count;
    }
    for (size_t i = 0; i < n; i++) {
        sampler_accept(g->sampler, prompt[i]);
        if (g->tokens) tokens_text(&g->detokenizer, prompt[i], false, g->piece, g->longest);
    }
    g->out->prompt_ns = clock_ns() - g->start;
    return true;
}

/* Chooses a token and brings its text on the way; true if that ends the run. */
static bool choose(struct generation *g, int *id, bool *ended, struct error *e) {
    if (!sampler_pick(g->sampler, g->logits, id, e)) return false;
    uint64_t now = clock_ns() - g->start;
    if (g->out->tokens++ == 0) g->out->first_ns = now;
    g->out->tokens_ns = now - g->out->first_ns;
    sampler_accept(g->sampler, *id);
    if (g->events->on_token) g->events->on_token(g->events->arg, *id);
    *ended = is_end(g, *id) && !g->options->ignore_ends;
    if (*ended) g->out->finish = FINISH_STOP;
    if (*ended || !g->tokens) return true;
    size_t size = tokens_text(&g->detokenizer, *id, false, g->piece, g->longest);
    *ended = stream_add(&g->stream, g->piece, size);
    if (*ended) g->out->finish = FINISH_STRING;
    return true;
}

static bool loop(struct generation *g, struct error *e) {
    for (;;) {
        int id;
        bool ended = false;
        if (g->out->tokens == g->options->max_tokens) {
            g->out->finish = FINISH_LENGTH;
            return true;
        }
        if (!go_on(g, g->out->prompt_tokens)) {
            g->out->finish = FINISH_INTERRUPTED;
            return true;
        }
        if (!choose(g, &id, &ended, e)) return false;
        if (ended) return true;
        if (g->out->tokens == g->options->max_tokens) continue; /* nobody needs its logits */
        if (g->run->pos == g->run->context) {
            g->out->finish = FINISH_CONTEXT;
            return true;
        }
        if (!run_append(g->run, &id, 1, g->logits, false, e)) return false;
    }
}

bool generate(struct run *r, const struct tokens *tokens, struct sampler *sampler,
              const int *prompt, size_t n, const struct generate_options *o,
              const struct generate_events *events, struct generated *out, struct error *e) {
    struct generation g = {.run = r,
                           .tokens = tokens,
                           .sampler = sampler,
                           .options = o,
                           .events = events,
                           .out = out,
                           .detokenizer = {.tokens = tokens},
                           .start = clock_ns()};
    *out = (struct generated){.prompt_tokens = n};
    struct arena count = {0};
    bool interrupted = false;
    layout(&g, &count);
    if (!run_check(r, prompt, n, e) || !arena_open(&g.arena, count.used, e)) return false;
    layout(&g, &g.arena);
    TRY(read_prompt(&g, prompt, n, &interrupted, e));
    if (interrupted)
        out->finish = FINISH_INTERRUPTED;
    else
        TRY(loop(&g, e));
    stream_flush(&g.stream);
    arena_close(&g.arena);
    return true;
fail:
    stream_flush(&g.stream);
    arena_close(&g.arena);
    return false;
}
