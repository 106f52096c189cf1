/* A model's predictions of a text in a file, for others to be compared with: an .npz of
 *
 *     tokens                   i32 [n], the text, as far as windows reach
 *     windows                  i32 [4], how it was cut: length, step, lead, from (gen/score.h)
 *     log_probabilities.00000  f16 [scored, vocab], window by window: natural logarithms of the
 *                              probabilities of all tokens where one was scored
 *
 * Two bytes for each token of the vocabulary and scored token, as in llama.cpp's --save-all-logits
 * files. */
#ifndef NIBBLE_API_SAVED_H
#define NIBBLE_API_SAVED_H

#include "gen/score.h"
#include "store/store.h"
#include "store/write.h"

/* Whose predictions, and of what: count windows of ids. */
struct saved_text {
    const int *ids;
    struct windows windows;
    size_t count, vocab;
};

size_t saved_tokens(const struct saved_text *t);             /* of ids, that windows reach */
size_t saved_scored(const struct windows *w, size_t window); /* tokens of it that are scored */

/* Declares all arrays, in the order of windows: produce with args + i * arg_bytes makes window i.
 */
bool saved_declare(struct writer *w, struct saved_text *t, write_produce *produce, void *args,
                   size_t arg_bytes, struct error *e);

/* Opens a file for reading. Refuses what is none, and one of another text, another cut or another
 * vocabulary. */
bool saved_open(struct store *s, const char *path, const struct saved_text *t, struct error *e);

/* The predictions of a window, [scored, vocab] for saved_load. */
const unsigned char *saved_window(const struct store *s, size_t window);

/* One row of them, and back. */
void saved_load(float *log_p, const unsigned char *row, size_t vocab);
void saved_store(unsigned char *row, const float *logits, double norm, size_t vocab);

#endif
