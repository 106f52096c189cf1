/* What a model answers, kept with its files, so that one that was damaged or misconverted is
 * noticed before it talks nonsense.
 *
 * reference.json, beside a folder's config or as an array in an .npz:
 *
 *     {"nibble_reference": 1, "ids": [17, ...], "deviation": 2.5,
 *      "top": [{"id": 4, "logit": 9.25}, ...]}
 *
 * ids are tokens, top the likeliest that follow them with their logits, computed with an f32 KV
 * cache, deviation the standard deviation of all logits there. A hash of the logits' bits would be
 * shorter, but cannot be used: last bits differ from one SIMD level to the next, and with quantized
 * weights such a bit can tip the rounding of an activation. So logits are compared within a bound,
 * which is a part of their deviation; a model that is wrong misses it by far. */
#ifndef NIBBLE_MODEL_REFERENCE_H
#define NIBBLE_MODEL_REFERENCE_H

#include "model/run.h"

enum { REFERENCE_MAX_IDS = 64, REFERENCE_MAX_TOP = 32 };

struct reference {
    int ids[REFERENCE_MAX_IDS];
    int count;
    double deviation;
    struct reference_token {
        int id;
        double logit;
    } top[REFERENCE_MAX_TOP]; /* likeliest first */
    int top_count;
};

/* Runs the model over some tokens. threads is at least 1, level as in run.h. Logits that are not
 * finite, or all equal, are refused with STATUS_NUMERIC. */
bool reference_compute(struct reference *r, const struct model *m, int threads, const char *level,
                       struct error *e);

/* As JSON, in memory that the caller frees; NULL if there is none. */
char *reference_write(const struct reference *r);

/* The one that the model came with. Without one, or with a file of that name which is none of ours,
 * r->count is 0. */
bool reference_read(struct reference *r, const struct model *m, struct error *e);

/* How far logits may lie from those of a reference. */
double reference_bound(const struct reference *r, const struct model *m);

/* Runs the model again. *difference is the largest found: of a logit from the stored one, or by
 * which another token exceeds the least of those. Refuses one beyond the bound. */
bool reference_check(const struct reference *r, const struct model *m, int threads,
                     const char *level, double *difference, struct error *e);

#endif
