/* include/nibble.h: how well a model predicts a text. */
#include "gen/score.h"

#include <stdlib.h>
#include <string.h>

#include "api/handles.h"
#include "api/saved.h"

/* What one row of logits says. */
struct row {
    bool finite;
    struct score score;
    double reference_logp, divergence; /* only against a reference */
    bool same_top;
};

struct scoring {
    struct run *run;
    const int *ids; /* of the window at hand */
    struct arena arena;
    float *logits;    /* [score_rows, vocab] */
    struct row *rows; /* [score_rows] */
    float *log_p;     /* [threads, vocab] the reference's */
    const float *see_logits;
    size_t see_first;

    double *log_probabilities; /* nibble_score's result, or NULL */

    nibble_progress *progress;
    void *arg;
    size_t done, total; /* tokens */

    /* windows */
    struct saved_text text;
    int *window;          /* [length] */
    size_t index, scored; /* the window at hand, and its tokens seen so far */
    unsigned char *kept;  /* f16 [scored, vocab] of it, to be saved; or NULL */
    struct store saved;
    const unsigned char *reference; /* f16 [scored, vocab] of it; or NULL */
    double *divergences;            /* [all tokens]; NULL without a reference */
    struct score_mean loss, reference_loss, divergence, difference;
    size_t same_top;
};

/* --- rows ------------------------------------------------------------------------------------- */

static size_t likeliest(const float *log_p, size_t vocab) {
    size_t best = 0;
    for (size_t i = 1; i < vocab; i++) best = log_p[i] > log_p[best] ? i : best;
    return best;
}

/* Two tokens may be equally likely once they are rounded: then either is the likeliest. */
static void compare(const struct scoring *s, struct row *row, const float *logits, size_t at,
                    int id, float *log_p) {
    size_t vocab = s->text.vocab;
    saved_load(log_p, s->reference + at * vocab * 2, vocab);
    row->divergence = score_divergence(log_p, logits, row->score.norm, vocab);
    row->reference_logp = (double)log_p[id];
    row->same_top = log_p[row->score.best] >= log_p[likeliest(log_p, vocab)];
}

static void score_rows_of(void *arg, size_t begin, size_t end, int thread) {
    const struct scoring *s = arg;
    size_t vocab = s->text.vocab;
    for (size_t i = begin; i < end; i++) {
        const float *logits = s->see_logits + i * vocab;
        struct row *row = &s->rows[i];
        int id = s->ids[s->see_first + i];
        row->finite = score_row(logits, vocab, id, &row->score);
        if (!row->finite) continue;
        if (s->reference)
            compare(s, row, logits, s->scored + i, id, s->log_p + (size_t)thread * vocab);
        if (s->kept)
            saved_store(s->kept + (s->scored + i) * vocab * 2, logits, row->score.norm, vocab);
    }
}

static void add(struct scoring *s, const struct row *row) {
    score_add(&s->loss, -row->score.logp);
    if (!s->divergences) return;
    s->divergences[s->divergence.count] = row->divergence;
    score_add(&s->divergence, row->divergence);
    score_add(&s->reference_loss, -row->reference_logp);
    score_add(&s->difference, row->score.logp - row->reference_logp);
    s->same_top += row->same_top;
}

static bool see(void *arg, size_t first, size_t count, const float *logits, struct error *e) {
    struct scoring *s = arg;
    s->see_logits = logits;
    s->see_first = first;
    pool_split(s->run->backend.pool, count, 1, score_rows_of, s);
    for (size_t i = 0; i < count; i++) {
        if (!s->rows[i].finite) {
            return fail(e, STATUS_NUMERIC,
                        "the logits behind token %zu are not finite: the model's weights are "
                        "damaged or overflow f32",
                        first + i - 1);
        }
        if (s->log_probabilities) s->log_probabilities[first + i - 1] = s->rows[i].score.logp;
        add(s, &s->rows[i]);
    }
    s->scored += count;
    s->done += count;
    if (!s->progress || s->progress(s->arg, s->done, s->total)) return true;
    return fail(e, STATUS_INTERRUPTED, "interrupted");
}

static void layout(struct scoring *s, struct arena *a, bool save, bool compares) {
    size_t vocab = s->text.vocab, rows = score_rows(vocab), length = s->text.windows.length;
    s->logits = arena_take(a, rows, vocab * sizeof *s->logits);
    s->rows = arena_take(a, rows, sizeof *s->rows);
    s->window = arena_take(a, length, sizeof *s->window);
    s->kept = save ? arena_take(a, length * vocab, 2) : NULL;
    if (!compares) return;
    s->log_p = arena_take(a, (size_t)pool_threads(s->run->backend.pool) * vocab, sizeof(float));
    s->divergences = arena_take(a, s->total, sizeof *s->divergences);
}

static bool open_arena(struct scoring *s, bool save, bool compares, struct error *e) {
    struct arena count = {0};
    layout(s, &count, save, compares);
    if (!arena_open(&s->arena, count.used, e)) return false;
    layout(s, &s->arena, save, compares);
    return true;
}

/* --- a text that fits the context ------------------------------------------------------------- */

bool nibble_score(nibble_context *c, const int *ids, size_t n, double *log_p,
                  nibble_progress *progress, void *arg, nibble_error *out) {
    struct error e = {0};
    struct scoring s = {.run = &c->run,
                        .ids = ids,
                        .text.vocab = c->model->model.spec.vocab,
                        .log_probabilities = log_p,
                        .progress = progress,
                        .arg = arg,
                        .total = n - 1};
    bool ok = n >= 2 || fail(&e, STATUS_ARGUMENT,
                             "%zu tokens leave none to score; give two or more, BOS included", n);
    ok = ok && open_arena(&s, false, false, &e) &&
         score_append(s.run, ids, n, 1, s.logits, see, &s, &e);
    arena_close(&s.arena);
    return handles_report(ok, &e, out);
}

/* --- windows ---------------------------------------------------------------------------------- */

static bool score_one(struct scoring *s, size_t index, struct error *e) {
    const struct windows *w = &s->text.windows;
    size_t from = score_window(w, s->text.ids, index, s->window);
    s->ids = s->window;
    s->index = index;
    s->scored = 0;
    s->reference = s->divergences ? saved_window(&s->saved, index) : NULL;
    run_rewind(s->run, 0);
    return score_append(s->run, s->window, w->length, from, s->logits, see, s, e);
}

struct saved_member {
    struct scoring *s;
    size_t index;
};

static bool produce(void *arg, struct span *bytes, struct error *e) {
    const struct saved_member *m = arg;
    if (!score_one(m->s, m->index, e)) return false;
    *bytes = (struct span){m->s->kept, m->s->scored * m->s->text.vocab * 2};
    return true;
}

/* The writer asks for one window after the other. */
static bool score_saving(struct scoring *s, const char *path, struct error *e) {
    struct saved_member *members = calloc(s->text.count, sizeof *members);
    struct writer *w = NULL;
    bool ok = members || fail(e, STATUS_MEMORY, "not enough memory for %zu windows", s->text.count);
    for (size_t i = 0; ok && i < s->text.count; i++) members[i] = (struct saved_member){s, i};
    ok = ok && write_open(&w, path, e) &&
         saved_declare(w, &s->text, produce, members, sizeof *members, e);
    if (ok) {
        ok = write_commit(w, e);
        w = NULL;
    }
    write_discard(w);
    free(members);
    return ok;
}

static bool score_all(struct scoring *s, const char *save, struct error *e) {
    if (save) return score_saving(s, save, e);
    for (size_t i = 0; i < s->text.count; i++) {
        if (!score_one(s, i, e)) return false;
    }
    return true;
}

static bool cut(struct scoring *s, const nibble_windows *w, size_t n, struct error *e) {
    struct windows *windows = &s->text.windows;
    enum windows_kind kind = w->all ? WINDOWS_ALL : WINDOWS_HALVES;
    if (!score_windows(windows, kind, w->length, w->lead, w->stride, e)) return false;
    if (w->length > s->run->context) {
        return fail(e, STATUS_CONTEXT, "a window of %zu tokens does not fit the context of %zu",
                    w->length, s->run->context);
    }
    s->text.count = score_window_count(windows, n);
    if (!s->text.count) {
        return fail(e, STATUS_ARGUMENT,
                    "the text has %zu tokens and a window %zu; give a longer text or a smaller -c",
                    n, w->length);
    }
    if (w->most && s->text.count > w->most) s->text.count = w->most;
    s->total = saved_scored(windows, 0) + (s->text.count - 1) * saved_scored(windows, 1);
    return true;
}

static int by_size(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void report(struct scoring *s, nibble_perplexity_result *out) {
    *out = (nibble_perplexity_result){.windows = s->text.count,
                                      .tokens = s->loss.count,
                                      .loss = s->loss.mean,
                                      .loss_error = score_error(&s->loss)};
    const double *d = s->divergences;
    size_t n = s->divergence.count;
    if (!d) return;
    qsort(s->divergences, n, sizeof *d, by_size);
    out->reference_loss = s->reference_loss.mean;
    out->divergence = (nibble_figures){s->divergence.mean,
                                       score_error(&s->divergence),
                                       score_percentile(d, n, 0.5),
                                       score_percentile(d, n, 0.9),
                                       score_percentile(d, n, 0.95),
                                       score_percentile(d, n, 0.99),
                                       d[n - 1]};
    out->same_top = (double)s->same_top / (double)n;
    out->difference = s->difference.mean;
    out->difference_error = score_error(&s->difference);
}

bool nibble_perplexity(nibble_context *c, const int *ids, size_t n, const nibble_windows *w,
                       const char *save, const char *kl, nibble_progress *progress, void *arg,
                       nibble_perplexity_result *out, nibble_error *error) {
    struct error e = {0};
    struct scoring s = {.run = &c->run,
                        .text = {.ids = ids, .vocab = c->model->model.spec.vocab},
                        .progress = progress,
                        .arg = arg};
    TRY(cut(&s, w, n, &e));
    TRY(!kl || saved_open(&s.saved, kl, &s.text, &e));
    TRY(open_arena(&s, save, kl, &e));
    TRY(score_all(&s, save, &e));
    report(&s, out);
    arena_close(&s.arena);
    store_close(&s.saved);
    return true;
fail:
    arena_close(&s.arena);
    store_close(&s.saved);
    return handles_report(false, &e, error);
}
