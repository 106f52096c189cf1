/* One block of memory, given out from the front and freed as a whole.
 *
 * A layout function takes its pieces from an arena. It runs twice: once on an arena that only
 * counts (all zero), then on one opened with the counted size. After that nothing is allocated. */
#ifndef NIBBLE_BASE_ARENA_H
#define NIBBLE_BASE_ARENA_H

#include <stddef.h>

#include "base/error.h"

struct arena {
    unsigned char *base; /* NULL while counting */
    size_t used;         /* SIZE_MAX once a size has overflowed */
    size_t size;
};

/* count elements of elem_bytes each, 64-byte aligned and zero-filled; NULL while counting. */
void *arena_take(struct arena *a, size_t count, size_t elem_bytes);

/* Opens *a with size bytes (what the counting run used). The pages are touched only when used. */
bool arena_open(struct arena *a, size_t size, struct error *e);
void arena_close(struct arena *a);

/* Asks the system to back the first `bytes` with huge pages, where it can, and nothing else: for
 * what is used as a whole, since one page is then some megabytes. */
void arena_prefer_huge(const struct arena *a, size_t bytes);

#endif
