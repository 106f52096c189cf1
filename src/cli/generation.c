#include "cli/generation.h"

#include <math.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "cli/message.h"
#include "cli/options.h"
#include "cli/prompt.h"

static int read_bias(const char *text, nibble_bias *bias) {
    const char *equals = strchr(text, '=');
    char id_text[16];
    double id, value;
    size_t length = equals ? (size_t)(equals - text) : sizeof id_text;
    bool ok = length < sizeof id_text;
    if (ok) {
        memcpy(id_text, text, length);
        id_text[length] = 0;
        ok = options_number(id_text, 0, 1 << 30, true, &id) &&
             options_number(equals + 1, -INFINITY, 1e30, false, &value);
    }
    if (!ok) {
        message("--logit-bias: '%s' is not ID=VALUE", text);
        return EXIT_USAGE;
    }
    *bias = (nibble_bias){(int)id, (float)value};
    return EXIT_DONE;
}

static uint32_t choose_seed(const struct args *a) {
    uint32_t seed = (uint32_t)nibble_clock();
    if (a->seed >= 0) return (uint32_t)a->seed;
    if (getrandom(&seed, sizeof seed, 0) != sizeof seed) seed ^= (uint32_t)getpid();
    return seed;
}

static nibble_sampling sampling_of(const struct args *a, const struct generation *g) {
    return (nibble_sampling){.seed = g->seed,
                             .temp = (float)a->temp,
                             .top_k = (int)a->top_k,
                             .top_p = (float)a->top_p,
                             .min_p = (float)a->min_p,
                             .typical = (float)a->typical,
                             .repeat_penalty = (float)a->repeat_penalty,
                             .presence_penalty = (float)a->presence_penalty,
                             .frequency_penalty = (float)a->frequency_penalty,
                             .repeat_last_n = (int)a->repeat_last_n,
                             .bias = g->bias,
                             .bias_count = (size_t)a->logit_bias.count};
}

int generation_read(const struct args *a, struct generation *g) {
    for (int i = 0; i < a->stops.count; i++) {
        if (*a->stops.items[i]) continue;
        message("--stop: the text is empty");
        return EXIT_USAGE;
    }
    for (int i = 0; i < a->logit_bias.count; i++) {
        int code = read_bias(a->logit_bias.items[i], &g->bias[i]);
        if (code != EXIT_DONE) return code;
    }
    g->seed = choose_seed(a);
    g->sampling = sampling_of(a, g);
    g->end = -1;
    g->keep = a->keep;
    g->slide = a->overflow && strcmp(a->overflow, "slide") == 0;
    return EXIT_DONE;
}

/* Options that are given count more than what the model says. */
static void keep_given(const struct args *a, nibble_sampling *from_model,
                       const nibble_sampling *given) {
#define KEEP(option, member)                                                                       \
    if (options_given(a, offsetof(struct args, option))) from_model->member = given->member
    KEEP(temp, temp);
    KEEP(top_k, top_k);
    KEEP(top_p, top_p);
    KEEP(min_p, min_p);
    KEEP(typical, typical);
    KEEP(repeat_penalty, repeat_penalty);
#undef KEEP
}

int generation_ask_model(const struct args *a, const struct session *s, struct generation *g,
                         bool tell) {
    nibble_error e;
    nibble_sampling sampling = g->sampling;
    bool found;
    g->end = prompt_end(a, s);
    if (!a->model_defaults) return EXIT_DONE;
    if (!nibble_model_sampling(s->model, &sampling, &found, &e)) return message_error(&e);
    if (!found && tell)
        message("note: the model says nothing of sampling, so --model-defaults does nothing");
    keep_given(a, &sampling, &g->sampling);
    g->sampling = sampling;
    return EXIT_DONE;
}

nibble_generation generation_options(const struct args *a, const struct generation *g) {
    return (nibble_generation){
        .sampling = g->sampling,
        .max_tokens = a->n_predict < 0 ? SIZE_MAX : (size_t)a->n_predict,
        .ends = &g->end,
        .end_count = g->end >= 0,
        .ignore_end = a->ignore_eos,
        .stops = a->stops.items,
        .stop_count = (size_t)a->stops.count,
        .slide = g->slide,
    };
}

size_t generation_keep(const struct generation *g, const nibble_ids *prompt, int bos) {
    size_t first = prompt->count && prompt->ids[0] == bos;
    bool all = g->keep < 0 || (size_t)g->keep >= prompt->count - first;
    return all ? prompt->count : first + (size_t)g->keep;
}

void generation_tell_overflow(const struct generation *g, const nibble_generated *done,
                              size_t context) {
    if (done->slides) {
        message("note: the context of %zu tokens was full and slid %zu time%s: %zu old tokens were "
                "dropped",
                context, done->slides, done->slides == 1 ? "" : "s", done->dropped);
    }
    if (done->finish == NIBBLE_FINISH_CONTEXT) {
        message("note: the context of %zu tokens is full; raise --ctx-size, or %s", context,
                g->slide ? "lower --keep, which leaves nothing to drop"
                         : "let it slide with --overflow slide");
    }
}
