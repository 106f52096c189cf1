/* The scale and offset of a group of affine weights, sought instead of taken from its range.
 *
 * Of weights w, each with an importance h, what is made small is
 *
 *     sum h (w - (s q + z))^2
 *
 * over scale s, offset z, both as they are stored, and codes q. For fixed codes the best s and z
 * are those of a weighted linear regression, for fixed s and z the best codes are the nearest: the
 * two take turns (Lloyd's algorithm), from the range of the group and from narrower ones that cut
 * off what lies far out. The file is that of num/affine.h; only its numbers are chosen otherwise.
 */
#ifndef NIBBLE_NUM_SEARCH_H
#define NIBBLE_NUM_SEARCH_H

#include "base/dtype.h"

/* w [group], finite; h [group], at least 0 with some above it, or NULL: all alike. *s and *z are
 * values of dtype (f32, f16 or bf16). With the nearest codes the error is never above that of
 * affine_encode. */
void search_group(const float *w, const float *h, int group, int bits, enum dtype dtype, float *s,
                  float *z);

/* The nearest code of w, by s and z. */
float search_code(float w, float s, float z, int bits);

/* f as it is stored. */
float search_round(float f, enum dtype dtype);

/* Encodes one row of cols finite values, as affine_encode does; h [cols] or NULL. */
void search_encode(const float *row, const float *h, size_t cols, int bits, int group,
                   enum dtype dtype, unsigned char *codes, unsigned char *scales,
                   unsigned char *offsets);

#endif
