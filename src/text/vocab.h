/* The pieces of a vocabulary: text of an id, id of a text. Ids may have holes. */
#ifndef NIBBLE_TEXT_VOCAB_H
#define NIBBLE_TEXT_VOCAB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    VOCAB_MAX_PIECES = 4 << 20,
    VOCAB_MAX_PIECE = 4096, /* bytes of one */
};

struct vocab {
    struct vocab_piece *pieces; // [count]
    int count;                  /* the largest id and one */
    int room;
    char *text;
    size_t text_size, text_room;
    uint32_t *slots; /* hash table of ids + 1 */
    size_t slot_count;
    size_t known;   /* pieces that are no holes */
    size_t longest; /* bytes of the longest that vocab_find can find */
};

/* NULL, or why the piece cannot be added, in words that go on from "id 7 ..." (an empty reason: not
 * enough memory). An empty piece is kept; vocab_find finds none. */
const char *vocab_add(struct vocab *v, int id, const char *text, size_t size);

/* To be called once: makes what vocab_find looks in. Pieces added later are not found by it, nor
 * taken for duplicates. The same reasons; *id is that of a text that has another id as well. */
const char *vocab_index(struct vocab *v, int *id);

int vocab_find(const struct vocab *v, const char *text, size_t size); /* -1: none */

/* NULL outside the vocabulary and for a hole. Not NUL-terminated. */
const char *vocab_text(const struct vocab *v, int id, size_t *size);

void vocab_close(struct vocab *v); /* all zero is fine */

#endif
