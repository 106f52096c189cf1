#include "base/arena.h"

#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>

enum { ALIGNMENT = 64, PAGE = 4096, HUGE_PAGE = 2 << 20 };

void *arena_take(struct arena *a, size_t count, size_t elem_bytes) {
    size_t bytes, end;
    if (__builtin_mul_overflow(count, elem_bytes, &bytes) || bytes > SIZE_MAX - ALIGNMENT ||
        __builtin_add_overflow(a->used, (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT, &end)) {
        a->used = SIZE_MAX;
        return NULL;
    }
    void *piece = a->base && end <= a->size ? a->base + a->used : NULL;
    a->used = end;
    return piece;
}

/* calloc of a large block maps fresh zero pages, which stay untouched until they are used. */
bool arena_open(struct arena *a, size_t size, struct error *e) {
    *a = (struct arena){0};
    unsigned char *block = size < SIZE_MAX - ALIGNMENT ? calloc(1, size + ALIGNMENT) : NULL;
    if (!block) return fail(e, STATUS_MEMORY, "not enough memory: %zu MB are needed", size >> 20);
    size_t skip = ALIGNMENT - (uintptr_t)block % ALIGNMENT;
    block[skip - 1] = (unsigned char)skip; /* for arena_close: where the block began */
    a->base = block + skip;
    a->size = size;
    return true;
}

void arena_close(struct arena *a) {
    if (a->base) free(a->base - a->base[-1]);
    *a = (struct arena){0};
}

/* Whole huge pages only: what follows must not become part of one. */
void arena_prefer_huge(const struct arena *a, size_t bytes) {
    uintptr_t base = (uintptr_t)a->base, end = (base + bytes) / HUGE_PAGE * HUGE_PAGE;
    uintptr_t begin = (base + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE;
    uintptr_t last = (base + a->size) / PAGE * PAGE, rest = begin < end ? end : begin;
    if (begin < end) madvise(a->base + (begin - base), end - begin, MADV_HUGEPAGE);
    if (rest < last) madvise(a->base + (rest - base), last - rest, MADV_NOHUGEPAGE);
}
