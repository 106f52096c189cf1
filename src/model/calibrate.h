/* What the matrices of a model multiply, measured on a text, layer by layer, for who replaces them:
 *
 *     calibrate_open       the embedding of the text
 *     calibrate_layer(0)   the layer reads it; its inputs are measured
 *     ...                  the caller replaces matrices of layer 0 in calibrate_model()
 *     calibrate_layer(1)   layer 0 computes again, as it is now, and its output goes through layer
 * 1
 *     ...
 *     calibrate_output     the same for the output matrix
 *
 * So every layer is measured behind the layers that were replaced. The text is cut into windows of
 * 512 tokens, or the model's context; of a long one the first 64 are taken, and an incomplete last
 * window is left out unless it is the only one. Results depend on the SIMD level and not on the
 * number of threads. */
#ifndef NIBBLE_MODEL_CALIBRATE_H
#define NIBBLE_MODEL_CALIBRATE_H

#include "model/model.h"
#include "ops/backend.h"

struct calibrate_text {
    const int *ids;
    size_t count;
    size_t lead; /* so many of them, BOS, begin every window in the place of its own tokens */
};

struct calibration;

/* go_on is asked before each window; false: stop with STATUS_INTERRUPTED. */
bool calibrate_open(struct calibration **c, const struct model *m,
                    const struct calibrate_text *text, int threads, bool (*go_on)(void *arg),
                    void *arg, struct error *e);
void calibrate_close(struct calibration *c); /* NULL is fine */

/* A copy of the model, over the same files, whose matrices may be replaced. */
struct model *calibrate_model(struct calibration *c);
const struct backend *calibrate_backend(const struct calibration *c); /* of the run */

/* w, a matrix of calibrate_model(), computes as `by` from now on, whose planes the caller keeps
 * until the layer after w's was measured. */
void calibrate_replace(struct calibration *c, const struct mat *w, const struct mat *by);

bool calibrate_layer(struct calibration *c, size_t layer, struct error *e);
bool calibrate_output(struct calibration *c, struct error *e);

/* The mean of x x^T over the inputs x of a matrix (of calibrate_model) in the layer that was
 * measured last, and its factors (ops/factor.h). To its diagonal is added the mean of the diagonal
 * times `damp` + 2 columns / tokens. The embedding has the output's if the two are tied; experts,
 * for what they read, their router's. Good until the next call. NULL matrices: nothing was
 * multiplied with w. */
struct metric {
    const float *h, *factor; /* [cols, cols] */
    const float *diagonal;   /* [cols] */
};

bool calibrate_metric(struct calibration *c, const struct mat *w, double damp, struct metric *out,
                      struct error *e);

#endif
