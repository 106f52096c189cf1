/* Messages of protobuf: fields changed, left out, repeated, lengths stated anew. */
#ifndef NIBBLE_TESTS_PROTOBUF_H
#define NIBBLE_TESTS_PROTOBUF_H

#include "mutate.h"

enum { PROTOBUF_FIELDS = 8192, PROTOBUF_CAP = 1 << 18 };

struct protobuf_field {
    size_t at, payload, end; /* the tag's, the content's first byte, and behind it */
    unsigned wire;
};

/* Returns the position behind a varint, 0 if there is none. */
static inline size_t protobuf_varint(const uint8_t *data, size_t size, size_t at, uint64_t *out) {
    *out = 0;
    for (unsigned shift = 0; at < size && shift < 64; shift += 7) {
        *out |= (uint64_t)(data[at] & 127) << shift;
        if (!(data[at++] & 128)) return at;
    }
    return 0;
}

static inline size_t protobuf_put(uint8_t *to, uint64_t n) {
    size_t i = 0;
    for (; n > 127; n >>= 7) to[i++] = (uint8_t)(n | 128);
    to[i++] = (uint8_t)n;
    return i;
}

static inline size_t protobuf_scan(const uint8_t *data, size_t size, struct protobuf_field *out) {
    size_t count = 0;
    for (size_t at = 0; at < size && count < PROTOBUF_FIELDS; at = out[count++].end) {
        uint64_t tag, n = 0;
        size_t payload = protobuf_varint(data, size, at, &tag), end = 0;
        if (!payload) break;
        switch (tag & 7) {
        case 0: end = protobuf_varint(data, size, payload, &n); break;
        case 1: end = payload + 8; break;
        case 2:
            payload = protobuf_varint(data, size, payload, &n);
            if (payload && n <= size - payload) end = payload + n;
            break;
        case 5: end = payload + 4; break;
        }
        if (!end || end > size) break;
        out[count] = (struct protobuf_field){at, payload, end, tag & 7};
    }
    return count;
}

/* One change; depth: how far it goes into messages within. data has room for cap. */
static inline size_t protobuf_mutate(uint8_t *data, size_t size, size_t cap, int depth) {
    struct protobuf_field *fields = malloc(PROTOBUF_FIELDS * sizeof *fields);
    uint8_t *copy = malloc(PROTOBUF_CAP), head[24];
    size_t count = protobuf_scan(data, size, fields), how = mutate_below(8), now;
    if (!count || size > PROTOBUF_CAP / 2) {
        size = LLVMFuzzerMutate(data, size, cap);
        goto done;
    }
    /* The last ones are the settings; the first are pieces, of which there are many. */
    size_t pick =
        mutate_below(3) ? mutate_below(count) : count - 1 - mutate_below(count < 3 ? count : 3);
    struct protobuf_field f = fields[pick];
    memcpy(copy, data + f.at, f.end - f.at);
    if (how == 0) {
        size = mutate_splice(data, size, cap, f.at, f.end - f.at, "", 0);
    } else if (how == 1) {
        size =
            mutate_splice(data, size, cap, fields[mutate_below(count)].at, 0, copy, f.end - f.at);
    } else if (f.wire == 2) {
        memcpy(copy, data + f.payload, f.end - f.payload);
        now = f.end - f.payload;
        now = depth && mutate_below(4) ? protobuf_mutate(copy, now, PROTOBUF_CAP, depth - 1)
                                       : LLVMFuzzerMutate(copy, now, now + 64);
        size = mutate_splice(data, size, cap, f.payload, f.end - f.payload, copy, now);
        uint64_t tag;
        size_t at = protobuf_varint(data, size, f.at, &tag);
        now = protobuf_put(head, mutate_below(64) ? now : mutate_number());
        size = mutate_splice(data, size, cap, at, f.payload - at, head, now);
    } else if (f.wire == 0) {
        now = protobuf_put(head, mutate_number());
        size = mutate_splice(data, size, cap, f.payload, f.end - f.payload, head, now);
    } else {
        mutate_field(data, size, f.payload, f.end - f.payload);
    }
done:
    free(fields);
    free(copy);
    return size;
}

#endif
