/* How well a model predicts a text, and how far its predictions are from another's. */
#ifndef NIBBLE_GEN_SCORE_H
#define NIBBLE_GEN_SCORE_H

#include "model/run.h"

/* --- one prediction --------------------------------------------------------------------------- */

struct score {
    double logp; /* natural logarithm of the probability of the token that came */
    double norm; /* log sum exp of the logits, so that log p of any token is logit - norm */
    int best;    /* the likeliest token, of equals the one that comes first */
};

/* How logits [vocab] predict token id; sums are double. False where they make no distribution: one
 * is NaN or infinite, or all are -infinity. */
bool score_row(const float *logits, size_t vocab, int id, struct score *out);

/* Kullback-Leibler divergence sum p (log p - log q) in nats of the distribution q of logits (with
 * their norm) from p, given as log p [vocab], rounded perhaps: p is divided by its sum first. */
double score_divergence(const float *log_p, const float *logits, double norm, size_t vocab);

/* --- a text ----------------------------------------------------------------------------------- */

/* Told of a few rows at a time: row i of logits [count, vocab] predicts token first + i of the
 * text. False, with *e filled, ends the run. */
typedef bool score_see(void *arg, size_t first, size_t count, const float *logits, struct error *e);

/* Appends ids [n >= 2] but the last, and tells of the predictions of ids[from .. n - 1], from >= 1.
 * logits has room for score_rows(vocab) rows. */
bool score_append(struct run *r, const int *ids, size_t n, size_t from, float *logits,
                  score_see *see, void *arg, struct error *e);

/* Rows of logits that are computed at once: many, but not over 32 MB of them. */
size_t score_rows(size_t vocab);

/* --- windows ---------------------------------------------------------------------------------- */

/* How a long text is cut. Windows are `length` tokens long and begin `step` tokens apart; an
 * incomplete last one is left out. The first `lead` tokens of the text (BOS) begin every window, in
 * the place of its own. Scored are tokens `from` and on of the first window, and of each other
 * those that no window before it has scored.
 *
 * As llama.cpp's perplexity: one window behind the other, its second half scored. All: windows
 * overlap by the lead, or without one by a token, and all of a window but that is scored. */
struct windows {
    size_t length, step, lead, from;
};

enum windows_kind { WINDOWS_HALVES, WINDOWS_ALL };

/* stride: the step, at most what a window scores; 0: just that. */
bool score_windows(struct windows *w, enum windows_kind kind, size_t length, size_t lead,
                   size_t stride, struct error *e);

size_t score_window_count(const struct windows *w, size_t tokens);

/* Window i of ids, into out [length]; returns the first of its tokens that is scored. */
size_t score_window(const struct windows *w, const int *ids, size_t i, int *out);

/* --- figures ---------------------------------------------------------------------------------- */

/* A mean that grows (Welford), and its standard error. */
struct score_mean {
    size_t count;
    double mean, squares; /* sum of squared distances from the mean */
};

void score_add(struct score_mean *m, double x);
double score_error(const struct score_mean *m); /* 0 of fewer than two */

/* The value below which a share of n >= 1 ascending values lies, between two of them by a straight
 * line. */
double score_percentile(const double *sorted, size_t n, double share);

#endif
