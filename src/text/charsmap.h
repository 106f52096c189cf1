/* The normalization rules of a SentencePiece model (precompiled_charsmap).
 *
 * A blob of <bytes of the trie, u32> <trie> <targets>: a Darts-clone double array whose values are
 * offsets of NUL-terminated strings. The library follows it without a single bound check, so what
 * comes out of a file is walked here first. Layout: normalizer.cc of sentencepiece 0.1.97, darts.h
 * of Darts-clone. */
#ifndef NIBBLE_TEXT_CHARSMAP_H
#define NIBBLE_TEXT_CHARSMAP_H

#include <stddef.h>

#include "base/span.h"

#ifdef __cplusplus
extern "C" {
#endif

/* NULL if the library can use blob safely, or why not (an empty reason: not enough memory).
 * *growth is raised to the most bytes that one byte of text may become, with a space counted as
 * the three bytes of U+2581. */
const char *charsmap_check(struct span blob, size_t *growth);

#ifdef __cplusplus
}
#endif

#endif
