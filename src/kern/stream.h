/* How memory is read fast. */
#ifndef NIBBLE_KERN_STREAM_H
#define NIBBLE_KERN_STREAM_H

#include <stdatomic.h>
#include <stddef.h>

/* How many bytes ahead a stream's lines are asked for: into the second cache and into the first. */
struct stream {
    size_t far, near;
};

/* What suits this CPU, as kern_select found. */
extern _Atomic(const struct stream *) kern_stream;

static inline struct stream stream_here(void) {
    return *atomic_load_explicit(&kern_stream, memory_order_relaxed);
}

/* To be called once for each 64 bytes of a stream. */
static inline void stream_ahead(const unsigned char *p, struct stream s) {
    __builtin_prefetch(p + s.far, 0, 2);
    __builtin_prefetch(p + s.near);
}

#endif
