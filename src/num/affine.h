/* MLX's affine quantization, bit for bit, so that files move both ways.
 *
 * A row is cut into groups of 32, 64 or 128 values. A group has a scale s and an offset z, of the
 * type of the original weights, and each value a code q of 2, 3, 4, 5, 6 or 8 bits: w = s * q + z.
 * Scales may be negative. The codes of a row are one little-endian bit stream, least significant
 * bit first: code k begins at bit k * bits. MLX keeps it as u32 [rows, cols * bits / 32], with
 * scales and offsets ("biases") as [rows, cols / group]. Source of the encoder: mlx,
 * backend/cpu/quantized.cpp, quantize(). */
#ifndef NIBBLE_NUM_AFFINE_H
#define NIBBLE_NUM_AFFINE_H

#include "num/format.h"

bool affine_valid(int bits, int group); /* a width and a group that exist */

/* Sizes of the planes of one row; cols is a multiple of group. */
static inline size_t affine_code_bytes(size_t cols, int bits) {
    return cols / 8 * (size_t)bits;
}

/* A matrix over planes that lie in memory row after row. dtype is that of scales and offsets. */
struct mat affine_mat(size_t rows, size_t cols, int bits, int group, enum dtype dtype,
                      const unsigned char *codes, const unsigned char *scales,
                      const unsigned char *offsets);

/* Encodes one row of cols values. The codes are computed with unrounded scale and offset, which are
 * then rounded to dtype (f32, f16 or bf16) and stored little endian. */
void affine_encode(const float *row, size_t cols, int bits, int group, enum dtype dtype,
                   unsigned char *codes, unsigned char *scales, unsigned char *offsets);

/* The parts of it, for who chooses codes otherwise: the bits of n codes, a multiple of 8; value i
 * of a plane of scales or offsets. */
void affine_store(const unsigned char *q, size_t n, int bits, unsigned char *codes);
void affine_store_value(unsigned char *plane, size_t i, enum dtype dtype, float f);
float affine_load(const unsigned char *plane, size_t i, enum dtype dtype);

#endif
