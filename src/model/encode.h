/* One matrix of a model in another format: f32, or affine by MLX's rule, by a search, or by one
 * that knows what the matrix multiplies. */
#ifndef NIBBLE_MODEL_ENCODE_H
#define NIBBLE_MODEL_ENCODE_H

#include "base/pool.h"
#include "model/calibrate.h"
#include "num/feedback.h"

struct encoder {
    struct pool *pool;
    bool search;
    feedback_sums *sums; /* for metrics */
    float *scratch;      /* [threads, scratch_floats] */
    size_t scratch_floats;
};

/* For matrices of at most `widest` columns. sums may be NULL where no metric will be given. */
bool encode_open(struct encoder *c, struct pool *pool, size_t widest, bool search,
                 feedback_sums *sums, struct error *e);
void encode_close(struct encoder *c);

/* Takes memory for the planes of *to, whose format and shape are set, and fills them with from.
 * metric: as calibrate_metric() gives it; its matrices are NULL where nothing is known. A search
 * refuses values that are not finite. Rows do not depend on each other, nor on the threads. */
bool encode_matrix(const struct encoder *c, struct mat *to, const struct mat *from,
                   const struct metric *metric, struct error *e);
void encode_free(struct mat *to);

#endif
