#include "cli/generate_json.h"

#include <cjson/cJSON.h>
#include <stdlib.h>
#include <string.h>

#include "cli/output.h"
#include "cli/stats.h"

/* --- what is kept ----------------------------------------------------------------------------- */

/* Makes room for `more` elements in an array that grows by doubling. */
static void *reserve(struct generate_record *r, void *array, size_t *cap, size_t count, size_t more,
                     size_t elem_bytes) {
    if (count + more <= *cap) return array;
    size_t wanted = 2 * (count + more);
    void *bigger = realloc(array, wanted * elem_bytes);
    r->out_of_memory |= !bigger;
    if (!bigger) return array;
    *cap = wanted;
    return bigger;
}

void generate_json_text(struct generate_job *j, const char *text, size_t size) {
    struct generate_record *r = &j->record;
    r->text = reserve(r, r->text, &r->text_cap, r->text_size, size, 1);
    if (r->out_of_memory) return;
    memcpy(r->text + r->text_size, text, size);
    r->text_size += size;
}

static void keep_id(struct generate_record *r, int id) {
    r->ids = reserve(r, r->ids, &r->cap, r->count, 1, sizeof *r->ids);
    if (!r->out_of_memory) r->ids[r->count++] = id;
}

void generate_json_free(struct generate_record *r) {
    free(r->text);
    free(r->ids);
    free(r->waiting);
    cJSON_Delete(r->logprobs);
    *r = (struct generate_record){0};
}

/* --- tokens ----------------------------------------------------------------------------------- */

static void add_likeliest(const struct generate_job *j, cJSON *to, const nibble_logprob *top,
                          size_t n) {
    cJSON *list = cJSON_AddArrayToObject(to, "top");
    for (size_t i = 0; i < n; i++) {
        cJSON *o = cJSON_CreateObject();
        cJSON_AddNumberToObject(o, "id", top[i].id);
        cJSON_AddItemToObject(o, "text", output_json_token(j->session->tokenizer, top[i].id));
        cJSON_AddNumberToObject(o, "logprob", top[i].logprob);
        cJSON_AddItemToArray(list, o);
    }
}

/* Adds "logprob" and "top" of a token. */
static void add_logprobs(const struct generate_job *j, cJSON *to, const nibble_token *t) {
    nibble_logprob top[GENERATE_JSON_LOGPROBS];
    size_t n = (size_t)j->args->logprobs;
    if (n > j->vocab) n = j->vocab;
    cJSON_AddNumberToObject(to, "logprob", nibble_logprobs(t->logits, j->vocab, t->id, top, n));
    add_likeliest(j, to, top, n);
}

static void keep_logprobs(struct generate_job *j, const nibble_token *t) {
    struct generate_record *r = &j->record;
    if (!r->logprobs) r->logprobs = cJSON_CreateArray();
    cJSON *entry = cJSON_CreateObject();
    cJSON_AddNumberToObject(entry, "id", t->id);
    cJSON_AddItemToObject(entry, "text", output_json_token(j->session->tokenizer, t->id));
    add_logprobs(j, entry, t);
    if (!cJSON_AddItemToArray(r->logprobs, entry)) r->out_of_memory = true;
}

/* The text that has settled since the last event. */
static void add_text(struct generate_job *j, cJSON *event) {
    struct generate_record *r = &j->record;
    cJSON_AddItemToObject(event, "text",
                          j->session->tokenizer ? output_json_text(r->text, r->text_size)
                                                : cJSON_CreateNull());
    r->text_size = 0;
}

static void print_token(struct generate_job *j, const nibble_token *t) {
    cJSON *event = cJSON_CreateObject();
    cJSON_AddStringToObject(event, "event", "token");
    cJSON_AddNumberToObject(event, "id", t->id);
    add_text(j, event);
    if (j->args->logprobs >= 0) add_logprobs(j, event, t);
    output_json(event);
}

void generate_json_token(struct generate_job *j, const nibble_token *t) {
    if (j->args->jsonl) {
        print_token(j, t);
        return;
    }
    keep_id(&j->record, t->id);
    if (j->args->logprobs >= 0) keep_logprobs(j, t);
}

/* --- the run ---------------------------------------------------------------------------------- */

static void add_model(const struct generate_job *j, cJSON *to) {
    const char *path = j->args->words[0];
    char hash[17];
    cJSON_AddItemToObject(to, "model", output_json_text(path, strlen(path)));
    if (stats_hash(j->session, hash))
        cJSON_AddStringToObject(to, "hash", hash);
    else
        cJSON_AddNullToObject(to, "hash");
}

void generate_json_start(struct generate_job *j) {
    if (!j->args->jsonl) return;
    cJSON *event = cJSON_CreateObject();
    cJSON_AddStringToObject(event, "event", "start");
    if (j->args->echo) {
        if (j->prompt.size) generate_json_text(j, j->prompt.bytes, j->prompt.size);
        add_text(j, event);
    }
    cJSON_AddNumberToObject(event, "prompt_tokens", (double)j->ids.count);
    cJSON_AddNumberToObject(event, "seed", j->generation.seed);
    add_model(j, event);
    cJSON_AddItemToObject(event, "versions", stats_versions(j->session));
    output_json(event);
}

static void print_end(struct generate_job *j, const nibble_generated *g) {
    cJSON *event = cJSON_CreateObject();
    cJSON_AddStringToObject(event, "event", "end");
    add_text(j, event);
    cJSON_AddStringToObject(event, "finish_reason", stats_finish(g->finish));
    cJSON_AddNumberToObject(event, "tokens", (double)g->tokens);
    cJSON_AddNumberToObject(event, "cached_tokens", (double)j->cached);
    cJSON_AddNumberToObject(event, "dropped_tokens", (double)g->dropped);
    cJSON_AddItemToObject(event, "timings", stats_timings(j->session, g));
    output_json(event);
}

/* What was generated, behind the prompt if that is wanted. */
static cJSON *whole_text(const struct generate_job *j) {
    const struct generate_record *r = &j->record;
    if (!j->session->tokenizer) return cJSON_CreateNull();
    if (!j->args->echo) return output_json_text(r->text, r->text_size);
    size_t size = j->prompt.size + r->text_size;
    char *whole = malloc(size + 1);
    if (!whole) return NULL;
    if (j->prompt.size) memcpy(whole, j->prompt.bytes, j->prompt.size);
    if (r->text_size) memcpy(whole + j->prompt.size, r->text, r->text_size);
    cJSON *text = output_json_text(whole, size);
    free(whole);
    return text;
}

/* cJSON makes no array of none. */
static cJSON *ids_json(const struct generate_record *r) {
    return r->count ? cJSON_CreateIntArray(r->ids, (int)r->count) : cJSON_CreateArray();
}

static void print_object(struct generate_job *j, const nibble_generated *g) {
    struct generate_record *r = &j->record;
    cJSON *o = j->label ? cJSON_Duplicate(j->label, true) : cJSON_CreateObject();
    cJSON_AddItemToObject(o, "text", whole_text(j));
    cJSON_AddItemToObject(o, "ids", ids_json(r));
    cJSON_AddStringToObject(o, "finish_reason", stats_finish(g->finish));
    cJSON_AddNumberToObject(o, "prompt_tokens", (double)j->ids.count);
    cJSON_AddNumberToObject(o, "cached_tokens", (double)j->cached);
    cJSON_AddNumberToObject(o, "dropped_tokens", (double)g->dropped);
    cJSON_AddNumberToObject(o, "seed", j->generation.seed);
    if (j->args->logprobs >= 0) {
        cJSON_AddItemToObject(o, "logprobs", r->logprobs ? r->logprobs : cJSON_CreateArray());
        r->logprobs = NULL;
    }
    add_model(j, o);
    cJSON_AddItemToObject(o, "timings", stats_timings(j->session, g));
    cJSON_AddItemToObject(o, "versions", stats_versions(j->session));
    output_json(o);
}

void generate_json_end(struct generate_job *j, const nibble_generated *g) {
    if (j->args->jsonl)
        print_end(j, g);
    else
        print_object(j, g);
}
