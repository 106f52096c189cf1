/* num/half.h against its definition (the nearest representable number, ties to even) and, where the
 * CPU has F16C, against the hardware. `test_half all` tries every f32 instead of a sample. */
#include <math.h>
#include <string.h>

#include "base/cpu.h"
#include "check.h"
#include "num/half.h"

#ifdef __x86_64__
#include <immintrin.h>
#endif

enum { F16_INFINITY = 0x7c00, F16_MAX = 0x7bff, BF16_INFINITY = 0x7f80 };

static uint32_t step = 4093; /* between the f32 patterns of a sample; a prime */

/* What the bits of a finite f16 mean. */
static double f16_value(uint16_t h) {
    int exponent = h >> 10 & 0x1f, fraction = h & 0x3ff;
    double magnitude = exponent ? ldexp(1024 + fraction, exponent - 25) : ldexp(fraction, -24);
    return h & 0x8000 ? -magnitude : magnitude;
}

static void test_from_f16(void) {
    for (uint32_t h = 0; h < 0x10000; h++) {
        float f = half_from_f16((uint16_t)h);
        uint32_t magnitude = h & 0x7fff;
        if (magnitude > F16_INFINITY) {
            CHECK_MSG(isnan(f), "%04x is not NaN", h);
        } else if (magnitude == F16_INFINITY) {
            CHECK_MSG(isinf(f), "%04x is not infinite", h);
        } else {
            CHECK_MSG(f == f16_value((uint16_t)h), "%04x is not %a", h, f16_value((uint16_t)h));
        }
        CHECK_MSG(!signbit(f) == !(h & 0x8000), "%04x loses its sign", h);
    }
}

static bool is_nan_f16(uint16_t h) {
    return (h & 0x7fff) > F16_INFINITY;
}

static void test_f16_round_trip(void) {
    for (uint32_t h = 0; h < 0x10000; h++) {
        uint16_t back = half_to_f16(half_from_f16((uint16_t)h));
        uint32_t expected = is_nan_f16((uint16_t)h) ? h | 0x200 : h; /* NaN: quiet, payload kept */
        CHECK_MSG(back == expected, "%04x becomes %04x", h, back);
    }
}

/* Rounding is monotone, so it is right everywhere if it is right at every number, at every midpoint
 * and right beside each midpoint. The number after F16_MAX would be 2^16. */
static void check_midpoint(uint16_t h, uint16_t sign) {
    double low = f16_value(h), high = h == F16_MAX ? 0x1p16 : f16_value((uint16_t)(h + 1));
    float middle = (float)((low + high) / 2);
    float below = nextafterf(middle, 0), above = nextafterf(middle, INFINITY);
    uint16_t even = (uint16_t)(h + (h & 1)), next = (uint16_t)(h + 1);
    float s = sign ? -1 : 1;
    CHECK_MSG(half_to_f16(s * middle) == (sign | even), "the tie above %04x", h);
    CHECK_MSG(half_to_f16(s * below) == (sign | h), "just below the tie above %04x", h);
    CHECK_MSG(half_to_f16(s * above) == (sign | next), "just above the tie above %04x", h);
}

static void test_to_f16(void) {
    for (uint16_t h = 0; h <= F16_MAX; h++) {
        check_midpoint(h, 0);
        check_midpoint(h, 0x8000);
    }
    CHECK(half_to_f16(0x1p16f) == F16_INFINITY && half_to_f16(INFINITY) == F16_INFINITY);
    CHECK(half_to_f16(-0x1p127f) == 0xfc00 && half_to_f16(-INFINITY) == 0xfc00);
    CHECK(half_to_f16(half_from_bits(1)) == 0 && half_to_f16(half_from_bits(0x80000001)) == 0x8000);
    CHECK(half_to_f16(0.0f) == 0 && half_to_f16(-0.0f) == 0x8000);
}

static void test_from_bf16(void) {
    for (uint32_t h = 0; h < 0x10000; h++) {
        CHECK(half_to_bits(half_from_bf16((uint16_t)h)) == h << 16);
    }
}

/* Neighbours in bf16 are 2^16 patterns of f32 apart, also across exponents and up to infinity. */
static void test_to_bf16(void) {
    for (uint32_t h = 0; h < 0x10000; h++) {
        uint32_t bits = h << 16, magnitude = h & 0x7fff;
        if (magnitude >= BF16_INFINITY) continue;
        CHECK(half_to_bf16(half_from_bits(bits)) == h);
        CHECK(half_to_bf16(half_from_bits(bits + 0x7fff)) == h);
        CHECK(half_to_bf16(half_from_bits(bits + 0x8000)) == h + (h & 1));
        CHECK(half_to_bf16(half_from_bits(bits + 0x8001)) == h + 1);
    }
    CHECK(half_to_bf16(INFINITY) == BF16_INFINITY && half_to_bf16(-INFINITY) == 0xff80);
}

/* Also NaNs whose payload lies in the bits that are cut off, or that rounding up would overflow. */
static void test_nan(void) {
    static const uint32_t nans[] = {0x7f800001, 0x7f801fff, 0x7f802000, 0x7f80ffff, 0x7fa00000,
                                    0x7fc00000, 0x7fffffff, 0xff800001, 0xffffffff};
    for (size_t i = 0; i < sizeof nans / sizeof *nans; i++) {
        float nan = half_from_bits(nans[i]);
        CHECK_MSG(is_nan_f16(half_to_f16(nan)), "%08x as f16", nans[i]);
        CHECK_MSG((half_to_bf16(nan) & 0x7fff) > BF16_INFINITY, "%08x as bf16", nans[i]);
        CHECK_MSG(half_to_f16(nan) >> 15 == nans[i] >> 31, "%08x loses its sign", nans[i]);
    }
}

static void test_bytes(void) {
    unsigned char bytes[4] = {0xaa, 0xaa, 0xaa, 0xaa};
    half_store_u16(bytes + 1, 0x1234);
    CHECK(bytes[0] == 0xaa && bytes[1] == 0x34 && bytes[2] == 0x12 && bytes[3] == 0xaa);
    CHECK(half_load_u16(bytes + 1) == 0x1234);
}

#ifdef __x86_64__
__attribute__((target("avx,f16c"))) static float hardware_from_f16(uint16_t h) {
    return _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(h)));
}

__attribute__((target("avx,f16c"))) static uint16_t hardware_to_f16(float f) {
    return (uint16_t)_mm_cvtsi128_si32(_mm_cvtps_ph(_mm_set_ss(f), _MM_FROUND_TO_NEAREST_INT));
}

static void test_hardware(void) {
    for (uint32_t h = 0; h < 0x10000; h++) {
        uint32_t hardware = half_to_bits(hardware_from_f16((uint16_t)h));
        CHECK_MSG(half_to_bits(half_from_f16((uint16_t)h)) == hardware, "from %04x", h);
    }
    for (uint64_t bits = 0; bits <= UINT32_MAX && check_ok; bits += step) {
        float f = half_from_bits((uint32_t)bits);
        uint16_t got = half_to_f16(f), hardware = hardware_to_f16(f);
        CHECK_MSG(got == hardware, "f16 of %08x is %04x, in hardware %04x", (uint32_t)bits, got,
                  hardware);
    }
}
#endif

int main(int argc, char **argv) {
    if (argc == 2 && strcmp(argv[1], "all") == 0) step = 1;
    check_run("from f16", test_from_f16);
    check_run("to f16 and back", test_f16_round_trip);
    check_run("to f16", test_to_f16);
    check_run("from bf16", test_from_bf16);
    check_run("to bf16", test_to_bf16);
    check_run("NaN", test_nan);
    check_run("bytes", test_bytes);
#ifdef __x86_64__
    struct cpu cpu;
    cpu_probe(&cpu);
    if (cpu.features & CPU_F16C) check_run("against the hardware", test_hardware);
#endif
    return check_done();
}
