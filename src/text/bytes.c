#include "text/bytes.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

static bool grow(struct bytes *b, size_t size) {
    if (size <= b->room - b->size) return true;
    if (size > SIZE_MAX / 4 || b->size > SIZE_MAX / 4) return false;
    size_t room = b->size + size > 2 * b->room ? b->size + size : 2 * b->room;
    char *grown = realloc(b->data, room);
    if (!grown) return false;
    b->data = grown;
    b->room = room;
    return true;
}

void bytes_add(struct bytes *b, const char *data, size_t size) {
    if (!size || b->failed) return;
    b->failed = !grow(b, size);
    if (b->failed) return;
    memcpy(b->data + b->size, data, size);
    b->size += size;
}

void bytes_clear(struct bytes *b) {
    b->size = 0;
    b->failed = false;
}

void bytes_free(struct bytes *b) {
    free(b->data);
    *b = (struct bytes){0};
}

void bytes_swap(struct bytes *a, struct bytes *b) {
    struct bytes kept = *a;
    *a = *b;
    *b = kept;
}
