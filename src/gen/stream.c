#include "gen/stream.h"

#include <string.h>

#include "base/utf8.h"

enum { LONGEST_CHARACTER = 4 };

void stream_open(struct stream *s, struct arena *a, const char *const *stops, size_t stop_count,
                 size_t longest_piece, stream_emit *emit, void *arg) {
    *s = (struct stream){.stops = stops, .stop_count = stop_count, .emit = emit, .arg = arg};
    for (size_t i = 0; i < stop_count; i++) {
        if (strlen(stops[i]) > s->longest_stop) s->longest_stop = strlen(stops[i]);
    }
    s->cap = s->longest_stop + longest_piece + LONGEST_CHARACTER;
    s->held = arena_take(a, s->cap, 1);
}

/* Where the first stop string begins, or size if there is none. */
static size_t find_stop(const struct stream *s) {
    for (size_t at = 0; at < s->size; at++) {
        for (size_t i = 0; i < s->stop_count; i++) {
            size_t length = strlen(s->stops[i]);
            if (length <= s->size - at && memcmp(s->held + at, s->stops[i], length) == 0) return at;
        }
    }
    return s->size;
}

/* Where the first tail begins that some stop string begins with, or size. */
static size_t find_partial_stop(const struct stream *s) {
    for (size_t at = s->size >= s->longest_stop ? s->size - s->longest_stop : 0; at < s->size;
         at++) {
        for (size_t i = 0; i < s->stop_count; i++) {
            size_t tail = s->size - at;
            if (tail < strlen(s->stops[i]) && memcmp(s->held + at, s->stops[i], tail) == 0)
                return at;
        }
    }
    return s->size;
}

static void emit_front(struct stream *s, size_t size) {
    if (size) s->emit(s->arg, s->held, size);
    s->size -= size;
    memmove(s->held, s->held + size, s->size);
}

bool stream_add(struct stream *s, const char *bytes, size_t size) {
    if (size > s->cap - s->size) size = s->cap - s->size;
    memcpy(s->held + s->size, bytes, size);
    s->size += size;
    size_t stop = find_stop(s);
    if (stop < s->size) {
        emit_front(s, stop);
        s->size = 0;
        return true;
    }
    emit_front(s, utf8_complete(s->held, find_partial_stop(s)));
    return false;
}

void stream_flush(struct stream *s) {
    emit_front(s, s->size);
}
