/* Runs of tiny models: the same logits however a text is cut into batches and split over threads,
 * after rewinding, and after appends that were refused. */
#include "model/quantize.h"
#include "model/run.h"
#include "tiny.h"

enum { TOKENS = 66, LONG = 545, VOCAB = 203 };

static int ids[LONG];

static void make_ids(void) {
    for (int i = 0; i < LONG; i++) ids[i] = (int)fixture_below(VOCAB);
}

static const struct run_options options = {.context = TINY_CONTEXT,
                                           .batch = 64,
                                           .threads = 2,
                                           .kv_type = DTYPE_F16};

static void open_run(struct run *r, const struct model *m, const struct run_options *o, bool blas) {
    struct run_options with = *o;
    struct error e;
    with.blas = blas;
    if (!run_open(r, m, &with, &e)) {
        printf("%s\n", e.message);
        exit(1);
    }
    r->backend.blas = blas && strcmp(r->backend.level, "scalar") != 0;
}

/* The first ids, and how they are handed to a run: in one piece, or in pieces that are all
 * different, which it cuts into batches. */
struct text {
    size_t tokens;
    int cuts;
    struct cut {
        size_t batch;
        const size_t *pieces;
    } cut[4];
};

static const size_t whole[] = {TOKENS}, uneven[] = {3, 1, 17, 2, 5, 4, 1, 33};
static const struct text short_text = {TOKENS,
                                       4,
                                       {{1, whole}, {7, whole}, {64, whole}, {64, uneven}}};

/* Full batches of 512, one of them across the first 512 positions. */
static const size_t long_whole[] = {LONG}, long_uneven[] = {5, LONG - 5};
static const struct text long_text = {LONG,
                                      3,
                                      {{1, long_whole}, {512, long_whole}, {512, long_uneven}}};

/* The logits of all ids, [tokens, VOCAB]; malloc'd. */
static float *logits_in_pieces(const struct model *m, const struct run_options *o, bool blas,
                               size_t tokens, const size_t *pieces) {
    struct run r;
    struct error e;
    float *logits = fixture_nans(tokens * VOCAB);
    bool ok = true;
    open_run(&r, m, o, blas);
    while (r.pos < tokens && ok) {
        float *at = logits + r.pos * VOCAB;
        ok = run_append(&r, ids + r.pos, *pieces++, at, true, &e) && r.pos <= tokens;
        CHECK(ok);
    }
    CHECK(isnan(logits[tokens * VOCAB]));
    run_close(&r);
    return logits;
}

static float *logits_of(const struct model *m, const struct run_options *o, bool blas) {
    return logits_in_pieces(m, o, blas, TOKENS, whole);
}

static float largest_difference(const float *a, const float *b, size_t tokens) {
    float most = 0;
    for (size_t i = 0; i < tokens * VOCAB; i++) {
        float d = fabsf(a[i] - b[i]);
        most = d <= most ? most : d; /* NaN stays */
    }
    return most;
}

/* A text in all its cuts, each with all counts of threads. bound: how much another cut may change;
 * other threads change nothing. */
struct trial {
    const struct text *text;
    const int *threads; /* ends with 0 */
    enum dtype kv;
    bool blas;
    float bound;
    const char *name;
};

static const int one_to_four[] = {1, 2, 3, 4, 0}, one_and_two[] = {1, 2, 0},
                 one_and_four[] = {1, 4, 0}, three[] = {3, 0};

static void check_runs(const struct model *m, const struct trial *trial, const char *level) {
    const struct text *text = trial->text;
    float *first = NULL, bound = trial->bound;
    for (int c = 0; c < text->cuts; c++) {
        const struct cut *cut = &text->cut[c];
        float *alone = NULL;
        for (const int *threads = trial->threads; *threads; threads++) {
            struct run_options o = {.context = text->tokens,
                                    .batch = cut->batch,
                                    .threads = *threads,
                                    .level = level,
                                    .kv_type = trial->kv};
            float *logits = logits_in_pieces(m, &o, trial->blas, text->tokens, cut->pieces);
            if (!first) first = logits;
            if (!alone) alone = logits;
            float d = largest_difference(logits, first, text->tokens);
            CHECK_MSG(d <= bound, "%s, %s, %zu tokens, cut %d, %d threads: off by %g", trial->name,
                      level, text->tokens, c, *threads, d);
            CHECK_MSG(fixture_same(logits, alone, text->tokens * VOCAB) &&
                          (bound > 0 || fixture_same(logits, first, text->tokens * VOCAB)),
                      "%s, %s, %zu tokens, cut %d, %d threads: other bits", trial->name, level,
                      text->tokens, c, *threads);
            if (logits != first && logits != alone) free(logits);
        }
        if (alone != first) free(alone);
    }
    free(first);
}

static void over_levels(const struct model *m, const struct trial *trial) {
    const char *level;
    for (int i = 0; (level = fixture_next_level(&i)) != NULL;) check_runs(m, trial, level);
}

static void test_plain(void) {
    static const enum dtype dtypes[] = {DTYPE_F32, DTYPE_F16, DTYPE_BF16};
    for (int d = 0; d < 3; d++) {
        struct tiny t = tiny_default;
        struct model m;
        t.dtype = dtypes[d];
        t.window = d == 1 ? 9 : 0;
        tiny_open(&m, &t, "plain.npz", 5 + (uint64_t)d);
        struct trial trial = {.text = &short_text,
                              .threads = one_and_two,
                              .kv = d == 2 ? DTYPE_F32 : DTYPE_F16,
                              .name = dtype_name(dtypes[d])};
        over_levels(&m, &trial);
        if (d > 0) {
            trial = (struct trial){&short_text, one_and_two, DTYPE_F32, true, 1e-4f, "with BLAS"};
            over_levels(&m, &trial);
        }
        model_close(&m);
    }
}

static void check_quantized(const struct tiny *t, int bits, int group, const struct text *text,
                            enum dtype kv, const int *threads) {
    struct model plain, m;
    struct error e;
    struct quantize_report report;
    struct quantize_options o = {.bits = bits, .group = group, .threads = 2};
    char name[32];
    snprintf(name, sizeof name, "%d bits by %d", bits, group);
    tiny_open(&plain, t, "source.npz", (uint64_t)bits);
    CHECK(quantize(&plain, scratch_path("quantized.npz"), &o, &report, &e));
    CHECK(model_open(&m, scratch_path("quantized.npz"), &e));
    const struct mat *down = &m.weights.layers[0].down;
    CHECK(report.kept == 0 && down->bits == bits && down->group == group);
    CHECK(down->cols > (size_t)group); /* a sum of one group has one order */
    over_levels(&m, &(struct trial){text, threads, kv, true, 0, name});
    model_close(&m);
    model_close(&plain);
}

static const int widths[] = {2, 3, 4, 5, 6, 8};

static void test_quantized(void) {
    struct tiny t = tiny_default;
    for (int i = 0; i < 6; i++) {
        t.tied = i % 2;
        t.window = i == 2 ? 10 : 0;
        t.dtype = i < 3 ? DTYPE_F16 : DTYPE_BF16;
        check_quantized(&t, widths[i], 64, &short_text, i % 3 ? DTYPE_F16 : DTYPE_F32, one_to_four);
    }
}

static void test_groups_of_128(void) {
    struct tiny t = tiny_default;
    t.dim = 128;
    t.heads = 8;
    t.layers = 1;
    for (int i = 0; i < 6; i++) {
        bool wide = widths[i] == 4; /* more columns than the kernels take at a time */
        t.hidden = wide ? 2304 : 256;
        t.dtype = i % 2 ? DTYPE_F16 : DTYPE_BF16;
        check_quantized(&t, widths[i], 128, &short_text, DTYPE_F16, wide ? one_and_two : three);
    }
}

/* With groups of 32, by a model that is small even for a test: the text is long. */
static void test_long_batches(void) {
    struct tiny t = tiny_default;
    t.dim = 32;
    t.hidden = 96;
    t.heads = 2;
    t.kv_heads = 1;
    t.layers = 1;
    for (int i = 0; i < 6; i++) {
        t.window = i == 2 ? 20 : 0; /* the last tokens see nothing of the first 512 */
        t.dtype = i < 3 ? DTYPE_F16 : DTYPE_BF16;
        check_quantized(&t, widths[i], 32, &long_text, i % 3 ? DTYPE_F32 : DTYPE_F16, one_and_four);
    }
}

/* Levels differ by rounding only. */
static void test_levels_agree(void) {
    struct tiny t = tiny_default;
    struct model m;
    const char *level;
    float *scalar = NULL;
    tiny_open(&m, &t, "plain.npz", 9);
    for (int i = 0; (level = fixture_next_level(&i)) != NULL;) {
        struct run_options o = options;
        o.level = level;
        o.kv_type = DTYPE_F32;
        float *logits = logits_of(&m, &o, true);
        if (!scalar) scalar = logits;
        CHECK_MSG(largest_difference(logits, scalar, TOKENS) <= 1e-4f, "%s", level);
        if (logits != scalar) free(logits);
    }
    free(scalar);
    model_close(&m);
}

/* --- one timeline ----------------------------------------------------------------------------- */

/* A quantized model, for which bits must be equal. */
static void open_quantized(struct model *m) {
    struct tiny t = tiny_default;
    struct model plain;
    struct error e;
    struct quantize_report report;
    struct quantize_options o = {.bits = 4, .group = 64, .threads = 1};
    tiny_open(&plain, &t, "source.npz", 77);
    if (!quantize(&plain, scratch_path("quantized.npz"), &o, &report, &e) ||
        !model_open(m, scratch_path("quantized.npz"), &e)) {
        printf("%s\n", e.message);
        exit(1);
    }
    model_close(&plain);
}

/* Appends n ids from `from` on and gives the last one's logits, which `all` of the whole text in
 * one go holds too. */
static void check_append(struct run *r, size_t from, size_t n, const float *all) {
    struct error e;
    float logits[VOCAB];
    CHECK(r->pos == from && run_append(r, ids + from, n, logits, false, &e));
    CHECK(r->pos == from + n);
    CHECK_MSG(fixture_same(logits, all + (from + n - 1) * VOCAB, VOCAB), "%zu after %zu", n, from);
}

static void test_rewind(void) {
    struct model m;
    struct run r;
    open_quantized(&m);
    float *all = logits_of(&m, &options, true);
    open_run(&r, &m, &options, true);
    check_append(&r, 0, 30, all);
    run_rewind(&r, 10);
    check_append(&r, 10, 30, all);
    run_rewind(&r, 0);
    check_append(&r, 0, 1, all);
    check_append(&r, 1, TOKENS - 1, all);
    run_rewind(&r, TOKENS);     /* nothing to forget */
    run_rewind(&r, TOKENS + 5); /* nor here */
    CHECK(r.pos == TOKENS);
    run_rewind(&r, 20); /* another text from here on leaves no trace once it is forgotten */
    struct error e;
    CHECK(run_append(&r, ids, 40, NULL, false, &e) && r.pos == 60);
    run_rewind(&r, 20);
    check_append(&r, 20, 46, all);
    run_close(&r);
    free(all);
    model_close(&m);
}

static void check_refused(struct run *r, const int *some, size_t n, enum status status,
                          const char *words) {
    struct error e;
    float logits[VOCAB];
    size_t pos = r->pos;
    for (int i = 0; i < VOCAB; i++) logits[i] = NAN;
    CHECK(!run_append(r, some, n, logits, false, &e) && e.status == status && r->pos == pos);
    CHECK_MSG(strstr(e.message, words), "'%s' lacks '%s'", e.message, words);
    for (int i = 0; i < VOCAB; i++) CHECK(isnan(logits[i]));
}

static void test_refused_appends_change_nothing(void) {
    struct model m;
    struct run r;
    struct error e;
    struct run_options o = options;
    int wrong[TOKENS];
    memcpy(wrong, ids, sizeof wrong);
    open_quantized(&m);
    float *all = logits_of(&m, &options, true);
    o.context = 40;
    o.batch = 7;
    open_run(&r, &m, &o, true);
    check_refused(&r, ids, 41, STATUS_CONTEXT, "41 tokens do not fit the context of 40");
    check_append(&r, 0, 25, all);
    check_refused(&r, ids, 16, STATUS_CONTEXT, "41 tokens do not fit");
    check_refused(&r, ids, SIZE_MAX, STATUS_CONTEXT, "do not fit");
    wrong[9] = VOCAB;
    check_refused(&r, wrong, 10, STATUS_ARGUMENT,
                  "token id 203 lies outside the vocabulary of 203");
    wrong[9] = -1;
    check_refused(&r, wrong, 10, STATUS_ARGUMENT, "token id -1");
    CHECK(run_append(&r, ids, 0, NULL, false, &e) && r.pos == 25);
    check_append(&r, 25, 15, all);
    check_refused(&r, ids, 1, STATUS_CONTEXT, "41 tokens do not fit");
    run_rewind(&r, 39);
    check_append(&r, 39, 1, all);
    run_close(&r);
    free(all);
    model_close(&m);
}

/* Sizes that a run settles or refuses when it opens. */
static void test_opening(void) {
    struct tiny t = tiny_default;
    struct model m;
    struct run r;
    struct error e;
    struct run_options o = options;
    tiny_open(&m, &t, "plain.npz", 3);
    o.context = 0;
    o.batch = 1000;
    CHECK(run_open(&r, &m, &o, &e) && r.context == TINY_CONTEXT && r.batch == TINY_CONTEXT);
    size_t small = run_bytes(&r);
    run_close(&r);
    o.context = 2 * TINY_CONTEXT; /* more than the model's own is the caller's business */
    o.batch = TINY_CONTEXT;
    CHECK(run_open(&r, &m, &o, &e) && r.context == 2 * TINY_CONTEXT);
    size_t cache = TINY_CONTEXT * kv_position_bytes(&m.spec, o.kv_type);
    CHECK(kv_position_bytes(&m.spec, o.kv_type) == 2 * 2 * 2 * 16 * 2);
    CHECK(run_bytes(&r) >= small + cache && run_bytes(&r) <= small + 2 * cache);
    run_close(&r);
    o.context = (size_t)1 << 40;
    CHECK(!run_open(&r, &m, &o, &e) && e.status == STATUS_MEMORY);
    CHECK(strstr(e.message, "context of 1099511627776 tokens"));
    o = options;
    o.level = "mmx";
    CHECK(!run_open(&r, &m, &o, &e) && strstr(e.message, "mmx") && strstr(e.message, "scalar"));
    o = options;
    o.threads = 0;
    CHECK(!run_open(&r, &m, &o, &e) && strstr(e.message, "threads"));
    model_close(&m);
}

int main(void) {
    scratch_open();
    make_ids();
    check_run("plain weights", test_plain);
    check_run("quantized weights", test_quantized);
    check_run("groups of 128", test_groups_of_128);
    check_run("long batches", test_long_batches);
    check_run("levels agree", test_levels_agree);
    check_run("rewind", test_rewind);
    check_run("refused appends", test_refused_appends_change_nothing);
    check_run("opening", test_opening);
    return check_done();
}
