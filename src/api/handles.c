#include "api/handles.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cpu.h"

_Static_assert((int)NIBBLE_INTERRUPTED == (int)STATUS_INTERRUPTED,
               "the two lists of statuses agree");

bool handles_report(bool ok, const struct error *from, nibble_error *to) {
    if (ok) return true;
    to->status = (nibble_status)from->status;
    snprintf(to->message, sizeof to->message, "%s", from->message);
    return false;
}

int handles_threads(int asked) {
    struct cpu cpu;
    if (asked) return asked;
    cpu_probe(&cpu);
    return cpu.threads;
}

static void read_token(const nibble_tokenizer *t, const struct config *c, const char *names,
                       int *id) {
    const char *name = config_text(c, names);
    int found = name ? tokens_find(t->tokens, name, strlen(name)) : -1;
    if (found >= 0) *id = found;
}

/* tokenizer_config.json may say whether BOS is wanted, and which tokens BOS and EOS are. */
static bool read_ends(const struct store *store, nibble_tokenizer *t, int *adds, struct error *e) {
    struct span text = store_file(store, "tokenizer_config.json");
    struct config c;
    char where[512];
    if (!text.data) return true;
    store_where(store, "tokenizer_config.json", where, sizeof where);
    if (!config_open(&c, text, where, e)) return false;
    bool ok = config_flag(&c, "add_bos_token", adds, e);
    read_token(t, &c, "bos_token.content bos_token", &t->bos);
    read_token(t, &c, "eos_token.content eos_token", &t->eos);
    config_close(&c);
    return ok;
}

enum { BESIDE = 3 };

/* What a tokenizer.model does not say of added tokens. */
static size_t list_beside(const struct store *store, char (*where)[512],
                          struct extra_source *sources) {
    static const struct {
        const char *name;
        enum extra_form form;
    } files[BESIDE] = {{"tokenizer_config.json", EXTRA_DECODER},
                       {"tokenizer.json", EXTRA_LIST},
                       {"added_tokens.json", EXTRA_IDS}};
    size_t count = 0;
    for (int i = 0; i < BESIDE; i++) {
        struct span file = store_file(store, files[i].name);
        if (!file.data) continue;
        store_where(store, files[i].name, where[count], sizeof *where);
        sources[count] = (struct extra_source){files[i].form, file, where[count]};
        count++;
    }
    return count;
}

static bool open_model(nibble_tokenizer *t, const struct store *store, int limit, struct error *e) {
    char where[512], beside_where[BESIDE][512];
    struct extra_source sources[BESIDE];
    struct tokens_beside beside = {sources, list_beside(store, beside_where, sources), limit};
    store_where(store, "tokenizer.model", where, sizeof where);
    return tokens_open(&t->tokens, store_file(store, "tokenizer.model"), where, &beside, e);
}

/* tokenizer.json goes first: it holds the added tokens and the template as well. What it asks for
 * and is not done a tokenizer.model may do. */
static bool open_file(nibble_tokenizer *t, const struct store *store, int limit, struct error *e) {
    struct span json = store_file(store, "tokenizer.json");
    bool model = store_file(store, "tokenizer.model").data != NULL;
    char where[512];
    t->file = json.data ? "tokenizer.json" : "tokenizer.model";
    if (!json.data) return !model || open_model(t, store, limit, e);
    store_where(store, "tokenizer.json", where, sizeof where);
    if (tokens_open_json(&t->tokens, json, where, e)) {
        if (model)
            t->why = "it has added tokens and what goes around a text, besides what "
                     "tokenizer.model has";
        return true;
    }
    if (!model || e->status != STATUS_MODEL) return false;
    t->file = "tokenizer.model";
    t->why = "tokenizer.json asks for what nibble does not do";
    return open_model(t, store, limit, e);
}

static void choose_before(nibble_tokenizer *t, int bos, int adds) {
    int before[TOKENS_MAX_BEFORE];
    size_t count = tokens_before(t->tokens, before);
    if (tokens_bos(t->tokens) >= 0) t->bos = tokens_bos(t->tokens);
    if (bos >= 0 && bos < tokens_count(t->tokens)) t->bos = bos;
    if (adds < 0) adds = count > 0 || !tokens_has_template(t->tokens);
    t->adds_bos = t->bos >= 0 && adds;
    t->before[0] = t->bos;
    t->before_count = t->bos >= 0;
    if (count < 2) return;
    memcpy(t->before, before, count * sizeof *before);
    t->before_count = count;
}

bool handles_open_tokenizer(nibble_tokenizer *t, const struct store *store, int bos, size_t rows,
                            struct error *e) {
    *t = (nibble_tokenizer){.bos = -1, .eos = -1};
    int adds = -1;
    if (!open_file(t, store, (int)rows, e)) return false;
    if (!t->tokens) return true;
    t->eos = tokens_eos(t->tokens);
    if (!read_ends(store, t, &adds, e)) {
        tokens_close(t->tokens);
        t->tokens = NULL;
        return false;
    }
    choose_before(t, bos, adds);
    return true;
}

bool handles_open_chat(nibble_model *m, struct error *e) {
    static const char name[] = "chat_segments.json";
    const struct store *store = &m->model.store;
    const nibble_tokenizer *t = &m->tokenizer;
    char where[512];
    m->chat_end = -1;
    if (!store_file(store, name).data) return true;
    store_where(store, name, where, sizeof where);
    if (!chat_json_open(&m->chat, store_file(store, name), where, e)) return false;
    if (t->tokens) m->chat_end = chat_end(t->tokens, &m->chat, t->bos, t->eos);
    return true;
}

/* Whether the settings of that name have a template. */
static bool has_template(const struct store *store, const char *name) {
    struct span text = store_file(store, name);
    struct error e;
    struct config c;
    if (!text.data || !config_open(&c, text, name, &e)) return false;
    bool there = config_find(&c, "chat_template", NULL) != NULL;
    config_close(&c);
    return there;
}

const char *handles_template_file(const struct store *store) {
    static const char own[] = "chat_template.jinja";
    static const char *const settings[] = {"tokenizer_config.json", "chat_template.json"};
    if (store_file(store, own).data) return own;
    for (int i = 0; i < 2; i++) {
        if (has_template(store, settings[i])) return settings[i];
    }
    return NULL;
}

bool handles_ends(const nibble_model *m, const int *more, size_t more_count, int **ends,
                  size_t *count, struct error *e) {
    const nibble_tokenizer *t = &m->tokenizer;
    size_t own = 0;
    const int *own_ends = t->tokens ? tokens_ends(t->tokens, &own) : NULL;
    int *list = *ends = malloc((own + more_count + 2) * sizeof *list);
    if (!list) return fail(e, STATUS_MEMORY, "not enough memory for a list of end tokens");
    *count = 0;
    for (size_t i = 0; i < own; i++) list[(*count)++] = own_ends[i];
    for (size_t i = 0; i < more_count; i++) list[(*count)++] = more[i];
    if (!t->tokens) return true;
    list[(*count)++] = t->eos;
    list[(*count)++] = m->chat_end;
    return true;
}
