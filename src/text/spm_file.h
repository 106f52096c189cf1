/* A serialized SentencePiece model (sentencepiece_model.proto), read beside the library.
 *
 * Two things make this necessary. The library's public interface does not tell the normalizer's
 * settings, which decoding depends on, and trying them out on a text fails for vocabularies that
 * do not hold it. And the library (0.1.97) trusts its file: it follows the normalization rules
 * without bounds, recurses once a byte of a piece, overruns a stack array when more than 64 user
 * defined pieces are prefixes of one another, and runs and prints the self-test of the file.
 * What is accepted here is a subset of what protobuf accepts. */
#ifndef NIBBLE_TEXT_SPM_FILE_H
#define NIBBLE_TEXT_SPM_FILE_H

#include <stdbool.h>
#include <stddef.h>

#include "base/span.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { SPM_FILE_MAX_PIECE = 1024 }; /* bytes of one piece, and of the unknown surface */

struct spm_file {
    bool dummy_prefix;  /* add_dummy_prefix: the normalizer puts a space before the text */
    bool single_spaces; /* remove_extra_whitespaces: it drops leading, trailing, repeated ones */
    bool rules;         /* precompiled_charsmap: it has rules, by which characters may vanish */
    bool byte_fallback; /* a character that no piece has becomes a piece for each byte */
    char unknown[SPM_FILE_MAX_PIECE + 1]; /* unk_surface: the unknown piece, decoded */
    size_t growth;                        /* most bytes that normalizing makes of one of text */
    unsigned char *kept; /* pieces, trainer and normalizer: all that the library shall see */
    size_t kept_size;
    int *user_defined; /* the ids of such pieces, in the order of their texts */
    size_t user_defined_count;
};

/* NULL, or why the model is refused (an empty reason: not enough memory). Either way close it. */
const char *spm_file_read(struct spm_file *f, struct span model);
void spm_file_drop(struct spm_file *f); /* what is kept for the library, once that has it */
void spm_file_close(struct spm_file *f);

#ifdef __cplusplus
}
#endif

#endif
