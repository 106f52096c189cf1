/* Microscaling FP4 (Open Compute Project, OCP Microscaling Formats 1.0, 2023), as gpt-oss and MLX
 * store it: 32 values share a scale.
 *
 *     w = 2^(e - 127) * v, v one of 0, 0.5, 1, 1.5, 2, 3, 4, 6 with a sign: E2M1
 *
 * A byte holds two codes, the first in its low half; a scale is the byte e: E8M0, of which 255
 * means NaN. */
#ifndef NIBBLE_NUM_MXFP4_H
#define NIBBLE_NUM_MXFP4_H

#include "num/format.h"

enum { MXFP4_GROUP = 32 };

/* Over codes [rows, cols / 2] and scales [rows, cols / 32]; cols is a multiple of 32. */
struct mat mxfp4_mat(size_t rows, size_t cols, const unsigned char *codes,
                     const unsigned char *scales);

#endif
