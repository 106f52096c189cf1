#include "ops/blas.h"

#include <cblas.h>

void blas_init(void) {
    openblas_set_num_threads(1);
}

void blas_product(float *y, size_t y_stride, const float *x, size_t n, const float *w, size_t rows,
                  size_t cols) {
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, (blasint)n, (blasint)rows, (blasint)cols,
                1, x, (blasint)cols, w, (blasint)cols, 0, y, (blasint)y_stride);
}

const char *blas_version(void) {
    return openblas_get_config();
}
