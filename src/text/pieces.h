/* A SentencePiece model and the tokens added to it, in the shape of tokens.h. */
#ifndef NIBBLE_TEXT_PIECES_H
#define NIBBLE_TEXT_PIECES_H

#include "text/extra.h"
#include "text/ids.h"

struct pieces;

/* extra may be empty. NULL on failure. */
struct pieces *pieces_open(struct span model, const struct extra *extra, const char *where,
                           struct error *e);
void pieces_close(struct pieces *p); /* NULL is fine */

int pieces_count(const struct pieces *p); /* the largest id and one; there may be holes */
int pieces_bos(const struct pieces *p);   /* -1 if there is none */
int pieces_eos(const struct pieces *p);
bool pieces_is_control(const struct pieces *p, int id);
bool pieces_is_added(const struct pieces *p, int id);
const char *pieces_name(const struct pieces *p, int id, size_t *size);
int pieces_find(const struct pieces *p, const char *text, size_t size);
size_t pieces_longest(const struct pieces *p);
size_t pieces_reach(const struct pieces *p); /* as tokens_reach */

/* special and guard (or NULL) as in tokens.h; on failure *out is partly filled. */
bool pieces_encode(const struct pieces *p, const char *text, size_t size, bool special,
                   const struct guard *guard, struct ids *out, struct error *e);

/* As tokens_text. *started belongs to the sequence. */
size_t pieces_text(const struct pieces *p, bool *started, int id, bool show_control, char *out,
                   size_t cap);

#endif
