/* Many generations in one process, with random models, options and prompts; soak.py runs it.
 *
 *     soak COUNT SEED MODEL...
 *
 * prints one line: a hash over all that was generated, and the most private memory held between
 * generations 50 and 100, and in the last tenth. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gen/random.h"
#include "nibble.h"

enum { MODELS = 16, PROMPT = 40, TOKENS = 24 };

struct soak {
    struct random random;
    const char *paths[MODELS];
    nibble_model *models[MODELS];
    size_t count;
    uint64_t hash;
};

static void stop(const nibble_error *e) {
    printf("%s\n", e->message);
    exit(1);
}

static size_t below(struct soak *s, size_t n) {
    return (size_t)(random_unit(&s->random) * (double)n);
}

/* FNV-1a. */
static void mix(struct soak *s, const void *bytes, size_t size) {
    const unsigned char *p = bytes;
    for (size_t i = 0; i < size; i++) s->hash = (s->hash ^ p[i]) * 1099511628211u;
}

static void on_token(void *arg, const nibble_token *t) {
    mix(arg, &t->id, sizeof t->id);
}

static void on_text(void *arg, const char *text, size_t size) {
    mix(arg, text, size);
}

static nibble_context_options random_context(struct soak *s) {
    static const char *const kinds[] = {NULL, "f32", "q8"}, *const levels[] = {NULL, NULL,
                                                                               "scalar"};
    nibble_context_options o = nibble_context_defaults();
    o.context = 1 + below(s, 2 * (PROMPT + TOKENS));
    o.batch = below(s, 4) ? 1 + below(s, PROMPT) : 0;
    o.threads = 1 + (int)below(s, 4);
    o.kv_type = kinds[below(s, 3)];
    o.level = levels[below(s, 3)];
    o.blas = below(s, 8) == 0;
    return o;
}

static nibble_generation random_generation(struct soak *s, const char *const *stops) {
    nibble_generation g = {.sampling = nibble_sampling_defaults(), .max_tokens = below(s, TOKENS)};
    g.sampling.seed = below(s, 1 << 30);
    g.sampling.temp = (float)below(s, 20) / 10;
    g.sampling.top_k = (int)below(s, 50);
    g.sampling.top_p = (float)(1 + below(s, 100)) / 100;
    g.sampling.min_p = (float)below(s, 20) / 100;
    g.sampling.repeat_penalty = 1 + (float)below(s, 3) / 10;
    g.ignore_end = below(s, 2);
    g.stops = stops;
    g.stop_count = below(s, 2);
    g.arg = s;
    g.on_text = on_text;
    g.on_token = on_token;
    return g;
}

/* A refusal (the prompt does not fit) is a result too. */
static void generate(struct soak *s, const nibble_model *m) {
    static const char *const stops[] = {"the"};
    nibble_model_info info;
    nibble_error e = {0};
    nibble_generated done = {0};
    int ids[PROMPT];
    nibble_model_describe(m, &info);
    nibble_context_options o = random_context(s);
    nibble_generation g = random_generation(s, stops);
    size_t n = 1 + below(s, PROMPT);
    for (size_t i = 0; i < n; i++) ids[i] = (int)below(s, info.vocab);
    nibble_context *c = nibble_context_open(m, &o, &e);
    if (!c) stop(&e);
    bool ok = nibble_generate(c, &g, ids, n, &done, &e);
    if (!ok && e.status != NIBBLE_CONTEXT) stop(&e);
    int end = ok ? (int)done.finish : -1;
    mix(s, &end, sizeof end);
    nibble_context_close(c);
}

static void open_model(struct soak *s, size_t i) {
    nibble_error e;
    nibble_model_close(s->models[i]);
    s->models[i] = nibble_model_open(s->paths[i], &e);
    if (!s->models[i]) stop(&e);
}

static size_t larger(size_t a, size_t b) {
    return a > b ? a : b;
}

int main(int argc, char **argv) {
    static struct soak s = {.hash = 14695981039346656037u};
    size_t early = 0, late = 0, count = argc > 1 ? (size_t)atol(argv[1]) : 0;
    for (int i = 3; i < argc && s.count < MODELS; i++) s.paths[s.count++] = argv[i];
    if (!count || !s.count) {
        printf("usage: soak COUNT SEED MODEL...\n0 passed, 0 failed\n");
        return 2;
    }
    random_seed(&s.random, (uint64_t)atol(argv[2]), 0);
    for (size_t i = 0; i < s.count; i++) open_model(&s, i);
    for (size_t i = 0; i < count; i++) {
        size_t pick = below(&s, s.count);
        if (below(&s, 10) == 0) open_model(&s, pick);
        generate(&s, s.models[pick]);
        if (i >= 50 && i < 100) early = larger(early, nibble_memory_private());
        if (i >= count - count / 10) late = larger(late, nibble_memory_private());
    }
    for (size_t i = 0; i < s.count; i++) nibble_model_close(s.models[i]);
    printf("%016" PRIx64 " %zu %zu\n", s.hash, early, late);
    return 0;
}
