#include "model/arch.h"

#include <stdio.h>
#include <string.h>

static const struct arch rows[] = {
    {.model_type = "llama", .title = "Llama 1 to 3 and models built like them"},
    {.model_type = "mistral",
     .title = "Mistral 7B and Nemo: Llama's equations with a sliding window"},
};
enum { ROWS = sizeof rows / sizeof *rows };

static void list(char *out, size_t size) {
    *out = 0;
    for (int i = 0; i < ROWS; i++) {
        size_t used = strlen(out);
        snprintf(out + used, size - used, "%s%s", i ? ", " : "", rows[i].model_type);
    }
}

bool arch_find(const struct arch **arch, const struct config *c, struct error *e) {
    const char *type = config_text(c, "model_type");
    bool meta = !config_find(c, "model_type", NULL) && config_find(c, "dim", NULL);
    if (meta) type = rows[0].model_type; /* params.json in Meta's own spelling names no family */
    for (int i = 0; type && i < ROWS; i++) {
        if (strcmp(type, rows[i].model_type) != 0) continue;
        *arch = &rows[i];
        return true;
    }
    char known[512];
    list(known, sizeof known);
    if (!type)
        return fail(e, STATUS_MODEL, "%s does not say model_type in words; nibble runs %s",
                    c->where, known);
    return fail(e, STATUS_MODEL, "%s: model_type '%.64s' is not supported; nibble runs %s",
                c->where, type, known);
}
