/* The C side of libsentencepiece: spm.cc is the only C++ in the project, and no exception and no
 * C++ type crosses this line. The library is not told to be quiet: what makes it print (the
 * self-test of a model, calls on a model that failed to load) is never reached. */
#ifndef NIBBLE_TEXT_SPM_H
#define NIBBLE_TEXT_SPM_H

#include <stdbool.h>
#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

struct spm;

enum spm_kind {
    SPM_NORMAL,
    SPM_UNKNOWN,
    SPM_CONTROL,
    SPM_BYTE,
    SPM_UNUSED
}; /* NORMAL: also user defined */

/* Loads a serialized model, which may be hostile. On failure returns NULL and writes a reason to
 * why, an empty one when memory ran out. A denormalizer, which no language model has, is not
 * applied. */
struct spm *spm_open(const void *data, size_t size, char *why, size_t why_size);
void spm_close(struct spm *s); /* NULL is fine */

int spm_count(const struct spm *s);
int spm_bos(const struct spm *s); /* -1 if there is none */
int spm_eos(const struct spm *s);
int spm_unknown(const struct spm *s);
enum spm_kind spm_kind(const struct spm *s, int id); /* SPM_UNUSED outside the vocabulary */

bool spm_is_user_defined(const struct spm *s, int id);

/* The piece as SentencePiece writes it (U+2581 for a space); NUL-terminated, owned by s, *size
 * its length: 1 to 1024, 0 outside the vocabulary. */
const char *spm_piece(const struct spm *s, int id, size_t *size);

/* The text that stands for the unknown token (" \xe2\x81\x87 " by default). */
const char *spm_unknown_surface(const struct spm *s);

/* The settings of the normalizer that decoding undoes. add_dummy_prefix: it puts a space before
 * the text. remove_extra_whitespaces: it drops leading, trailing and repeated spaces. */
bool spm_dummy_prefix(const struct spm *s);
bool spm_single_spaces(const struct spm *s);

/* Whether all of a text comes out in its pieces: nothing of it is dropped, and no run of unknown
 * characters shares one. */
bool spm_keeps_all(const struct spm *s);

/* Ids of text in a malloc'd array (not NULL). False, and a reason in why as above, when out of
 * memory or the library refuses. Time grows as n log n for BPE; a model without byte fallback takes
 * quadratic time for a long run of characters that it does not know. */
bool spm_encode(const struct spm *s, const char *text, size_t size, int **ids, size_t *count,
                char *why, size_t why_size);

struct spm_token {
    int id;
    size_t begin, end; /* bytes of the text */
};

/* The same, each with the bytes that it stands for. */
bool spm_encode_at(const struct spm *s, const char *text, size_t size, struct spm_token **tokens,
                   size_t *count, char *why, size_t why_size);

#ifdef __cplusplus
}
#endif

#endif
