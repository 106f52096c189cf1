#include "text/bpe.h"

#include <stdlib.h>
#include <string.h>

#include "text/unicode.h"

/* --- The list of merges ----------------------------------------------------------------------- */

struct bpe_pair {
    uint32_t left, right; /* ids + 1; 0: a free slot */
    uint32_t rank;
    int made;
};

bool bpe_open(struct bpe *b, size_t count) {
    for (b->pair_slots = 16; b->pair_slots < 2 * count;) b->pair_slots *= 2;
    b->pairs = calloc(b->pair_slots, sizeof *b->pairs);
    return b->pairs != NULL;
}

void bpe_close(struct bpe *b) {
    free(b->pairs);
    *b = (struct bpe){0};
}

static struct bpe_pair *slot_of(const struct bpe *b, int left, int right) {
    uint32_t l = (uint32_t)left + 1, r = (uint32_t)right + 1;
    uint64_t h = ((uint64_t)l << 32 | r) * 0x9e3779b97f4a7c15u; /* 2^64 / golden ratio */
    size_t at = (size_t)(h ^ h >> 32) & (b->pair_slots - 1);
    while (b->pairs[at].left && (b->pairs[at].left != l || b->pairs[at].right != r))
        at = (at + 1) & (b->pair_slots - 1);
    return &b->pairs[at];
}

void bpe_merge(struct bpe *b, uint32_t rank, int left, int right, int made) {
    *slot_of(b, left, right) =
        (struct bpe_pair){(uint32_t)left + 1, (uint32_t)right + 1, rank, made};
}

/* --- A word in work --------------------------------------------------------------------------- */

struct bpe_symbol {
    int id;
    int prev, next; /* -1: none */
    uint32_t start, size;
    bool gone; /* merged into the one before */
};

/* A merge that could be made when it was found. */
struct bpe_candidate {
    uint64_t key; /* the rank, then the place of the left symbol */
    int made;
};

void bpe_work_free(struct bpe_work *w) {
    free(w->symbols);
    free(w->heap);
    *w = (struct bpe_work){0};
}

/* A word of n bytes has at most n symbols. Every merge takes one candidate away and adds two at
 * most, so that there are never 2 n of them. */
static bool reserve(struct bpe_work *w, size_t size) {
    w->count = w->waiting = 0;
    if (size <= w->room) return true;
    if (size < 2 * w->room + 64) size = 2 * w->room + 64;
    bpe_work_free(w);
    w->symbols = malloc(size * sizeof *w->symbols);
    w->heap = malloc(2 * size * sizeof *w->heap);
    w->room = w->symbols && w->heap ? size : 0;
    return w->room > 0;
}

static void add_symbol(struct bpe_work *w, int id, size_t start, size_t size) {
    int at = (int)w->count++;
    w->symbols[at] = (struct bpe_symbol){id, at - 1, at + 1, (uint32_t)start, (uint32_t)size, 0};
}

static int find_piece(const struct bpe *b, const char *text, size_t size) {
    int id = vocab_find(b->vocab, text, size);
    return id >= 0 && b->barred && b->barred[id] ? -1 : id;
}

static bool add_bytes(const struct bpe *b, struct bpe_work *w, const char *word, size_t at,
                      size_t size) {
    for (size_t i = 0; i < size; i++) {
        if (b->bytes[(unsigned char)word[at + i]] < 0) return false;
    }
    for (size_t i = 0; i < size; i++)
        add_symbol(w, b->bytes[(unsigned char)word[at + i]], at + i, 1);
    return true;
}

/* One symbol a character. An unknown one waits, so that more may join it; that bytes overtake it is
 * what the reference does (merge_word in bpe/model.rs of Hugging Face tokenizers). */
static void fill(const struct bpe *b, struct bpe_work *w, const char *word, size_t size) {
    size_t unknown = 0, length;
    for (size_t at = 0; at < size; at += length) {
        int32_t c;
        length = unicode_next(word + at, size - at, &c);
        int id = find_piece(b, word + at, length);
        if (id < 0 && add_bytes(b, w, word, at, length)) continue;
        if (id < 0 && b->unknown < 0) continue;
        if (unknown && (id >= 0 || !b->fuse_unknown)) {
            add_symbol(w, b->unknown, at - unknown, unknown);
            unknown = 0;
        }
        if (id >= 0) add_symbol(w, id, at, length);
        if (id < 0) unknown += length;
    }
    if (unknown) add_symbol(w, b->unknown, size - unknown, unknown);
    if (w->count) w->symbols[w->count - 1].next = -1;
}

/* --- Merging ---------------------------------------------------------------------------------- */

/* Whether the symbol at left and the next one merge, by which rank and into what. */
static bool find_merge(const struct bpe *b, const struct bpe_work *w, const char *word, int left,
                       struct bpe_candidate *c) {
    const struct bpe_symbol *l = &w->symbols[left], *r = &w->symbols[l->next];
    uint32_t rank;
    if (b->by_rank) {
        c->made = find_piece(b, word + l->start, (size_t)l->size + r->size);
        rank = (uint32_t)c->made;
    } else {
        const struct bpe_pair *p = slot_of(b, l->id, r->id);
        c->made = p->left && !(b->barred && b->barred[p->made]) ? p->made : -1;
        rank = p->rank;
    }
    c->key = (uint64_t)rank << 32 | (uint32_t)left;
    return c->made >= 0;
}

/* A heap with four below each: half the levels of two, and less far apart in memory. */
enum { BELOW = 4 };

static void sink(struct bpe_work *w, size_t at) {
    struct bpe_candidate moved = w->heap[at];
    for (size_t child; (child = BELOW * at + 1) < w->waiting; at = child) {
        size_t end = child + BELOW < w->waiting ? child + BELOW : w->waiting;
        for (size_t other = child + 1; other < end; other++) {
            if (w->heap[other].key < w->heap[child].key) child = other;
        }
        if (w->heap[child].key >= moved.key) break;
        w->heap[at] = w->heap[child];
    }
    w->heap[at] = moved;
}

static void push(struct bpe_work *w, struct bpe_candidate c) {
    size_t at = w->waiting++;
    for (; at && w->heap[(at - 1) / BELOW].key > c.key; at = (at - 1) / BELOW)
        w->heap[at] = w->heap[(at - 1) / BELOW];
    w->heap[at] = c;
}

static struct bpe_candidate pop(struct bpe_work *w) {
    struct bpe_candidate top = w->heap[0];
    w->heap[0] = w->heap[--w->waiting];
    if (w->waiting) sink(w, 0);
    return top;
}

static void join(struct bpe_work *w, int left, int made) {
    struct bpe_symbol *l = &w->symbols[left], *r = &w->symbols[l->next];
    l->id = made;
    l->size += r->size;
    l->next = r->next;
    r->gone = true;
    if (l->next >= 0) w->symbols[l->next].prev = left;
}

static void merge(const struct bpe *b, struct bpe_work *w, const char *word) {
    struct bpe_candidate c, now;
    for (int at = 0; at + 1 < (int)w->count; at++) {
        if (find_merge(b, w, word, at, &c)) w->heap[w->waiting++] = c;
    }
    for (size_t at = w->waiting / BELOW + 1; at-- > 0;) {
        if (at < w->waiting) sink(w, at);
    }
    while (w->waiting) {
        c = pop(w);
        int left = (int)(uint32_t)c.key;
        struct bpe_symbol *l = &w->symbols[left];
        if (l->gone || l->next < 0) continue;
        if (!find_merge(b, w, word, left, &now) || now.made != c.made) continue; /* out of date */
        join(w, left, c.made);
        if (l->prev >= 0 && find_merge(b, w, word, l->prev, &now)) push(w, now);
        if (l->next >= 0 && find_merge(b, w, word, left, &now)) push(w, now);
    }
}

bool bpe_encode(const struct bpe *b, struct bpe_work *w, const char *word, size_t size,
                struct ids *out) {
    int id = b->ignore_merges ? find_piece(b, word, size) : -1;
    if (id >= 0) {
        ids_add(out, &id, 1);
        return !out->failed;
    }
    if (!size) return true;
    if (!reserve(w, size)) return false;
    fill(b, w, word, size);
    merge(b, w, word);
    for (int at = w->count ? 0 : -1; at >= 0; at = w->symbols[at].next)
        ids_add(out, &w->symbols[at].id, 1);
    return !out->failed;
}
