/* Every number the equations need, read from config.json or params.json by the table spec.def. */
#ifndef NIBBLE_MODEL_SPEC_H
#define NIBBLE_MODEL_SPEC_H

#include <stddef.h>

#include "model/config.h"

enum spec_rope_kind { SPEC_ROPE_DEFAULT, SPEC_ROPE_LINEAR, SPEC_ROPE_LLAMA3, SPEC_ROPE_YARN };

struct spec {
#define SPEC_SIZE(member, names, absent, low, high) size_t member;
#define SPEC_REAL(member, names, absent, low, high) double member;
#define SPEC_FLAG(member, names) int member; /* -1: the file does not say */
#define SPEC_CHOICE(member, names, words) int member;
#include "model/spec.def"
#undef SPEC_SIZE
#undef SPEC_REAL
#undef SPEC_FLAG
#undef SPEC_CHOICE
};

/* Reads and checks every row. Members that the file leaves open and that follow from others
 * (kv_heads, head_dim) are filled; hidden, vocab and context stay 0 for model_open to settle. A
 * number that must be there and is not, or is out of range, or does not fit the others, is refused
 * by its name. */
bool spec_read(struct spec *s, const struct config *c, struct error *e);

/* Calls print once a row with the value as text. */
void spec_each(const struct spec *s, void (*print)(void *arg, const char *name, const char *value),
               void *arg);

#endif
