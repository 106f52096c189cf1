#include "gen/logprobs.h"

#include <math.h>
#include <string.h>

/* log sum exp(x), the largest taken out so that nothing overflows. */
static double log_sum(const float *x, size_t n) {
    float largest = -INFINITY;
    double sum = 0;
    for (size_t i = 0; i < n; i++) largest = fmaxf(largest, x[i]);
    for (size_t i = 0; i < n; i++) sum += exp((double)x[i] - largest);
    return largest + log(sum);
}

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
    double total = log_sum(logits, vocab);
    size_t count = 0;
    for (size_t i = 0; i < vocab && n; i++) {
        struct logprob token = {(int)i, logits[i] - total};
        if (count < n || token.value > top[n - 1].value) count = insert(top, count, n, token);
    }
    return logits[id] - total;
}
