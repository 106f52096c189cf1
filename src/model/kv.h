/* The KV cache: keys and values of every layer for one timeline of tokens.
 * ops/cache.h says how a layer keeps them. */
#ifndef NIBBLE_MODEL_KV_H
#define NIBBLE_MODEL_KV_H

#include "base/arena.h"
#include "model/spec.h"
#include "ops/cache.h"

struct kv {
    struct cache *layers; /* [spec.layers] */
};

/* The cache types that exist, by name ("f16", "f32", "q8"); any other is refused with the list. */
bool kv_type_find(const char *name, enum dtype *type, struct error *e);
const char *kv_type_name(enum dtype type);

void kv_layout(struct kv *kv, struct arena *a, const struct spec *s, enum dtype type,
               size_t context);

/* Bytes that one position takes over all layers. */
size_t kv_position_bytes(const struct spec *s, enum dtype type);

#endif
