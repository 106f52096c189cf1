/* Text on its way out: held back while it may still become a stop string or a whole character. */
#ifndef NIBBLE_GEN_STREAM_H
#define NIBBLE_GEN_STREAM_H

#include "base/arena.h"

typedef void stream_emit(void *arg, const char *text, size_t size);

struct stream {
    const char *const *stops; /* non-empty strings, borrowed */
    size_t stop_count;
    size_t longest_stop;
    char *held; /* [cap] */
    size_t size, cap;
    stream_emit *emit;
    void *arg;
};

/* longest_piece: the most bytes one stream_add brings. */
void stream_open(struct stream *s, struct arena *a, const char *const *stops, size_t stop_count,
                 size_t longest_piece, stream_emit *emit, void *arg);

/* Adds bytes (at most longest_piece); emits what is settled. True once a stop string has come up:
 * what stands before it has been emitted, it and the rest are dropped. */
bool stream_add(struct stream *s, const char *bytes, size_t size);

/* Emits what is still held, an incomplete character included. */
void stream_flush(struct stream *s);

#endif
