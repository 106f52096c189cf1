/* A tokenizer: text to token ids and back.
 *
 * SentencePiece models (BPE and unigram, byte fallback), with tokens added to them, through
 * pieces.h; tokenizer.json of Hugging Face's tokenizers and tiktoken files through pipeline.h.
 * Immutable once open and usable from several threads. Text is bytes with a length: it may hold NUL
 * and invalid UTF-8, whose bytes become U+FFFD when encoded. */
#ifndef NIBBLE_TEXT_TOKENS_H
#define NIBBLE_TEXT_TOKENS_H

#include "base/error.h"
#include "base/span.h"
#include "text/extra.h"

struct tokens;

/* Files with tokens added to a SentencePiece model, the one that counts first. limit: ids of it and
 * more are left out (the model has no rows for them); 0: none. */
struct tokens_beside {
    const struct extra_source *sources;
    size_t count;
    int limit;
};

/* model: the bytes of a tokenizer.model, of SentencePiece or tiktoken, not kept. where names the
 * file in messages. beside may be NULL; tiktoken's has all its tokens by itself. */
bool tokens_open(struct tokens **t, struct span model, const char *where,
                 const struct tokens_beside *beside, struct error *e);
/* file: the bytes of a tokenizer.json. */
bool tokens_open_json(struct tokens **t, struct span file, const char *where, struct error *e);
void tokens_close(struct tokens *t); /* NULL is fine */

/* "SentencePiece", "tiktoken" or "tokenizer.json". */
const char *tokens_kind(const struct tokens *t);

int tokens_count(const struct tokens *t); /* ids are 0 to count - 1; not each need have a piece */
int tokens_bos(const struct tokens *t);   /* -1 if there is none; of a template, the first before */
int tokens_eos(const struct tokens *t);   /* -1 if there is none; of a template, the last behind */

/* More tokens that end an answer, where the format says so: those of tiktoken's models. */
const int *tokens_ends(const struct tokens *t, size_t *count);

enum { TOKENS_MAX_BEFORE = 8 };

/* Whether the file says what goes before a text. SentencePiece's has a BOS or none and leaves it to
 * others; a tokenizer.json without a template says that nothing does. */
bool tokens_has_template(const struct tokens *t);

/* The special tokens that the tokenizer itself puts before a text: BOS, if SentencePiece has one;
 * those of a tokenizer.json's template. Gives how many, 0 to TOKENS_MAX_BEFORE, which before has
 * room for. */
size_t tokens_before(const struct tokens *t, int *before);

/* The id of a special or added token, or of a piece as the file writes it; -1 if there is none. */
int tokens_find(const struct tokens *t, const char *text, size_t size);

/* Control tokens such as <s>, or what a tokenizer.json calls special: invisible in generated text.
 */
bool tokens_is_control(const struct tokens *t, int id);

struct token_list {
    int *ids;
    size_t count;
};

/* Adds the ids of text to *list (grown with realloc; free(list->ids) is the caller's); on failure
 * *list is as before. Special tokens (control tokens and the unknown token) written in the text
 * stay text unless special is true, which turns each, the longest first, into its id; the text
 * between two of them is then a text of its own to SentencePiece. Added tokens that are not special
 * become their ids either way, as in the reference. No BOS is added. */
bool tokens_encode(const struct tokens *t, const char *text, size_t size, bool special,
                   struct token_list *list, struct error *e);

/* The ids of a text in which special tokens count but in what guard says are somebody's words (see
 * guard.h); else as tokens_encode with special. The text is valid UTF-8. */
bool tokens_encode_guarded(const struct tokens *t, const char *text, size_t size,
                           const struct guard *guard, struct token_list *list, struct error *e);

/* Whether the tokenizer takes the token out of a text as a whole: special, added or user defined.
 */
bool tokens_is_added(const struct tokens *t, int id);

/* A token's name, as the file writes it: not NUL-terminated, *size 0 outside the vocabulary. */
const char *tokens_name(const struct tokens *t, int id, size_t *size);

/* Text of a sequence, a token at a time; all of it together is what the reference decodes, but
 * byte tokens come out as bytes, valid UTF-8 or not. SentencePiece writes a space as U+2581 and
 * may put one before the text; at the very start that one space is dropped (every space, if the
 * model keeps no leading ones). A tokenizer.json says what is dropped there (decode.h). */
struct detokenizer {
    const struct tokens *tokens;
    bool started; /* some text has come out: a leading space is kept from now on */
};

/* The bytes of one more token: at most cap are written to out, the full length is returned. Never
 * fails: an id outside the vocabulary has no text. Control tokens have none either unless
 * show_control; with it the unknown token too is shown as it is written (<unk>) and not as its
 * surface. */
size_t tokens_text(struct detokenizer *d, int id, bool show_control, char *out, size_t cap);

/* The longest text of any one piece, in bytes: the cap that always suffices. */
size_t tokens_longest(const struct tokens *t);

/* The most bytes of a text that one token stands for, so that long texts are known as such before
 * they are encoded. 0: no such bound is known, for something may be dropped (spaces, what a
 * normalizer takes away) or a token may stand for a run of unknown characters. */
size_t tokens_reach(const struct tokens *t);

#endif
