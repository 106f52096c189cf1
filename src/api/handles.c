#include "api/handles.h"

#include <stdio.h>

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

/* tokenizer_config.json may say that no BOS is wanted. */
static bool read_adds_bos(const struct store *store, int *adds, struct error *e) {
    struct span text = store_file(store, "tokenizer_config.json");
    struct config c;
    char where[512];
    if (!text.data) return true;
    store_where(store, "tokenizer_config.json", where, sizeof where);
    if (!config_open(&c, text, where, e)) return false;
    bool ok = config_flag(&c, "add_bos_token", adds, e);
    config_close(&c);
    return ok;
}

bool handles_open_tokenizer(nibble_tokenizer *t, const struct store *store, int bos,
                            struct error *e) {
    *t = (nibble_tokenizer){.bos = -1};
    struct span model = store_file(store, "tokenizer.model");
    int adds = -1;
    char where[512];
    if (!model.data) return true;
    store_where(store, "tokenizer.model", where, sizeof where);
    if (!read_adds_bos(store, &adds, e) || !tokens_open(&t->tokens, model, where, e)) return false;
    t->bos = bos >= 0 && bos < tokens_count(t->tokens) ? bos : tokens_bos(t->tokens);
    t->adds_bos = t->bos >= 0 && adds != 0;
    return true;
}
