#include "num/affine.h"

#include <math.h>
#include <stdint.h>
#include <string.h>

#include "num/half.h"

bool affine_valid(int bits, int group) {
    return bits >= 2 && bits <= 8 && bits != 7 && (group == 32 || group == 64 || group == 128);
}

struct mat affine_mat(size_t rows, size_t cols, int bits, int group, enum dtype dtype,
                      const unsigned char *codes, const unsigned char *scales,
                      const unsigned char *offsets) {
    size_t scale_bytes = cols / (size_t)group * dtype_bytes(dtype);
    size_t code_bytes = affine_code_bytes(cols, bits);
    return (struct mat){
        .format = &format_affine,
        .rows = rows,
        .cols = cols,
        .plane = {codes, scales, offsets},
        .stride = {code_bytes, scale_bytes, scale_bytes},
        .row_bytes = {code_bytes, scale_bytes, scale_bytes},
        .dtype = dtype,
        .bits = bits,
        .group = group,
    };
}

/* Scale or offset number i of a plane. */
float affine_load(const unsigned char *plane, size_t i, enum dtype dtype) {
    float f;
    switch (dtype) {
    case DTYPE_F16: return half_from_f16(half_load_u16(plane + 2 * i));
    case DTYPE_BF16: return half_from_bf16(half_load_u16(plane + 2 * i));
    default: memcpy(&f, plane + 4 * i, sizeof f); return f;
    }
}

void affine_store_value(unsigned char *plane, size_t i, enum dtype dtype, float f) {
    if (dtype == DTYPE_F32) {
        memcpy(plane + 4 * i, &f, sizeof f);
        return;
    }
    uint16_t h = dtype == DTYPE_F16 ? half_to_f16(f) : half_to_bf16(f);
    plane[2 * i] = (unsigned char)h;
    plane[2 * i + 1] = (unsigned char)(h >> 8);
}

/* Eight codes occupy `bits` bytes, whatever the width: a row is read and written by eights. */
static inline void unpack8(const unsigned char *p, int bits, uint32_t codes[8]) {
    uint64_t word = 0;
    for (int i = 0; i < bits; i++) word |= (uint64_t)p[i] << 8 * i;
    for (int i = 0; i < 8; i++) codes[i] = (uint32_t)(word >> i * bits) & ((1u << bits) - 1);
}

static void pack8(unsigned char *p, int bits, const uint32_t codes[8]) {
    uint64_t word = 0;
    for (int i = 0; i < 8; i++) word |= (uint64_t)codes[i] << i * bits;
    for (int i = 0; i < bits; i++) p[i] = (unsigned char)(word >> 8 * i);
}

void affine_store(const unsigned char *q, size_t n, int bits, unsigned char *codes) {
    for (size_t i = 0; i < n; i += 8, codes += bits) {
        uint32_t eight[8];
        for (size_t k = 0; k < 8; k++) eight[k] = q[i + k];
        pack8(codes, bits, eight);
    }
}

/* One row; inlined with a constant width, which lets the compiler lay the shifts out. */
static inline void decode_row(const struct mat *m, size_t row, float *out, int bits) {
    const unsigned char *codes = m->plane[0] + row * m->stride[0];
    const unsigned char *scales = m->plane[1] + row * m->stride[1];
    const unsigned char *offsets = m->plane[2] + row * m->stride[2];
    size_t group = (size_t)m->group;
    for (size_t g = 0; g < m->cols / group; g++) {
        float s = affine_load(scales, g, m->dtype), z = affine_load(offsets, g, m->dtype);
        for (size_t i = 0; i < group; i += 8, codes += bits, out += 8) {
            uint32_t q[8];
            unpack8(codes, bits, q);
            for (int k = 0; k < 8; k++) out[k] = s * (float)(int32_t)q[k] + z;
        }
    }
}

static void decode(const struct mat *m, size_t row, float *out) {
    switch (m->bits) {
    case 2: decode_row(m, row, out, 2); return;
    case 3: decode_row(m, row, out, 3); return;
    case 4: decode_row(m, row, out, 4); return;
    case 5: decode_row(m, row, out, 5); return;
    case 6: decode_row(m, row, out, 6); return;
    default: decode_row(m, row, out, 8); return;
    }
}

const struct format format_affine = {.name = "affine", .decode = decode};

/* The scale and offset of one group: the end of its range with the larger magnitude becomes the
 * offset, and the scale is bent so that zero has a code of its own. */
static void fit(const float *w, size_t group, float levels, float *scale, float *offset) {
    float low = w[0], high = w[0];
    for (size_t i = 1; i < group; i++) {
        low = w[i] < low ? w[i] : low;
        high = w[i] > high ? w[i] : high;
    }
    bool low_is_larger = fabsf(low) > fabsf(high);
    float s = fmaxf((high - low) / levels, 1e-7f);
    if (!low_is_larger) s = -s;
    float edge = low_is_larger ? low : high;
    float q0 = rintf(edge / s);
    *scale = q0 != 0 ? edge / q0 : s;
    *offset = q0 != 0 ? edge : 0;
}

/* clip(rint(x), 0, levels), half to even, NaN to 0. Clipping first gives the same, and below 2^23
 * an addition rounds. */
static inline uint32_t code(float x, float levels) {
    x = x > 0 ? x : 0;
    x = x < levels ? x : levels;
    return half_to_bits(x + 0x1p23f) & 0xff;
}

void affine_encode(const float *row, size_t cols, int bits, int group, enum dtype dtype,
                   unsigned char *codes, unsigned char *scales, unsigned char *offsets) {
    size_t length = (size_t)group;
    float levels = (float)((1u << bits) - 1);
    for (size_t g = 0; g < cols / length; g++) {
        const float *w = row + g * length;
        float s, z;
        fit(w, length, levels, &s, &z);
        for (size_t i = 0; i < length; i += 8, codes += bits) {
            uint32_t q[8];
            for (int k = 0; k < 8; k++) {
                q[k] = code((w[i + (size_t)k] - z) / s, levels);
            }
            pack8(codes, bits, q);
        }
        affine_store_value(scales, g, dtype, s);
        affine_store_value(offsets, g, dtype, z);
    }
}
