#include "api/handles.h"

#include <stdio.h>
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

/* tokenizer_config.json may say whether BOS is wanted, and which token that is. */
static bool read_bos(const struct store *store, nibble_tokenizer *t, int *adds, struct error *e) {
    struct span text = store_file(store, "tokenizer_config.json");
    struct config c;
    char where[512];
    if (!text.data) return true;
    store_where(store, "tokenizer_config.json", where, sizeof where);
    if (!config_open(&c, text, where, e)) return false;
    bool ok = config_flag(&c, "add_bos_token", adds, e);
    const char *bos = config_text(&c, "bos_token.content bos_token");
    if (bos) t->bos = tokens_find(t->tokens, bos, strlen(bos));
    config_close(&c);
    return ok;
}

/* tokenizer.json goes first: it holds the added tokens and the template as well. */
static bool open_file(nibble_tokenizer *t, const struct store *store, struct error *e) {
    struct span json = store_file(store, "tokenizer.json");
    struct span model = store_file(store, "tokenizer.model");
    char where[512];
    if (!json.data && !model.data) return true;
    store_where(store, json.data ? "tokenizer.json" : "tokenizer.model", where, sizeof where);
    t->why = !model.data  ? "tokenizer.json"
             : !json.data ? "tokenizer.model"
                          : "tokenizer.json, which has added tokens and template as well as what "
                            "tokenizer.model has";
    return json.data ? tokens_open_json(&t->tokens, json, where, e)
                     : tokens_open(&t->tokens, model, where, e);
}

static void choose_before(nibble_tokenizer *t, int bos, int adds) {
    size_t count;
    const int *before = tokens_before(t->tokens, &count);
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

bool handles_open_tokenizer(nibble_tokenizer *t, const struct store *store, int bos,
                            struct error *e) {
    *t = (nibble_tokenizer){.bos = -1};
    int adds = -1;
    if (!open_file(t, store, e)) return false;
    if (!t->tokens) return true;
    if (!read_bos(store, t, &adds, e)) {
        tokens_close(t->tokens);
        t->tokens = NULL;
        return false;
    }
    choose_before(t, bos, adds);
    return true;
}
