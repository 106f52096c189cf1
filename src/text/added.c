#include "text/added.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "text/unicode.h"

bool added_add(struct added *a, struct added_token token) {
    if (a->count == a->room) {
        size_t room = a->room ? 2 * a->room : 32;
        struct added_token *grown = realloc(a->list, room * sizeof *grown);
        if (!grown) return false;
        a->list = grown;
        a->room = room;
    }
    char *text = malloc(token.size);
    if (!text) return false;
    memcpy(text, token.text, token.size);
    token.text = text;
    a->list[a->count++] = token;
    a->begins[(unsigned char)token.text[0]] = true;
    return true;
}

static int by_text(const void *a, const void *b) {
    const struct added_token *x = a, *y = b;
    int order = memcmp(x->text, y->text, x->size < y->size ? x->size : y->size);
    return order ? order : (x->size > y->size) - (x->size < y->size);
}

const struct added_token *added_sort(struct added *a) {
    if (a->count) qsort(a->list, a->count, sizeof *a->list, by_text);
    for (size_t i = 1; i < a->count; i++) {
        if (by_text(&a->list[i - 1], &a->list[i]) == 0) return &a->list[i];
    }
    return NULL;
}

void added_close(struct added *a) {
    for (size_t i = 0; i < a->count; i++) free((char *)a->list[i].text);
    free(a->list);
    *a = (struct added){0};
}

/* The first of list[low, high), which agree before byte k and are longer, whose byte k is not
 * below c. */
static size_t lower_bound(const struct added *a, size_t low, size_t high, size_t k, int c) {
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if ((unsigned char)a->list[middle].text[k] < c) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

/* The range of those that agree with text narrows byte by byte, and one that ends there is the
 * first of the range. */
const struct added_token *added_find(const struct added *a, const char *text, size_t size) {
    const struct added_token *best = NULL;
    if (!size || !a->begins[(unsigned char)text[0]]) return NULL;
    size_t low = 0, high = a->count;
    for (size_t k = 0; low < high; k++) {
        if (a->list[low].size == k) best = &a->list[low++];
        if (k == size) break;
        unsigned char c = (unsigned char)text[k];
        low = lower_bound(a, low, high, k, c);
        high = lower_bound(a, low, high, k, c + 1);
    }
    return best;
}

static bool word_ends(const char *text, size_t size) {
    int32_t c;
    if (!size) return false;
    unicode_last(text, size, &c);
    return unicode_is_word(c);
}

static bool word_begins(const char *text, size_t size) {
    int32_t c;
    if (!size) return false;
    unicode_next(text, size, &c);
    return unicode_is_word(c);
}

static bool is_passed_over(const struct added_walk *w, const struct added_token *t) {
    size_t end = w->at + t->size;
    if (t->special && !w->special) return true;
    return t->single_word &&
           (word_ends(w->text, w->at) || word_begins(w->text + end, w->size - end));
}

static bool is_kept_out(const struct added_walk *w, const struct added_token *t) {
    return w->guard && (t->special || guard_bars(w->guard, t->id)) &&
           guard_covers(w->guard, w->at, w->at + t->size);
}

static size_t spaces_before(const char *text, size_t low, size_t at) {
    int32_t c;
    while (at > low) {
        size_t length = unicode_last(text + low, at - low, &c);
        if (!unicode_is_space(c)) break;
        at -= length;
    }
    return at;
}

static size_t spaces_behind(const char *text, size_t size, size_t at) {
    int32_t c;
    while (at < size) {
        size_t length = unicode_next(text + at, size - at, &c);
        if (!unicode_is_space(c)) break;
        at += length;
    }
    return at;
}

/* Finds the next token that counts; *start is where it begins with its spaces. A match that is
 * passed over hides those that begin within it, as find_matches in added_vocabulary.rs of Hugging
 * Face tokenizers has it; one that is kept out hides nothing, for the template's own token may
 * begin before it ends. */
static bool find_next(struct added_walk *w, size_t *start) {
    while (w->at < w->size) {
        const struct added_token *t = added_find(w->added, w->text + w->at, w->size - w->at);
        if (t && is_kept_out(w, t)) t = NULL;
        size_t end = w->at + (t ? t->size : 1);
        if (t && !is_passed_over(w, t)) {
            *start = t->lstrip ? spaces_before(w->text, w->from, w->at) : w->at;
            w->found = t;
            w->found_end = t->rstrip ? spaces_behind(w->text, w->size, end) : end;
            w->at = w->found_end;
            return true;
        }
        w->at = end;
    }
    *start = w->size;
    return false;
}

bool added_next(struct added_walk *w, int *id, size_t *start, size_t *size) {
    size_t begin = w->found_end;
    if (!w->found) {
        *start = w->from;
        bool more = find_next(w, &begin);
        *size = begin - w->from;
        *id = -1;
        w->from = begin;
        if (*size) return true;
        if (!more) return false;
    }
    *id = w->found->id;
    *start = w->from;
    *size = w->found_end - w->from;
    w->from = w->found_end;
    w->found = NULL;
    return true;
}
