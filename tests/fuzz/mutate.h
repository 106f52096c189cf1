/* Changes that keep the structure of an input: of text with JSON, of protobuf, of records. */
#ifndef NIBBLE_TESTS_MUTATE_H
#define NIBBLE_TESTS_MUTATE_H

#include "fuzz.h"

/* --- chance ----------------------------------------------------------------------------------- */

/* Splitmix64: Steele, Lea, Flood, "Fast Splittable Pseudorandom Number Generators", 2014. */
static uint64_t mutate_state;

static inline uint64_t mutate_random(void) {
    uint64_t z = mutate_state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

static inline size_t mutate_below(size_t n) {
    return n ? (size_t)(mutate_random() % n) : 0;
}

/* Numbers around which code breaks. */
static inline uint64_t mutate_number(void) {
    static const uint64_t edges[] = {0,
                                     1,
                                     2,
                                     7,
                                     8,
                                     63,
                                     64,
                                     127,
                                     128,
                                     255,
                                     256,
                                     0x7fff,
                                     0xffff,
                                     0x7fffffff,
                                     0x80000000,
                                     0xffffffff,
                                     0x100000000,
                                     0x1fffffffffffff,
                                     0x20000000000000,
                                     0x7fffffffffffffff,
                                     0x8000000000000000,
                                     0xfffffffffffffff0,
                                     0xffffffffffffffff};
    uint64_t n = edges[mutate_below(sizeof edges / sizeof *edges)];
    switch (mutate_below(4)) {
    case 0: return n - mutate_below(3);
    case 1: return n + mutate_below(3);
    case 2: return mutate_random() >> mutate_below(64);
    default: return n;
    }
}

/* --- splicing --------------------------------------------------------------------------------- */

/* Puts `count` bytes in the place of [at, at + old); returns the new size, or size if it would not
 * fit. */
static inline size_t mutate_splice(uint8_t *data, size_t size, size_t cap, size_t at, size_t old,
                                   const void *bytes, size_t count) {
    if (at + old > size || size - old + count > cap) return size;
    memmove(data + at + count, data + at + old, size - at - old);
    memcpy(data + at, bytes, count);
    return size - old + count;
}

/* --- JSON ------------------------------------------------------------------------------------- */

enum { JSON_TOKENS = 4096 };

struct json_token {
    size_t at, size;
    char kind; /* of its first character: '"', 'n'umber, 'w'ord, or the sign itself */
};

static inline size_t mutate_json_scan(const uint8_t *data, size_t size, struct json_token *out) {
    size_t count = 0;
    for (size_t i = 0; i < size && count < JSON_TOKENS;) {
        size_t begin = i++;
        uint8_t c = data[begin];
        char kind = (char)c;
        if (c == ' ' || c == '\n' || c == '\t' || c == '\r') continue;
        if (c == '"') {
            while (i < size && data[i] != '"') i += data[i] == '\\' ? 2 : 1;
            i = i < size ? i + 1 : size;
        } else if (c == '-' || (c >= '0' && c <= '9')) {
            kind = 'n';
            while (i < size && strchr("+-.0123456789eE", data[i]) && data[i]) i++;
        } else if (c >= 'a' && c <= 'z') {
            kind = 'w';
            while (i < size && data[i] >= 'a' && data[i] <= 'z') i++;
        }
        out[count++] = (struct json_token){begin, i - begin, kind};
    }
    return count;
}

static inline const char *mutate_json_value(void) {
    static const char *const values[] = {"0",
                                         "-1",
                                         "1",
                                         "1.5",
                                         "-0",
                                         "1e999",
                                         "-1e999",
                                         "1e-320",
                                         "null",
                                         "true",
                                         "false",
                                         "[]",
                                         "{}",
                                         "\"\"",
                                         "\"x\"",
                                         "\"\\ud800\"",
                                         "\"\\u0000\"",
                                         "\"1\"",
                                         "[[[[[[[[]]]]]]]]",
                                         "[1,2]",
                                         "{\"a\":1}",
                                         "NaN",
                                         "Infinity",
                                         "1000000000",
                                         "0.0",
                                         "32",
                                         "\"\xff\"",
                                         "\"\\\"",
                                         "3.4e38",
                                         "[true,false]",
                                         "\"llama3\"",
                                         "\"yarn\"",
                                         "\"linear\"",
                                         "\"longrope\"",
                                         "\"dynamic\""};
    static char number[32];
    if (mutate_below(2)) return values[mutate_below(sizeof values / sizeof *values)];
    snprintf(number, sizeof number, mutate_below(8) ? "%llu" : "-%llu",
             (unsigned long long)(mutate_below(3) ? mutate_below(40) : mutate_number()));
    return number;
}

/* The part from token i up to where its value ends, brackets closed. */
static inline size_t mutate_json_end(const struct json_token *t, size_t count, size_t i) {
    int depth = 0;
    for (; i < count; i++) {
        depth += t[i].kind == '[' || t[i].kind == '{';
        depth -= t[i].kind == ']' || t[i].kind == '}';
        if (depth <= 0) return t[i].at + t[i].size;
    }
    return t[count - 1].at + t[count - 1].size;
}

/* One change to a text with JSON in it, valid or not. */
static inline size_t mutate_json(uint8_t *data, size_t size, size_t cap) {
    static struct json_token t[JSON_TOKENS];
    static uint8_t copy[1 << 16];
    size_t count = mutate_json_scan(data, size, t);
    if (!count || mutate_below(12) == 0) return LLVMFuzzerMutate(data, size, cap);
    size_t i = mutate_below(count), k = mutate_below(count);
    for (int tries = 0; tries < 8 && strchr(",:]}", t[i].kind); tries++) i = mutate_below(count);
    size_t end = mutate_json_end(t, count, i), length = end - t[i].at;
    const char *value = mutate_json_value();
    switch (mutate_below(6)) {
    case 0: /* another value */
    case 1: return mutate_splice(data, size, cap, t[i].at, t[i].size, value, strlen(value));
    case 2: /* a part taken from elsewhere */
        end = mutate_json_end(t, count, k);
        if (end - t[k].at > sizeof copy) return size;
        memcpy(copy, data + t[k].at, end - t[k].at);
        return mutate_splice(data, size, cap, t[i].at, length, copy, end - t[k].at);
    case 3: /* a part twice */
        if (length + 1 > sizeof copy) return size;
        memcpy(copy, data + t[i].at, length);
        copy[length] = ',';
        return mutate_splice(data, size, cap, t[i].at, 0, copy, length + 1);
    case 4: /* a part left out */
        if (end < size && data[end] == ',') length++;
        return mutate_splice(data, size, cap, t[i].at, length, "", 0);
    default: /* noise inside a string */
        if (t[i].kind != '"' || t[i].size < 3 || t[i].size > sizeof copy / 2) return size;
        memcpy(copy, data + t[i].at + 1, t[i].size - 2);
        length = LLVMFuzzerMutate(copy, t[i].size - 2, t[i].size + 16);
        return mutate_splice(data, size, cap, t[i].at + 1, t[i].size - 2, copy, length);
    }
}

/* --- records of fixed size -------------------------------------------------------------------- */

/* Puts an edge into a little-endian field of 1, 2, 4 or 8 bytes. */
static inline void mutate_field(uint8_t *data, size_t size, size_t at, size_t width) {
    uint64_t n = mutate_number();
    if (at + width > size) return;
    for (size_t i = 0; i < width; i++) data[at + i] = (uint8_t)(n >> 8 * i);
}

#endif
