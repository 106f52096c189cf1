/* Codes for a matrix whose inputs are known: each makes up for the rounding of others.
 *
 * With H the Gram matrix of what the matrix multiplies, a row of weights w that becomes v changes
 * its outputs by sum of squares e^T H e, e = w - v. With H = L^T D L (ops/factor.h) that is
 *
 *     sum over columns k of  D_k (e_k + sum over j < k of L_kj e_j)^2
 *
 * so that column by column v_k is the code nearest to w_k + sum L_kj e_j; a group's scale and
 * offset are sought when its turn comes (num/search.h). Then, in sweeps, each scale and offset and
 * each code is replaced by the best one while all others stay, which never makes e^T H e larger.
 *
 * Sources: the order of columns is GPTQ's (Frantar et al., 2022), written without an inverse as
 * LDLQ is (Chee et al., QuIP, 2023); sweeps are coordinate descent. */
#ifndef NIBBLE_NUM_FEEDBACK_H
#define NIBBLE_NUM_FEEDBACK_H

#include <stddef.h>

#include "base/dtype.h"

enum { FEEDBACK_ROWS = 16 }; /* that are encoded together */

/* y[t * y_stride + i] += sum over j < rows of p[t * p_stride + j] w_j[i], for n tokens t and i <
 * cols, with w_j at w + j * w_stride bytes: as the kernel sums_f32. */
typedef void feedback_sums(float *y, size_t y_stride, const float *p, size_t p_stride, size_t n,
                           const void *w, size_t w_stride, size_t rows, size_t cols);

struct feedback {
    size_t cols;
    int bits, group;
    enum dtype dtype;      /* of scales and offsets */
    const float *h;        /* [cols, cols], symmetric */
    const float *factor;   /* [cols, cols] L, below the diagonal */
    const float *diagonal; /* [cols] D, above 0 */
    int sweeps;
    feedback_sums *sums;
};

/* What rows become: codes [count, cols], scales and offsets [count, cols / group]. */
struct feedback_rows {
    unsigned char *q;
    float *s, *z;
};

size_t feedback_scratch(size_t cols, int group); /* floats */

/* w [count, cols], finite, count at most FEEDBACK_ROWS. */
void feedback_encode(const struct feedback *f, const float *w, size_t count,
                     const struct feedback_rows *out, float *scratch);

#endif
