/* Archives of arrays: one member changed, the rest of the archive as it must be. */
#ifndef NIBBLE_TESTS_ARRAYS_H
#define NIBBLE_TESTS_ARRAYS_H

#include <math.h>

#include "archive.h"
#include "protobuf.h"

/* Where the bytes behind an npy header begin; 0 if there is none. */
static inline size_t arrays_data(const struct archive_member *m) {
    if (m->size < 12 || memcmp(m->data, "\x93NUMPY\1", 7) != 0) return 0;
    size_t begin = 10 + archive_get(m->data + 8, 2);
    return begin <= m->size ? begin : 0;
}

/* Makes m an array of these bytes, in `to`. shape is as numpy writes one: "(2, 3)". */
static inline void arrays_set(struct archive_member *m, uint8_t *to, const char *descr,
                              const char *shape, const uint8_t *bytes, size_t size) {
    char text[256];
    int length = snprintf(text, sizeof text,
                          "{'descr': '%s', 'fortran_order': False, 'shape': %s, }", descr, shape);
    while ((length + 11) % 64) text[length++] = ' ';
    text[length++] = '\n';
    memcpy(to, "\x93NUMPY\1\0", 8);
    to[8] = (uint8_t)length;
    to[9] = 0;
    memcpy(to + 10, text, (size_t)length);
    memcpy(to + 10 + length, bytes, size);
    m->size = 10 + (size_t)length + size;
    m->data = to;
}

/* A file kept as an array: its bytes changed, and the header that counts them. */
static inline void arrays_change_file(struct archive_member *m, uint8_t *to, size_t begin,
                                      bool json) {
    static uint8_t file[ARCHIVE_CAP];
    char shape[32];
    size_t size = m->size - begin;
    memcpy(file, m->data + begin, size);
    size = json ? mutate_json(file, size, sizeof file / 2)
                : protobuf_mutate(file, size, sizeof file / 2, 2);
    snprintf(shape, sizeof shape, "(%zu,)", size);
    arrays_set(m, to, "|u1", shape, file, size);
}

/* One dimension longer or shorter, and as many bytes as that asks for. */
static inline void arrays_reshape(struct archive_member *m, uint8_t *to, size_t begin) {
    static uint8_t bytes[ARCHIVE_CAP];
    char head[160] = "", descr[4] = "", shape[160], *at;
    size_t dims[4], count = 0, used = 1;
    memcpy(head, m->data + 10, begin - 10 < sizeof head ? begin - 10 : sizeof head - 1);
    if (!(at = strchr(head, '(')) || sscanf(head, "{'descr': '%3[^']'", descr) != 1) return;
    while (count < 4 && *at != ')' && at[1] >= '0' && at[1] <= '9') {
        dims[count++] = strtoul(at + 1, &at, 10);
        at += *at == ',';
    }
    if (!count) return;
    size_t *dim = &dims[mutate_below(count)], size = (size_t)(descr[2] - '0') % 9;
    *dim = mutate_below(2) ? mutate_below(80) : *dim + mutate_below(3) - 1;
    for (size_t i = 0; i < count; i++) {
        used += (size_t)snprintf(shape + used, sizeof shape - used, "%zu, ", dims[i]);
        size = dims[i] < ARCHIVE_CAP && size < ARCHIVE_CAP ? size * dims[i] : ARCHIVE_CAP;
    }
    if (size > ARCHIVE_CAP / 8) return;
    shape[0] = '(';
    memcpy(shape + used - 2 + (count == 1), ")", 2);
    memset(bytes, 0, size);
    memcpy(bytes, m->data + begin, m->size - begin < size ? m->size - begin : size);
    arrays_set(m, to, descr, shape, bytes, size);
}

static inline void arrays_change_values(uint8_t *data, size_t size) {
    static const float edges[] = {0, -0.0f, 1e-45f, 1e38f, -1e38f, 1, INFINITY, -INFINITY, NAN};
    float value = edges[mutate_below(sizeof edges / sizeof *edges)];
    size_t count = mutate_below(8) ? 1 : size / 4, at = mutate_below(size);
    for (size_t i = 0; i < count && at + 4 <= size; i++, at += 4) memcpy(data + at, &value, 4);
}

/* Of an array: its shape, its header, a number in it above all, or values. */
static inline void arrays_change_array(struct archive_member *m, uint8_t *to, size_t begin) {
    if (begin && mutate_below(4) == 0) {
        arrays_reshape(m, to, begin);
        return;
    }
    memcpy(to, m->data, m->size);
    m->data = to;
    if (begin && begin < m->size && mutate_below(2)) {
        arrays_change_values(to + begin, m->size - begin);
        return;
    }
    size_t at = mutate_below(begin ? begin : m->size);
    for (size_t i = 0; i < begin; i++, at = (at + 1) % begin) {
        if (to[at] < '0' || to[at] > '9') continue;
        to[at] = (uint8_t)('0' + mutate_below(10));
        return;
    }
}

static inline void arrays_change_member(struct archive_member *m, uint8_t *to) {
    size_t begin = arrays_data(m);
    bool json = strstr(m->name, ".json"), model = strstr(m->name, "tokenizer.model");
    if (m->size > ARCHIVE_CAP / 4) return;
    if (begin && (json || model))
        arrays_change_file(m, to, begin, json);
    else if (m->size)
        arrays_change_array(m, to, begin);
}

/* One change to one member, mostly. */
static inline size_t arrays_mutate(uint8_t *data, size_t size, size_t cap) {
    static struct archive a;
    static uint8_t out[ARCHIVE_CAP], member[ARCHIVE_CAP];
    archive_read(&a, data, size);
    if (!a.count || mutate_below(32) == 0) return LLVMFuzzerMutate(data, size, cap);
    struct archive_member *m = &a.members[mutate_below(a.count)], *other;
    for (size_t i = 0; i < a.count && mutate_below(2); i++) { /* files more often than arrays */
        if (strstr(a.members[i].name, ".json") || strstr(a.members[i].name, ".model"))
            m = &a.members[i];
    }
    other = &a.members[mutate_below(a.count)];
    switch (mutate_below(16)) {
    case 0: *m = a.members[--a.count]; break;
    case 1: /* another array's content */
        m->data = other->data;
        m->size = other->size;
        break;
    case 2: /* or its name */ memcpy(m->name, other->name, sizeof m->name); break;
    default: arrays_change_member(m, member);
    }
    size_t written = archive_write(&a, out, cap < sizeof out ? cap : sizeof out);
    if (!written) return size;
    memcpy(data, out, written);
    return written;
}

#endif
