/* For the checks of kernels: what is being checked, arrays that end where memory does, random
 * values that make loops fail. */
#ifndef NIBBLE_TESTS_KERN_FIXTURE_H
#define NIBBLE_TESTS_KERN_FIXTURE_H

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "check.h"
#include "kern/kern.h"
#include "num/half.h"

static struct {
    const char *kernel, *level;
    size_t n;       /* elements */
    size_t values;  /* which row of a table of values */
    char what[160]; /* the rest of the case in words, or nothing */
    struct kern kern;
} now; /* what is being checked */

/* --- arrays between two pages that fault, with NaN around what belongs to the kernel --- */

enum { AT_END = 64, MARGIN = 256 };

struct buffer {
    unsigned char *begin, *end; /* what is accessible */
    unsigned char *data;        /* what the kernel may touch */
    size_t bytes;
};

static unsigned char canary[MARGIN]; /* 0xff: a NaN in f16, bf16 and f32 */

/* Room for most_bytes at every place. */
static void open_buffer(struct buffer *b, size_t most_bytes) {
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    size_t size = (most_bytes / page + 2) * page;
    unsigned char *p = mmap(NULL, size + 2 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED || mprotect(p + page, size, PROT_READ | PROT_WRITE) != 0) {
        perror("mmap");
        exit(1);
    }
    b->begin = p + page;
    b->end = b->begin + size;
}

static size_t margin_before(const struct buffer *b) {
    size_t room = (size_t)(b->data - b->begin);
    return room < MARGIN ? room : MARGIN;
}

static size_t margin_after(const struct buffer *b) {
    size_t room = (size_t)(b->end - b->data) - b->bytes;
    return room < MARGIN ? room : MARGIN;
}

/* At offset 0 to 63 from the first page, or AT_END. Content NULL: an output, NaN before the call.
 */
static void place(struct buffer *b, int offset, const void *content, size_t bytes) {
    b->data = offset == AT_END ? b->end - bytes : b->begin + offset;
    b->bytes = bytes;
    size_t before = margin_before(b);
    memset(b->data - before, 0xff, before + bytes + margin_after(b));
    if (content) memcpy(b->data, content, bytes);
}

static bool margins_intact(const struct buffer *b) {
    size_t before = margin_before(b), after = margin_after(b);
    return memcmp(b->data - before, canary, before) == 0 &&
           memcmp(b->data + b->bytes, canary, after) == 0;
}

static void report_fault(int signal) {
    dprintf(STDOUT_FILENO,
            "%s at level %s touched memory beyond its arrays: n = %zu%s (signal %d)\n", now.kernel,
            now.level, now.n, now.what, signal);
    _exit(1);
}

/* --- values --- */

/* WHOLE: small, never 0, so that every sum is exact in f32 and no element may be missing. BITS: any
 * pattern. TIES: halfway between two f16, and beside it. INFINITE, NAN_ONCE: one among UNIFORM. */
enum values { WHOLE, UNIFORM, WIDE, ZERO, DENORMAL, INFINITE, NAN_ONCE, BITS, TIES };

static uint32_t draw_bits(void) {
    static uint64_t state = 0x9e3779b97f4a7c15;
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (uint32_t)(state >> 32);
}

static float draw_uniform(void) {
    return (float)(int32_t)draw_bits() * 0x1p-31f;
}

static float draw_tie(void) {
    static const uint32_t beside[] = {0, 1, 0xfff, 0x1000, 0x1001, 0x1fff};
    float f = half_from_f16((uint16_t)draw_bits());
    return half_from_bits(half_to_bits(f) + beside[draw_bits() % 6]);
}

static float draw(enum values v, int low, int high) {
    uint32_t bits = draw_bits();
    int exponent = low + (int)(draw_bits() % (uint32_t)(high - low));
    switch (v) {
    case WHOLE: return (float)(1 + bits % 8) * (bits & 8 ? 1 : -1);
    case WIDE: return ldexpf(1 + (float)(bits >> 9) * 0x1p-23f, exponent) * (bits & 1 ? 1 : -1);
    case ZERO: return half_from_bits(bits & 0x80000000);
    case DENORMAL: return half_from_bits(bits & 0x807fffff);
    case BITS: return half_from_bits(bits);
    case TIES: return draw_tie();
    default: return draw_uniform();
    }
}

static float special(enum values v) {
    return v == NAN_ONCE ? half_from_bits(0x7fc12345) : draw_bits() & 1 ? INFINITY : -INFINITY;
}

static bool is_close(float got, double exact, double bound) {
    if (isnan(exact)) return isnan(got);
    if (isinf(exact)) return got == exact;
    return fabs(got - exact) <= bound;
}

static bool same_float(float a, float b) {
    return memcmp(&a, &b, sizeof a) == 0 || (isnan(a) && isnan(b));
}

#endif
