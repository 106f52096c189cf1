/* How memory is read fast. */
#ifndef NIBBLE_KERN_STREAM_H
#define NIBBLE_KERN_STREAM_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

/* Loads stay in the order in which they are written, for this is how memory is read fast. */
#define KEEP_ORDER() __asm__ volatile("" : : : "memory")

/* How many bytes ahead a stream's lines are asked for: into the second cache and into the first. */
struct stream {
    size_t far, near;
};

/* Of weights. */
struct streams {
    struct stream quantized, plain;
    bool in_pairs; /* rows of 4 and 8 bits are read two side by side, PAIRS_AHEAD, not three */
};

/* A constant, for it makes faster code. */
#define PAIRS_AHEAD ((struct stream){64, 5120})

/* What suits this CPU, as kern_select found. */
extern _Atomic(const struct streams *) kern_streams;

static inline struct streams streams_here(void) {
    return *atomic_load_explicit(&kern_streams, memory_order_relaxed);
}

/* To be called once for each 64 bytes of a stream. */
static inline void stream_ahead(const unsigned char *p, struct stream s) {
    __builtin_prefetch(p + s.far, 0, 2);
    __builtin_prefetch(p + s.near);
}

/* For the beginning of a stream of n bytes, which that leaves out. */
static inline void stream_begin(const unsigned char *p, size_t n, struct stream s) {
    size_t lead = s.far > s.near ? s.far : s.near;
    for (size_t i = 0; i < lead && i < n; i += 64) __builtin_prefetch(p + i, 0, 2);
}

#endif
