#include "model/kv.h"

#include <string.h>

bool kv_type_find(const char *name, enum dtype *type, struct error *e) {
    if (strcmp(name, "f16") == 0)
        *type = DTYPE_F16;
    else if (strcmp(name, "f32") == 0)
        *type = DTYPE_F32;
    else
        return fail(e, STATUS_ARGUMENT, "KV cache type '%.32s' does not exist; use f16 or f32",
                    name);
    return true;
}

size_t kv_position_bytes(const struct spec *s, enum dtype type) {
    return 2 * s->layers * s->kv_heads * s->head_dim * dtype_bytes(type);
}

void kv_layout(struct kv *kv, struct arena *a, const struct spec *s, enum dtype type,
               size_t context) {
    size_t values = s->kv_heads * s->head_dim; /* of a position */
    kv->layers = arena_take(a, s->layers, sizeof *kv->layers);
    for (size_t i = 0; i < s->layers; i++) {
        struct kv_layer layer = {
            .dtype = type, .heads = s->kv_heads, .context = context, .head_dim = s->head_dim};
        layer.k = arena_take(a, context, values * dtype_bytes(type));
        layer.v = arena_take(a, context, values * dtype_bytes(type));
        if (a->base) kv->layers[i] = layer;
    }
}
