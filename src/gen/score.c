#include "gen/score.h"

#include <math.h>
#include <string.h>

#include "model/forward.h"

enum { LOGITS_BYTES = 32 << 20, MOST_ROWS = 512 };

/* --- one prediction --------------------------------------------------------------------------- */

bool score_row(const float *logits, size_t vocab, int id, struct score *out) {
    size_t best = 0;
    for (size_t i = 0; i < vocab; i++) {
        if (isnan(logits[i]) || logits[i] == INFINITY) return false;
        if (logits[i] > logits[best]) best = i;
    }
    if (logits[best] == -INFINITY) return false;
    double max = (double)logits[best], sum = 0;
    for (size_t i = 0; i < vocab; i++) sum += exp((double)logits[i] - max);
    double norm = max + log(sum);
    *out = (struct score){(double)logits[id] - norm, norm, (int)best};
    return true;
}

/* With P the sum of p: sum p / P (log p - log P - log q). */
double score_divergence(const float *log_p, const float *logits, double norm, size_t vocab) {
    double total = 0, sum = 0;
    for (size_t i = 0; i < vocab; i++) {
        double p = exp((double)log_p[i]);
        if (p == 0) continue;
        total += p;
        sum += p * ((double)log_p[i] - ((double)logits[i] - norm));
    }
    return sum / total - log(total);
}

/* --- a text ----------------------------------------------------------------------------------- */

size_t score_rows(size_t vocab) {
    size_t rows = LOGITS_BYTES / (vocab * sizeof(float));
    return rows > MOST_ROWS ? MOST_ROWS : rows < 1 ? 1 : rows;
}

/* Of the last forward pass, of tokens begin .. begin + n - 1, those that predict `from` and on. */
static bool see_pass(struct run *r, size_t begin, size_t n, size_t from, float *logits,
                     score_see *see, void *arg, struct error *e) {
    size_t vocab = r->model->spec.vocab, most = score_rows(vocab), count;
    size_t skip = from > begin + 1 ? from - begin - 1 : 0;
    for (size_t i = skip; i < n; i += count) {
        count = n - i < most ? n - i : most;
        forward_logits(r, i, count, logits);
        if (!see(arg, begin + i + 1, count, logits, e)) return false;
    }
    return true;
}

bool score_append(struct run *r, const int *ids, size_t n, size_t from, float *logits,
                  score_see *see, void *arg, struct error *e) {
    if (!run_check(r, ids, n - 1, e) || !run_check(r, ids + n - 1, 1, e)) return false;
    run_expect(r, r->pos + n - 1);
    for (size_t done = 0, count; done < n - 1; done += count) {
        count = n - 1 - done < r->batch ? n - 1 - done : r->batch;
        if (!run_append(r, ids + done, count, NULL, true, e)) return false;
        if (!see_pass(r, done, count, from, logits, see, arg, e)) return false;
    }
    return true;
}

/* --- windows ---------------------------------------------------------------------------------- */

bool score_windows(struct windows *w, enum windows_kind kind, size_t length, size_t lead,
                   size_t stride, struct error *e) {
    size_t overlap = lead ? lead : 1;
    *w = (struct windows){length, length, lead, length / 2 + 1};
    if (kind == WINDOWS_ALL) w->from = overlap;
    if (w->from >= length || overlap > w->from) {
        return fail(e, STATUS_ARGUMENT,
                    "a window of %zu tokens leaves none to score; give a longer one", length);
    }
    if (kind == WINDOWS_ALL) w->step = length - overlap;
    if (stride > length - w->from) {
        return fail(e, STATUS_ARGUMENT,
                    "a stride of %zu passes tokens over: a window scores %zu; give at most that",
                    stride, length - w->from);
    }
    if (stride) w->step = stride;
    return true;
}

size_t score_window_count(const struct windows *w, size_t tokens) {
    return tokens < w->length ? 0 : (tokens - w->length) / w->step + 1;
}

size_t score_window(const struct windows *w, const int *ids, size_t i, int *out) {
    memcpy(out, ids + i * w->step, w->length * sizeof *out);
    memcpy(out, ids, w->lead * sizeof *out);
    bool later = i && w->length - w->step > w->from;
    return later ? w->length - w->step : w->from;
}

/* --- figures ---------------------------------------------------------------------------------- */

void score_add(struct score_mean *m, double x) {
    double before = x - m->mean;
    m->count++;
    m->mean += before / (double)m->count;
    m->squares += before * (x - m->mean);
}

double score_error(const struct score_mean *m) {
    double n = (double)m->count;
    return m->count < 2 ? 0 : sqrt(m->squares / (n - 1) / n);
}

double score_percentile(const double *sorted, size_t n, double share) {
    double at = share * (double)(n - 1);
    size_t low = (size_t)at;
    if (low + 1 >= n) return sorted[n - 1];
    return sorted[low] + (at - (double)low) * (sorted[low + 1] - sorted[low]);
}
