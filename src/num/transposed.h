/* Plain matrices that are stored the other way around: [cols, rows], inputs first.
 *
 * Row r of such a matrix is column r of the tensor: value c of it lies at
 * plane + c * step + r * stride. GPT-2's linear layers ("Conv1D") are stored so, and the experts of
 * gpt-oss in bf16, whose gate and up are every other column of one tensor. Adjacent rows are read
 * together, for they share cache lines; otherwise these matrices take the way of any format that no
 * kernel knows. */
#ifndef NIBBLE_NUM_TRANSPOSED_H
#define NIBBLE_NUM_TRANSPOSED_H

#include "num/format.h"

/* A matrix of f32, f16 or bf16 values over a tensor [cols, line] at data, of which it is the first
 * `rows` columns. A part that begins at another column begins at another data; one of every other
 * column has stride[0] doubled. */
struct mat transposed_mat(enum dtype dtype, size_t rows, size_t cols, size_t line,
                          const unsigned char *data);

#endif
