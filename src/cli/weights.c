#include "cli/weights.h"

#include <stdio.h>
#include <string.h>

enum { MAX_KINDS = 64 };

/* The bytes of each way of storing numbers that a model's tensors use. */
struct kinds {
    nibble_tensor items[MAX_KINDS];
    int count;
};

static void see_tensor(void *arg, const nibble_tensor *t) {
    struct kinds *kinds = arg;
    for (int i = 0; i < kinds->count; i++) {
        nibble_tensor *k = &kinds->items[i];
        if (strcmp(k->format, t->format) != 0 || k->bits != t->bits || k->group != t->group)
            continue;
        k->bytes += t->bytes;
        return;
    }
    if (kinds->count < MAX_KINDS) kinds->items[kinds->count++] = *t;
}

void weights_summary(const nibble_model *m, char text[WEIGHTS_TEXT]) {
    struct kinds kinds = {0};
    nibble_tensor most = {.format = ""};
    nibble_model_tensors(m, see_tensor, &kinds);
    for (int i = 0; i < kinds.count; i++) {
        if (kinds.items[i].bytes > most.bytes) most = kinds.items[i];
    }
    snprintf(text, WEIGHTS_TEXT, most.group ? "%s %d bits, group %d" : "%s", most.format, most.bits,
             most.group);
}
