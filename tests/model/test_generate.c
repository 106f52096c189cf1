/* The loop of a generation: which tokens come, what ends it, what it tells on the way. Text and
 * stop strings need a tokenizer and are tested through the command line. */
#include "gen/generate.h"
#include "tiny.h"

enum { PROMPT = 9, CONTEXT = 40, MOST = 200 };

static const int prompt[PROMPT] = {5, 17, 200, 3, 99, 5, 42, 150, 8};
static int greedy[MOST]; /* what follows the prompt */

static struct model model;

static const struct run_options run_options = {.context = CONTEXT,
                                               .batch = 4,
                                               .threads = 1,
                                               .kv_type = DTYPE_F32};

/* What a generation reports. */
struct heard {
    int ids[MOST], count;
    size_t prompt_done[MOST];
    int questions, stop_at; /* go_on says no to question stop_at; -1: never */
};

/* Greedy: the token is the likeliest of the logits that it comes with. */
static void note_token(void *arg, const struct generate_token *t) {
    struct heard *h = arg;
    for (size_t i = 0; i < model.spec.vocab; i++) CHECK(t->logits[i] <= t->logits[t->id]);
    CHECK(t->text.size == 0);
    if (h->count < MOST) h->ids[h->count++] = t->id;
}

static bool go_on(void *arg, size_t prompt_done) {
    struct heard *h = arg;
    if (h->questions < MOST) h->prompt_done[h->questions] = prompt_done;
    return h->questions++ != h->stop_at;
}

/* Generates greedily after the prompt, in a run of its own. */
static struct generated generate_any(const struct generate_options *o, struct heard *h,
                                      int stop_at) {
    static const struct sampler_options sampling = {.top_p = 1, .typical = 1, .repeat_penalty = 1};
    struct generate_events events = {.arg = h, .on_token = note_token, .go_on = go_on};
    struct generated out = {.finish = FINISH_STOP};
    struct sampler sampler;
    struct run r;
    struct error e;
    *h = (struct heard){.stop_at = stop_at};
    CHECK(run_open(&r, &model, &run_options, &e));
    CHECK(sampler_open(&sampler, &sampling, model.spec.vocab, CONTEXT, &e));
    CHECK(generate(&r, NULL, &sampler, prompt, PROMPT, o, &events, &out, &e));
    CHECK((size_t)h->count == out.tokens && out.prompt_tokens == PROMPT);
    sampler_close(&sampler);
    run_close(&r);
    return out;
}

/* The same within one context, whose text is known. */
static struct generated generate_once(const struct generate_options *o, struct heard *h,
                                      int stop_at) {
    struct generated out = generate_any(o, h, stop_at);
    CHECK(memcmp(h->ids, greedy, (size_t)h->count * sizeof *greedy) == 0);
    return out;
}

static size_t likeliest(const float *logits) {
    size_t best = 0;
    for (size_t i = 1; i < model.spec.vocab; i++) best = logits[i] > logits[best] ? i : best;
    return best;
}

/* Fills greedy token by token, without the loop under test. */
static void find_greedy(void) {
    struct run r;
    struct error e;
    float *logits = fixture_nans(model.spec.vocab);
    CHECK(run_open(&r, &model, &run_options, &e));
    CHECK(run_append(&r, prompt, PROMPT, logits, false, &e));
    for (int i = 0; i <= CONTEXT - PROMPT; i++) {
        greedy[i] = (int)likeliest(logits);
        if (r.pos < CONTEXT) CHECK(run_append(&r, &greedy[i], 1, logits, false, &e));
    }
    free(logits);
    run_close(&r);
}

static void test_length(void) {
    struct heard h;
    for (size_t n = 0; n < 20; n++) {
        struct generate_options o = {.max_tokens = n, .ignore_ends = true};
        struct generated out = generate_once(&o, &h, -1);
        CHECK(out.finish == FINISH_LENGTH && out.tokens == n);
    }
}

static void test_full_context(void) {
    struct heard h;
    struct generate_options o = {.max_tokens = SIZE_MAX, .ignore_ends = true};
    struct generated out = generate_once(&o, &h, -1);
    /* the last token is chosen by the logits of a full context, and has no place in it */
    CHECK(out.finish == FINISH_CONTEXT && out.tokens == CONTEXT - PROMPT + 1);
    o.max_tokens = CONTEXT - PROMPT + 1;
    out = generate_once(&o, &h, -1);
    CHECK(out.finish == FINISH_LENGTH && out.tokens == CONTEXT - PROMPT + 1);
}

/* The next token of a text that a run of its own reads from the start. */
static int next_of(const int *ids, size_t n, float *logits) {
    struct run r;
    struct error e;
    CHECK(run_open(&r, &model, &run_options, &e));
    CHECK(run_append(&r, ids, n, logits, false, &e));
    run_close(&r);
    return (int)likeliest(logits);
}

/* The greedy text of a context that slides, by the words of the header. */
static size_t slide_greedy(size_t keep, int *text, size_t n) {
    float *logits = fixture_nans(model.spec.vocab);
    int ids[CONTEXT];
    size_t held = PROMPT, slides = 0;
    memcpy(ids, prompt, sizeof prompt);
    if (keep > PROMPT) keep = PROMPT;
    for (size_t i = 0; i < n; i++) {
        text[i] = next_of(ids, held, logits);
        if (held == CONTEXT && i + 1 < n) {
            size_t dropped = (CONTEXT - keep + 1) / 2;
            held -= dropped;
            for (size_t k = keep; k < held; k++) ids[k] = ids[k + dropped];
            slides++;
        }
        if (i + 1 < n) ids[held++] = text[i];
    }
    free(logits);
    return slides;
}

static void test_slide(void) {
    static const size_t keeps[] = {0, 1, 3, PROMPT, CONTEXT + 5};
    enum { TOKENS = 4 * CONTEXT };
    struct heard h;
    for (size_t i = 0; i < sizeof keeps / sizeof *keeps; i++) {
        struct generate_options o = {
            .max_tokens = TOKENS, .ignore_ends = true, .slide = true, .keep = keeps[i]};
        int want[TOKENS];
        size_t slides = slide_greedy(keeps[i], want, TOKENS);
        struct generated out = generate_any(&o, &h, -1);
        CHECK(out.finish == FINISH_LENGTH && out.tokens == TOKENS);
        CHECK(slides > 3 && out.slides == slides && out.dropped > slides);
        CHECK(memcmp(h.ids, want, sizeof want) == 0);
    }
}

/* A prompt that fills the context and is kept whole leaves nothing to drop. */
static void test_slide_of_nothing(void) {
    static const struct sampler_options sampling = {.top_p = 1, .typical = 1, .repeat_penalty = 1};
    struct generate_options o = {.max_tokens = 5, .ignore_ends = true, .slide = true};
    struct generate_events none = {0};
    struct generated out;
    struct sampler sampler;
    struct error e;
    int full[CONTEXT] = {0};
    for (o.keep = CONTEXT - 1; o.keep <= CONTEXT; o.keep++) {
        struct run r;
        CHECK(run_open(&r, &model, &run_options, &e));
        CHECK(sampler_open(&sampler, &sampling, model.spec.vocab, CONTEXT, &e));
        CHECK(generate(&r, NULL, &sampler, full, CONTEXT, &o, &none, &out, &e));
        bool one = o.keep == CONTEXT - 1; /* which goes, each time */
        CHECK(out.finish == (one ? FINISH_LENGTH : FINISH_CONTEXT));
        CHECK(out.tokens == (one ? 5 : 1) && out.dropped == (one ? 4 : 0));
        sampler_close(&sampler);
        run_close(&r);
    }
}

/* A slide is interrupted between its batches too. */
static void test_interrupted_slide(void) {
    struct heard h;
    struct generate_options o = {.max_tokens = MOST, .ignore_ends = true, .slide = true};
    int questions = 3 + (CONTEXT - PROMPT + 1); /* of the prompt's batches, all tokens up to it */
    struct generated out = generate_any(&o, &h, questions + 2);
    CHECK(out.finish == FINISH_INTERRUPTED && out.slides == 1);
    CHECK(out.tokens == CONTEXT - PROMPT + 1 && h.questions == questions + 3);
}

static void test_end_tokens(void) {
    struct heard h;
    struct generate_options o = {.max_tokens = 20};
    int at = 0;
    model.ends[0] = (int)model.spec.vocab - 1;
    model.ends[1] = greedy[7];
    model.end_count = 2;
    while (greedy[at] != greedy[7]) at++;
    struct generated out = generate_once(&o, &h, -1);
    CHECK(out.finish == FINISH_STOP && out.tokens == (size_t)at + 1); /* it is told and counted */
    o.ignore_ends = true;
    out = generate_once(&o, &h, -1);
    CHECK(out.finish == FINISH_LENGTH && out.tokens == 20);
    model.end_count = 0;
}

/* Asked before each batch of the prompt and before each token. */
static void test_interrupted(void) {
    struct heard h;
    struct generate_options o = {.max_tokens = 6, .ignore_ends = true};
    generate_once(&o, &h, -1);
    static const size_t done[] = {0, 4, 8, 9, 9, 9, 9, 9, 9}; /* batches of 4, then 6 tokens */
    CHECK(h.questions == 9 && memcmp(h.prompt_done, done, sizeof done) == 0);
    for (int stop_at = 0; stop_at < 9; stop_at++) {
        struct generated out = generate_once(&o, &h, stop_at);
        CHECK(out.finish == FINISH_INTERRUPTED && h.questions == stop_at + 1);
        CHECK(out.tokens == (size_t)(stop_at > 3 ? stop_at - 3 : 0));
    }
}

static void test_refused(void) {
    static const struct sampler_options sampling = {.top_p = 1, .typical = 1, .repeat_penalty = 1};
    struct generate_options o = {.max_tokens = 5};
    struct heard h = {.stop_at = -1};
    struct generate_events events = {.arg = &h, .on_token = note_token, .go_on = go_on};
    struct generated out;
    struct sampler sampler;
    struct run r;
    struct error e;
    int long_prompt[CONTEXT + 1] = {0}, wrong[3] = {1, 203, 2};
    CHECK(run_open(&r, &model, &run_options, &e));
    CHECK(sampler_open(&sampler, &sampling, model.spec.vocab, CONTEXT, &e));
    CHECK(!generate(&r, NULL, &sampler, long_prompt, CONTEXT + 1, &o, &events, &out, &e));
    CHECK(e.status == STATUS_CONTEXT);
    CHECK(!generate(&r, NULL, &sampler, wrong, 3, &o, &events, &out, &e));
    CHECK(e.status == STATUS_ARGUMENT && strstr(e.message, "203"));
    CHECK(r.pos == 0 && h.questions == 0 && h.count == 0);
    CHECK(generate(&r, NULL, &sampler, long_prompt, CONTEXT, &o, &events, &out, &e));
    CHECK(out.finish == FINISH_CONTEXT && out.tokens == 1);
    sampler_close(&sampler);
    run_close(&r);
}

/* Logits that are no numbers end the run with an error, after what was generated before. */
static void test_damaged_weights(void) {
    struct generate_options o = {.max_tokens = 5};
    static const struct sampler_options sampling = {.top_p = 1, .typical = 1, .repeat_penalty = 1};
    struct generate_events none = {0};
    struct generated out;
    struct sampler sampler;
    struct run r;
    struct error e;
    float kept = model.weights.norm[3];
    model.weights.norm[3] = NAN;
    CHECK(run_open(&r, &model, &run_options, &e));
    CHECK(sampler_open(&sampler, &sampling, model.spec.vocab, CONTEXT, &e));
    CHECK(!generate(&r, NULL, &sampler, prompt, PROMPT, &o, &none, &out, &e));
    CHECK(e.status == STATUS_NUMERIC && out.tokens == 0);
    sampler_close(&sampler);
    run_close(&r);
    model.weights.norm[3] = kept;
}

int main(void) {
    scratch_open();
    tiny_open(&model, &tiny_default, "model.npz", 12);
    find_greedy();
    check_run("length", test_length);
    check_run("full context", test_full_context);
    check_run("slide", test_slide);
    check_run("slide of nothing", test_slide_of_nothing);
    check_run("interrupted slide", test_interrupted_slide);
    check_run("end tokens", test_end_tokens);
    check_run("interrupted", test_interrupted);
    check_run("refused", test_refused);
    check_run("damaged weights", test_damaged_weights);
    model_close(&model);
    return check_done();
}
