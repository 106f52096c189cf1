/* The one product that BLAS is used for. */
#ifndef NIBBLE_OPS_BLAS_H
#define NIBBLE_OPS_BLAS_H

#include <stdbool.h>
#include <stddef.h>

/* One BLAS thread a call: our pool makes the calls, so that it alone decides who works on what. */
void blas_init(void);

/* y[n, rows] = x[n, cols] w[rows, cols]^T, all row-major f32; a row of y is y_stride floats. */
void blas_product(float *y, size_t y_stride, const float *x, size_t n, const float *w, size_t rows,
                  size_t cols);

/* OpenBLAS picks its kernels when it is loaded; one older than the CPU falls back to slow ones.
 * This is the core to name in OPENBLAS_CORETYPE, before it is loaded, so that it has the right
 * ones; NULL if it does or nothing would help. */
const char *blas_better_core(void);

const char *blas_version(void); /* with the core it runs as */

#endif
