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
    size_t prompt_left; /* tokens of the prompt not read yet */
    size_t keep;        /* first positions that never slide away */
    bool ended;
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

static void end(struct generation *g, enum finish finish) {
    g->out->finish = finish;
    g->ended = true;
}

/* Asks whether to go on, and ends the generation if not. */
static bool go_on(struct generation *g) {
    size_t done = g->out->prompt_tokens - g->prompt_left;
    if (g->events->go_on && !g->events->go_on(g->events->arg, done)) end(g, FINISH_INTERRUPTED);
    return !g->ended;
}

/* A batch at a time, so that a long text can be interrupted. */
static bool read_ids(struct generation *g, const int *ids, size_t n, struct error *e) {
    run_expect(g->run, g->run->pos + n);
    for (size_t done = 0; done < n && go_on(g);) {
        size_t count = n - done < g->run->batch ? n - done : g->run->batch;
        float *logits = done + count == n ? g->logits : NULL;
        if (!run_append(g->run, ids + done, count, logits, false, e)) return false;
        done += count;
        g->prompt_left -= count < g->prompt_left ? count : g->prompt_left;
    }
    return true;
}

static bool read_prompt(struct generation *g, const int *prompt, size_t n, struct error *e) {
    if (!read_ids(g, prompt, n, e)) return false;
    if (g->ended) return true;
    for (size_t i = 0; i < g->run->pos; i++) { /* what was there before counts too */
        sampler_accept(g->sampler, g->run->ids[i]);
        if (g->tokens) tokens_text(&g->detokenizer, g->run->ids[i], false, g->piece, g->longest);
    }
    g->out->prompt_ns = clock_ns() - g->start;
    return true;
}

/* Makes room in a full context, as the header says, or ends the generation. */
static bool slide(struct generation *g, struct error *e) {
    struct run *r = g->run;
    size_t kept = g->keep < r->pos ? g->keep : r->pos, left = r->pos - kept;
    size_t dropped = g->options->slide ? (left + 1) / 2 : 0;
    if (!dropped) {
        end(g, FINISH_CONTEXT);
        return true;
    }
    g->out->slides++;
    g->out->dropped += dropped;
    run_rewind(r, kept);
    return read_ids(g, r->ids + kept + dropped, left - dropped, e);
}

/* The token's text goes into g->piece, and on its way; returns its bytes. */
static size_t add_text(struct generation *g, int id) {
    if (g->ended || !g->tokens) return 0;
    size_t size = tokens_text(&g->detokenizer, id, false, g->piece, g->longest);
    if (stream_add(&g->stream, g->piece, size)) end(g, FINISH_STRING);
    return size;
}

/* Chooses a token and brings its text on the way. */
static bool choose(struct generation *g, int *id, struct error *e) {
    if (!sampler_pick(g->sampler, g->logits, id, e)) return false;
    uint64_t now = clock_ns() - g->start;
    if (g->out->tokens++ == 0) g->out->first_ns = now;
    g->out->tokens_ns = now - g->out->first_ns;
    sampler_accept(g->sampler, *id);
    if (is_end(g, *id) && !g->options->ignore_ends) end(g, FINISH_STOP);
    struct generate_token token = {*id, {(unsigned char *)g->piece, add_text(g, *id)}, g->logits};
    if (g->events->on_token) g->events->on_token(g->events->arg, &token);
    return true;
}

/* One token more: chosen, and read unless nobody needs its logits. */
static bool step(struct generation *g, struct error *e) {
    int id;
    if (!go_on(g)) return true;
    if (!choose(g, &id, e)) return false;
    if (!g->ended && g->out->tokens == g->options->max_tokens) end(g, FINISH_LENGTH);
    if (g->ended) return true;
    if (g->run->pos == g->run->context && !slide(g, e)) return false;
    return g->ended || run_append(g->run, &id, 1, g->logits, false, e);
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
                           .prompt_left = n,
                           .keep = o->keep < r->pos + n ? o->keep : r->pos + n,
                           .start = clock_ns()};
    *out = (struct generated){.prompt_tokens = n};
    struct arena count = {0};
    layout(&g, &count);
    if (!run_check(r, prompt, n, e) || !arena_open(&g.arena, count.used, e)) return false;
    layout(&g, &g.arena);
    TRY(read_prompt(&g, prompt, n, e));
    if (!g.ended && !o->max_tokens) end(&g, FINISH_LENGTH);
    while (!g.ended) TRY(step(&g, e));
    stream_flush(&g.stream);
    arena_close(&g.arena);
    return true;
fail:
    stream_flush(&g.stream);
    arena_close(&g.arena);
    return false;
}
