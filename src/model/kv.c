#include "model/kv.h"

#include <string.h>

static const struct {
    const char *name;
    enum dtype type;
} types[] = {{"f16", DTYPE_F16}, {"f32", DTYPE_F32}, {"q8", DTYPE_I8}};

enum { TYPES = sizeof types / sizeof *types };

bool kv_type_find(const char *name, enum dtype *type, struct error *e) {
    for (size_t i = 0; i < TYPES; i++) {
        *type = types[i].type;
        if (strcmp(name, types[i].name) == 0) return true;
    }
    return fail(e, STATUS_ARGUMENT, "KV cache type '%.32s' does not exist; use f16, f32 or q8",
                name);
}

const char *kv_type_name(enum dtype type) {
    for (size_t i = 0; i < TYPES; i++) {
        if (types[i].type == type) return types[i].name;
    }
    return dtype_name(type);
}

size_t kv_position_bytes(const struct spec *s, enum dtype type) {
    return s->layers * cache_position_bytes(type, s->kv_heads, s->head_dim, s->value_dim);
}

void kv_layout(struct kv *kv, struct arena *a, const struct spec *s, enum dtype type,
               size_t context) {
    kv->layers = arena_take(a, s->layers, sizeof *kv->layers);
    for (size_t i = 0; i < s->layers; i++) {
        struct cache layer = {.dtype = type,
                              .heads = s->kv_heads,
                              .context = context,
                              .key_dim = s->head_dim,
                              .value_dim = s->value_dim};
        cache_layout(&layer, a);
        if (a->base) kv->layers[i] = layer;
    }
}
