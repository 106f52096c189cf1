#include "cli/stats.h"

#include <cjson/cJSON.h>
#include <stdio.h>

double stats_rate(size_t count, uint64_t ns) {
    return ns ? (double)count * 1e9 / (double)ns : 0;
}

const char *stats_finish(nibble_finish finish) {
    static const char *const names[] = {
        [NIBBLE_FINISH_STOP] = "stop",
        [NIBBLE_FINISH_LENGTH] = "length",
        [NIBBLE_FINISH_STRING] = "string",
        [NIBBLE_FINISH_CONTEXT] = "context",
        [NIBBLE_FINISH_INTERRUPTED] = "interrupted",
    };
    return names[finish];
}

/* The first token comes out of the prompt's pass: the rate is that of those after it. */
static double generation_rate(const nibble_generated *g) {
    return g->tokens > 1 ? stats_rate(g->tokens - 1, g->tokens_ns) : 0;
}

void stats_print(const struct session *s, const nibble_generated *g, uint32_t seed) {
    nibble_model_info model;
    nibble_context_info context;
    nibble_model_describe(s->model, &model);
    nibble_context_describe(s->context, &context);
    double rate = generation_rate(g);
    fprintf(stderr,
            "load       %.3f s: %s, %.1f M parameters, %.1f MB mapped\n"
            "prompt     %zu tokens, %.1f tok/s, first token after %.3f s\n"
            "generation %zu tokens, %.1f tok/s, %.1f GB/s of weights, finish: %s\n"
            "memory     %.1f MB private, %.1f MB at most with mapped pages\n"
            "run        context %zu, KV %s, %d threads, %s, seed %u\n",
            (double)s->load_ns / 1e9, model.family, (double)model.parameters / 1e6,
            (double)model.mapped_bytes / 1e6, g->prompt_tokens,
            stats_rate(g->prompt_tokens, g->prompt_ns), (double)g->first_ns / 1e9, g->tokens, rate,
            rate * (double)model.bytes_per_token / 1e9, stats_finish(g->finish),
            (double)nibble_memory_private() / 1e6, (double)nibble_memory_peak() / 1e6,
            context.context, context.kv_type, context.threads, context.level, seed);
}

bool stats_hash(const struct session *s, char out[17]) {
    nibble_model_info model;
    nibble_model_describe(s->model, &model);
    snprintf(out, 17, "%016llx", (unsigned long long)model.hash);
    return model.hash != 0;
}

cJSON *stats_timings(const struct session *s, const nibble_generated *g) {
    cJSON *o = cJSON_CreateObject();
    cJSON_AddNumberToObject(o, "load_s", (double)s->load_ns / 1e9);
    cJSON_AddNumberToObject(o, "prompt_s", (double)g->prompt_ns / 1e9);
    cJSON_AddNumberToObject(o, "first_token_s", (double)g->first_ns / 1e9);
    cJSON_AddNumberToObject(o, "generation_s", (double)g->tokens_ns / 1e9);
    cJSON_AddNumberToObject(o, "prompt_tokens_per_s", stats_rate(g->prompt_tokens, g->prompt_ns));
    cJSON_AddNumberToObject(o, "generation_tokens_per_s", generation_rate(g));
    return o;
}

cJSON *stats_versions(const struct session *s) {
    nibble_context_info context;
    nibble_context_describe(s->context, &context);
    cJSON *o = cJSON_CreateObject();
    cJSON_AddStringToObject(o, "nibble", nibble_version());
    cJSON_AddStringToObject(o, "commit", nibble_commit());
    cJSON_AddStringToObject(o, "level", context.level);
    cJSON_AddNumberToObject(o, "threads", context.threads);
    cJSON_AddStringToObject(o, "kv_type", context.kv_type);
    cJSON_AddNumberToObject(o, "context", (double)context.context);
    return o;
}
