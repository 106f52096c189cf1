/* The post_processor of a tokenizer.json: the special tokens around a text. */
#ifndef NIBBLE_TEXT_TEMPLATE_H
#define NIBBLE_TEXT_TEMPLATE_H

#include "text/json.h"
#include "text/vocab.h"

enum { TEMPLATE_MAX = 8 };

struct template {
    int before[TEMPLATE_MAX], after[TEMPLATE_MAX];
    size_t before_count, after_count;
};

/* TemplateProcessing of a single text, ByteLevel (which changes offsets alone) and Sequences of
 * them. component: its JSON, or NULL for none. */
bool template_open(struct template *t, const cJSON *component, const struct vocab *vocab,
                   const struct json *in);

#endif
