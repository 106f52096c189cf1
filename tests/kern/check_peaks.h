/* The kernels that measure: peak_read must take part of every byte, and the others must add up as
 * many products as they say, whatever these are. */
#ifndef NIBBLE_TESTS_KERN_CHECK_PEAKS_H
#define NIBBLE_TESTS_KERN_CHECK_PEAKS_H

#include "fixture.h"

enum { PEAK_BYTES = 65537 };

static struct buffer peak_bytes;
static unsigned char peak_data[PEAK_BYTES];

static void open_peak_buffers(void) {
    open_buffer(&peak_bytes, sizeof peak_data);
}

/* --- peak_read --- */

static uint32_t sum_bytes(size_t n) {
    static const union {
        uint32_t word;
        unsigned char bytes[4];
    } order = {.word = 1};
    uint32_t sum = 0;
    for (size_t i = 0; i < n; i++) {
        sum += (uint32_t)peak_data[i] << 8 * (order.bytes[0] ? i % 4 : 3 - i % 4);
    }
    return sum;
}

static size_t next_bytes(size_t n) {
    static const size_t large[] = {2047, 4099, 8192, 12345, PEAK_BYTES};
    if (n < 2100) return n + (n < 600 ? 1 : 37);
    for (size_t i = 0; i < 5; i++) {
        if (n < large[i]) return large[i];
    }
    return PEAK_BYTES + 1;
}

static void check_peak_read(void) {
    for (size_t i = 0; i < PEAK_BYTES; i++) peak_data[i] = (unsigned char)draw_bits();
    for (now.n = 0; now.n <= PEAK_BYTES && check_ok; now.n = next_bytes(now.n)) {
        uint32_t want = sum_bytes(now.n);
        for (int at = AT_END; at >= 0 && check_ok; at -= 13) {
            place(&peak_bytes, at, peak_data, now.n);
            for (int ahead = 0; ahead < 2; ahead++) {
                uint32_t got = now.kern.peak_read(peak_bytes.data, now.n, ahead);
                CHECK_MSG(got == want, "%s at level %s: %08x is not %08x: n = %zu, place %d/%d",
                          now.kernel, now.level, got, want, now.n, at, ahead);
            }
        }
    }
}

/* --- products --- */

static const size_t peak_rounds[] = {0, 1, 2, 3, 17, 4096};
enum { PEAK_COUNTS = sizeof peak_rounds / sizeof *peak_rounds };

static void check_peak_int8(void) {
    static const int codes[] = {0, 1, 2, 15}, values[] = {-127, -128, -1, 0, 1, 5, 127};
    int64_t each = now.kern.peak_int8(1, 1, 1);
    CHECK(each > 0);
    for (size_t k = 0; k < 7 * 4 * PEAK_COUNTS; k++) {
        int code = codes[k % 4], a = values[k / 4 % 7];
        now.n = peak_rounds[k / 28];
        int64_t got = now.kern.peak_int8((uint8_t)code, (int8_t)a, now.n);
        CHECK_MSG(got == each * (int64_t)now.n * code * a,
                  "%s at level %s: %zu rounds of %lld times %d * %d give %lld", now.kernel,
                  now.level, now.n, (long long)each, code, a, (long long)got);
    }
}

static void check_peak_f32(void) {
    static const float weights[] = {0, 1, -3, 0.5f}, values[] = {-2, 1, 8};
    double each = now.kern.peak_f32(1, 1, 1);
    CHECK(each > 0);
    for (size_t k = 0; k < 3 * 4 * PEAK_COUNTS; k++) {
        float w = weights[k % 4], x = values[k / 4 % 3];
        now.n = peak_rounds[k / 12];
        double got = now.kern.peak_f32(w, x, now.n);
        CHECK_MSG(got == each * (double)now.n * (double)(w * x),
                  "%s at level %s: %zu rounds of %g times %g * %g give %g", now.kernel, now.level,
                  now.n, each, w, x, got);
    }
}

#endif
