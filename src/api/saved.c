#include "api/saved.h"

#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "num/half.h"

enum { NAME_BYTES = 48, NUMBERS = 4 };

static void name_of(size_t window, char name[NAME_BYTES]) {
    snprintf(name, NAME_BYTES, "log_probabilities.%05zu", window);
}

size_t saved_tokens(const struct saved_text *t) {
    return (t->count - 1) * t->windows.step + t->windows.length;
}

size_t saved_scored(const struct windows *w, size_t window) {
    size_t first = w->length - w->from;
    return window && w->step < first ? w->step : first;
}

static void numbers_of(const struct windows *w, int32_t out[NUMBERS]) {
    size_t numbers[NUMBERS] = {w->length, w->step, w->lead, w->from};
    for (int i = 0; i < NUMBERS; i++) out[i] = (int32_t)numbers[i];
}

/* --- writing ---------------------------------------------------------------------------------- */

static bool produce_tokens(void *arg, struct span *bytes, struct error *e) {
    const struct saved_text *t = arg;
    (void)e;
    bytes->data = (const unsigned char *)t->ids;
    bytes->size = saved_tokens(t) * sizeof *t->ids;
    return true;
}

static bool produce_windows(void *arg, struct span *bytes, struct error *e) {
    static _Thread_local int32_t numbers[NUMBERS]; /* borrowed until the next array */
    const struct saved_text *t = arg;
    (void)e;
    numbers_of(&t->windows, numbers);
    *bytes = (struct span){(const unsigned char *)numbers, sizeof numbers};
    return true;
}

bool saved_declare(struct writer *w, struct saved_text *t, write_produce *produce, void *args,
                   size_t arg_bytes, struct error *e) {
    uint64_t tokens = saved_tokens(t), numbers = NUMBERS;
    if (!write_array(w, "tokens", DTYPE_I32, 1, &tokens, produce_tokens, t, e) ||
        !write_array(w, "windows", DTYPE_I32, 1, &numbers, produce_windows, t, e)) {
        return false;
    }
    for (size_t i = 0; i < t->count; i++) {
        uint64_t shape[2] = {saved_scored(&t->windows, i), t->vocab};
        char name[NAME_BYTES];
        name_of(i, name);
        if (!write_array(w, name, DTYPE_F16, 2, shape, produce, (char *)args + i * arg_bytes, e))
            return false;
    }
    return true;
}

void saved_store(unsigned char *row, const float *logits, double norm, size_t vocab) {
    for (size_t i = 0; i < vocab; i++) {
        half_store_u16(row + 2 * i, half_to_f16((float)((double)logits[i] - norm)));
    }
}

/* --- reading ---------------------------------------------------------------------------------- */

static bool is_array(const struct array *a, enum dtype dtype, int dims, size_t rows, size_t cols) {
    return a && a->dtype == dtype && a->dims == dims && a->shape[0] == rows &&
           (dims == 1 || a->shape[1] == cols);
}

/* Those of the file against what is expected: its length, then its bytes. */
static bool is_equal(const struct array *a, const void *want, size_t count) {
    size_t bytes = count * sizeof(int32_t);
    return is_array(a, DTYPE_I32, 1, count, 0) && memcmp(a->bytes.data, want, bytes) == 0;
}

static bool check(const struct store *s, const char *path, const struct saved_text *t,
                  struct error *e) {
    const struct array *tokens = store_find(s, "tokens"), *windows = store_find(s, "windows");
    int32_t numbers[NUMBERS];
    numbers_of(&t->windows, numbers);
    if (!tokens || !windows) {
        return fail(e, STATUS_FORMAT,
                    "%s holds no saved predictions; make it with nibble perplexity --save-logits",
                    path);
    }
    if (!is_equal(windows, numbers, NUMBERS) || !is_equal(tokens, t->ids, saved_tokens(t))) {
        return fail(e, STATUS_ARGUMENT,
                    "%s is of another text, or was cut in other or more windows; take the options "
                    "and the text that it was made with",
                    path);
    }
    for (size_t i = 0; i < t->count; i++) {
        char name[NAME_BYTES];
        name_of(i, name);
        if (is_array(store_find(s, name), DTYPE_F16, 2, saved_scored(&t->windows, i), t->vocab))
            continue;
        return fail(e, STATUS_MODEL,
                    "%s: %s is no f16 array [%zu, %zu] as this model's vocabulary asks for", path,
                    name, saved_scored(&t->windows, i), t->vocab);
    }
    return true;
}

bool saved_open(struct store *s, const char *path, const struct saved_text *t, struct error *e) {
    if (!store_open(s, path, e)) return false;
    if (check(s, path, t, e)) return true;
    store_close(s);
    *s = (struct store){0};
    return false;
}

const unsigned char *saved_window(const struct store *s, size_t window) {
    char name[NAME_BYTES];
    name_of(window, name);
    return store_find(s, name)->bytes.data;
}

void saved_load(float *log_p, const unsigned char *row, size_t vocab) {
    for (size_t i = 0; i < vocab; i++) log_p[i] = half_from_f16(half_load_u16(row + 2 * i));
}
