/* A symmetric positive definite matrix as H = L^T D L, L with ones on its diagonal and zeros above
 * it: Gaussian elimination from the last row up. */
#ifndef NIBBLE_OPS_FACTOR_H
#define NIBBLE_OPS_FACTOR_H

#include "base/pool.h"

/* h [n, n], of which the lower triangle is read, becomes L below the diagonal and D on it. An
 * element of D is at least `least`: of a matrix that is not positive definite, another's factors.
 */
void factor_symmetric(struct pool *pool, double *h, size_t n, double least);

#endif
