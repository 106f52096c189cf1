/* The decoder of a tokenizer.json: the text of tokens.
 *
 * Text comes out a token at a time, so only decoders can be had in which a token's text depends on
 * nothing but whether it is the first. Byte tokens become bytes, valid UTF-8 or not. */
#ifndef NIBBLE_TEXT_DECODE_H
#define NIBBLE_TEXT_DECODE_H

#include "text/bytes.h"
#include "text/json.h"

/* What the first text of a sequence lacks. */
enum decode_start {
    DECODE_ALL,      /* nothing */
    DECODE_DROP_ONE, /* the character `dropped`, if it begins with it */
    DECODE_DROP_EACH /* of the first token, every such character, in the piece as it is written */
};

/* Steps in order: ByteLevel, Metaspace, Replace, ByteFallback, Fuse, Strip and Sequences of them.
 * Without a decoder there is a space between tokens. */
struct decoder {
    struct decode_step *steps;
    size_t count;
    enum decode_start start;
    char dropped[5];
    bool fused, bytes; /* while it opens: there was a step that joins tokens, makes bytes */
};

bool decode_open(struct decoder *d, const cJSON *component, const struct json *in);
bool decode_open_bytes(struct decoder *d, const struct json *in); /* as one that is ByteLevel */
void decode_close(struct decoder *d);                             /* all zero is fine */

/* Sets *text to what piece is in the middle of a sequence, with spare for work. */
bool decode_piece(const struct decoder *d, const char *piece, size_t size, struct bytes *text,
                  struct bytes *spare, struct error *e);

#endif
