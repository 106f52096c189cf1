/* Zip archives with stored members, taken apart and put together again with sizes and checksums as
 * they must be. */
#ifndef NIBBLE_TESTS_ARCHIVE_H
#define NIBBLE_TESTS_ARCHIVE_H

#include "mutate.h"

enum { ARCHIVE_MOST = 96, ARCHIVE_CAP = 1 << 19 };

struct archive_member {
    char name[128];
    const uint8_t *data;
    size_t size;
};

struct archive {
    struct archive_member members[ARCHIVE_MOST];
    size_t count;
};

static inline uint32_t archive_get(const uint8_t *p, size_t width) {
    uint32_t n = 0;
    for (size_t i = 0; i < width; i++) n |= (uint32_t)p[i] << 8 * i;
    return n;
}

static inline void archive_put(uint8_t **to, uint32_t n, size_t width) {
    for (size_t i = 0; i < width; i++) *(*to)++ = (uint8_t)(n >> 8 * i);
}

static inline uint32_t archive_crc(const uint8_t *data, size_t size) {
    uint32_t crc = ~0u;
    for (size_t i = 0; i < size; i++) {
        crc ^= data[i];
        for (int bit = 0; bit < 8; bit++) crc = crc >> 1 ^ (crc & 1 ? 0xedb88320u : 0);
    }
    return ~crc;
}

/* Where a record of the directory begins: from `at` on; size if there is none. kind: its third and
 * fourth byte. */
static inline size_t archive_next(const uint8_t *data, size_t size, size_t at, int kind) {
    for (; at + 4 <= size; at++) {
        if (data[at] == 'P' && data[at + 1] == 'K' && data[at + 2] == kind >> 8 &&
            data[at + 3] == (kind & 255))
            return at;
    }
    return size;
}

/* Members whose record and bytes are where they say. */
static inline void archive_read(struct archive *a, const uint8_t *data, size_t size) {
    a->count = 0;
    for (size_t at = archive_next(data, size, 0, 0x0102); at + 46 <= size;
         at = archive_next(data, size, at + 4, 0x0102)) {
        struct archive_member *m = &a->members[a->count];
        const uint8_t *r = data + at;
        size_t name = archive_get(r + 28, 2), bytes = archive_get(r + 20, 4);
        size_t local = archive_get(r + 42, 4);
        if (a->count == ARCHIVE_MOST || name >= sizeof m->name || at + 46 + name > size) return;
        if (local + 30 > size) continue;
        size_t begin =
            local + 30 + archive_get(data + local + 26, 2) + archive_get(data + local + 28, 2);
        if (begin > size || bytes > size - begin) continue;
        memcpy(m->name, r + 46, name);
        m->name[name] = 0;
        m->data = data + begin;
        m->size = bytes;
        a->count++;
    }
}

/* Returns the size; 0 if it is over cap. */
static inline size_t archive_write(const struct archive *a, uint8_t *out, size_t cap) {
    size_t need = 22, offset[ARCHIVE_MOST];
    uint8_t *to = out;
    for (size_t i = 0; i < a->count; i++)
        need += 76 + 2 * strlen(a->members[i].name) + a->members[i].size;
    if (need > cap) return 0;
    for (int directory = 0; directory < 2; directory++) {
        size_t begin = (size_t)(to - out);
        for (size_t i = 0; i < a->count; i++) {
            const struct archive_member *m = &a->members[i];
            uint32_t name = (uint32_t)strlen(m->name), bytes = (uint32_t)m->size;
            if (!directory) offset[i] = (size_t)(to - out);
            archive_put(&to, directory ? 0x02014b50 : 0x04034b50, 4);
            if (directory) archive_put(&to, 20, 2);
            archive_put(&to, 20, 2);
            archive_put(&to, 0, 4); /* flags, method */
            archive_put(&to, 0x00210000, 4);
            archive_put(&to, archive_crc(m->data, m->size), 4);
            archive_put(&to, bytes, 4);
            archive_put(&to, bytes, 4);
            archive_put(&to, name, 4); /* and no extra field */
            if (directory) {
                archive_put(&to, 0, 4);
                archive_put(&to, 0, 2);
                archive_put(&to, 0, 4);
                archive_put(&to, (uint32_t)offset[i], 4);
            }
            memcpy(to, m->name, name);
            to += name;
            if (directory) continue;
            memcpy(to, m->data, m->size);
            to += m->size;
        }
        if (!directory) continue;
        uint32_t size = (uint32_t)((size_t)(to - out) - begin);
        archive_put(&to, 0x06054b50, 4);
        archive_put(&to, 0, 4);
        archive_put(&to, (uint32_t)(a->count | a->count << 16), 4);
        archive_put(&to, size, 4);
        archive_put(&to, (uint32_t)begin, 4);
        archive_put(&to, 0, 2);
    }
    return (size_t)(to - out);
}

/* An edge in one field of one record: local header, directory entry, end, zip64's two. */
static inline void archive_break(uint8_t *data, size_t size) {
    static const struct {
        int kind;
        struct {
            uint8_t at, width;
        } fields[10];
    } records[] = {
        {0x0304, {{6, 2}, {8, 2}, {14, 4}, {18, 4}, {22, 4}, {26, 2}, {28, 2}}},
        {0x0102, {{8, 2}, {10, 2}, {16, 4}, {20, 4}, {24, 4}, {28, 2}, {30, 2}, {32, 2}, {42, 4}}},
        {0x0506, {{4, 2}, {6, 2}, {8, 2}, {10, 2}, {12, 4}, {16, 4}, {20, 2}}},
        {0x0606, {{4, 8}, {24, 8}, {32, 8}, {40, 8}, {48, 8}}},
        {0x0607, {{4, 4}, {8, 8}, {16, 4}}},
    };
    size_t r = mutate_below(8) ? mutate_below(3) : mutate_below(5), f = mutate_below(10);
    size_t at = archive_next(data, size, mutate_below(size), records[r].kind);
    if (at == size) at = archive_next(data, size, 0, records[r].kind);
    while (f && !records[r].fields[f].width) f--;
    mutate_field(data, size, at + records[r].fields[f].at, records[r].fields[f].width);
}

#endif
