#include "gen/logprobs.h"

#include <math.h>
#include <string.h>

#include "gen/score.h"

/* Puts a token into a list of the n likeliest, of which there are count; ids come in order, so that
 * an equal one belongs behind. */
static size_t insert(struct logprob *top, size_t count, size_t n, struct logprob token) {
    size_t at = count;
    while (at && top[at - 1].value < token.value) at--;
    if (at == n) return count;
    if (count < n) count++;
    memmove(top + at + 1, top + at, (count - at - 1) * sizeof *top);
    top[at] = token;
    return count;
}

double logprobs(const float *logits, size_t vocab, int id, struct logprob *top, size_t n) {
    struct score s = {.logp = NAN, .norm = NAN};
    size_t count = 0;
    score_row(logits, vocab, id, &s);
    for (size_t i = 0; i < vocab && n; i++) {
        struct logprob token = {(int)i, logits[i] - s.norm};
        if (count < n || token.value > top[n - 1].value) count = insert(top, count, n, token);
    }
    return s.logp;
}
