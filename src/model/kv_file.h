/* The KV cache of a text in a file: an .npz of arrays, which docs/model-files.md describes. Keys
 * and values depend on more than the text, and what they depend on is written beside them. */
#ifndef NIBBLE_MODEL_KV_FILE_H
#define NIBBLE_MODEL_KV_FILE_H

#include "model/run.h"

enum { KV_FILE_FIELDS = 7, KV_FILE_FIELD_BYTES = 64 };

/* What a file must have been written with to be of use: build, weights, config and so on. */
struct kv_file_identity {
    char fields[KV_FILE_FIELDS][KV_FILE_FIELD_BYTES];
};

/* build: which program computes. Of weights without checksums every byte is read. */
void kv_file_identify(struct kv_file_identity *id, const struct run *r, const char *build);

/* Writes the first n tokens, n >= 1, with their keys and values: under a temporary name that is
 * changed at the end. Refuses more tokens than there are, or than one table of rope turned, and to
 * replace what is no such file (STATUS_ARGUMENT). */
bool kv_file_write(const struct run *r, size_t n, const struct kv_file_identity *id,
                   const char *path, struct error *e);

/* Fills an emptied run with what the file has in common with ids [n], from the first on, as far as
 * the context goes; *count is how many tokens that is. Everything is checked before anything is
 * used: a file that cannot be used, or has nothing in common, is refused with the reason; one that
 * could not be replaced either with STATUS_ARGUMENT. */
bool kv_file_read(struct run *r, const int *ids, size_t n, const struct kv_file_identity *id,
                  const char *path, size_t *count, struct error *e);

#endif
