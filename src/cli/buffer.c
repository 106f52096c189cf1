#include "cli/buffer.h"

#include <stdlib.h>
#include <string.h>

void buffer_add(struct buffer *b, const void *bytes, size_t size) {
    if (b->failed) return;
    if (b->size + size + 1 > b->cap) {
        size_t cap = 2 * (b->size + size + 1);
        char *bigger = realloc(b->bytes, cap);
        b->failed = !bigger;
        if (!bigger) return;
        b->bytes = bigger;
        b->cap = cap;
    }
    if (size) memcpy(b->bytes + b->size, bytes, size);
    b->size += size;
    b->bytes[b->size] = 0;
}
