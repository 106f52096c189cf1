/* The one product that BLAS is used for. */
#ifndef NIBBLE_OPS_BLAS_H
#define NIBBLE_OPS_BLAS_H

#include <stddef.h>

/* One BLAS thread a call: our pool makes the calls, so that it alone decides who works on what. */
void blas_init(void);

/* y[n, rows] = x[n, cols] w[rows, cols]^T, all row-major f32; a row of y is y_stride floats. */
void blas_product(float *y, size_t y_stride, const float *x, size_t n, const float *w, size_t rows,
                  size_t cols);

const char *blas_version(void);

#endif
