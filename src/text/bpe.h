/* Byte pair encoding: of the neighbours in a word, those that come first in a list of merges become
 * one, until none are in it (Sennrich et al. 2016, arXiv:1508.07909). Ties go to the left. */
#ifndef NIBBLE_TEXT_BPE_H
#define NIBBLE_TEXT_BPE_H

#include "base/error.h"
#include "text/ids.h"
#include "text/vocab.h"

struct bpe {
    const struct vocab *vocab; /* indexed; borrowed */
    /* By rank, as tiktoken: two neighbours merge if their text together is a piece, the smallest id
     * first. Otherwise the list decides. */
    bool by_rank;
    bool ignore_merges; /* a word that is a piece is that piece */
    bool fuse_unknown;  /* characters in a row that are no piece become one unknown token */
    int unknown;        /* -1: such characters are dropped */
    int bytes[256];     /* pieces that stand for a character's bytes if it is none; -1: none */
    const bool *barred; // [vocab->count], or NULL: ids that no text becomes
    struct bpe_pair *pairs;
    size_t pair_slots;
};

/* Makes room for count merges; then each in turn, later ones of a pair count. left, right, made:
 * ids of pieces. */
bool bpe_open(struct bpe *b, size_t count);
void bpe_merge(struct bpe *b, uint32_t rank, int left, int right, int made);
void bpe_close(struct bpe *b); /* all zero is fine */

/* What encoding needs besides: one for a text, all zero at first. */
struct bpe_work {
    struct bpe_symbol *symbols;
    struct bpe_candidate *heap;
    size_t room, count;
    size_t waiting; /* in heap */
};
void bpe_work_free(struct bpe_work *w);

/* Adds the ids of one word (valid UTF-8, less than 2 GiB). Takes n log n. False when memory ran
 * out. */
bool bpe_encode(const struct bpe *b, struct bpe_work *w, const char *word, size_t size,
                struct ids *out);

#endif
