/* The tensors of one .safetensors file, in place, and the index of a set of such files.
 * https://huggingface.co/docs/safetensors
 *
 * The file is mapped once. It begins with the length of its header in 8 bytes, the header in JSON
 * follows, then the data of all tensors without a gap. Some writers align the data, MLX does not.
 * The format has no checksums. */
#ifndef NIBBLE_STORE_SAFETENSORS_H
#define NIBBLE_STORE_SAFETENSORS_H

#include "base/dtype.h"
#include "base/error.h"
#include "base/span.h"
#include "store/npy.h"

struct tensor {
    char *name;
    enum dtype dtype;
    int dims;
    uint64_t shape[NPY_MAX_DIMS];
    struct span bytes; /* in the mapping, at any alignment */
};

struct safetensors {
    char *path;
    struct span file;       /* the mapping */
    struct tensor *tensors; /* sorted by name */
    size_t count;
};

/* Refuses, by name, what the format's own library refuses: a header over 100 MB or longer than the
 * file, or that is not UTF-8 or JSON of the right kind; offsets outside the file, tensors that
 * overlap, bytes that no tensor has; a size that contradicts shape and type. And besides: types
 * that are no enum dtype, more than NPY_MAX_DIMS dimensions, keys twice, names that are empty,
 * beyond 1024 bytes or with control characters, a header of over a million values. On failure
 * nothing is left open. */
bool safetensors_open(struct safetensors *st, const char *path, struct error *e);
void safetensors_close(struct safetensors *st); /* all zero is fine */

/* model.safetensors.index.json: which shard holds which tensor. */
struct safetensors_index {
    char *path;
    struct safetensors_place {
        const char *tensor, *shard; /* names, the shard's without a folder */
    } * places;                     /* sorted by shard; at least one */
    size_t count;
    struct cJSON *json; /* what the names lie in */
};

/* Refuses, by name: what is not JSON of the right kind, shards that are not named like a
 * .safetensors file in the same folder. */
bool safetensors_index_open(struct safetensors_index *index, const char *path, struct error *e);
void safetensors_index_close(struct safetensors_index *index); /* all zero is fine */

/* shards: the opened files, in the order in which the places first name them. Refuses a tensor that
 * is not where the index puts it. A shard may hold more than the index says. */
bool safetensors_index_check(const struct safetensors_index *index,
                             const struct safetensors *shards, struct error *e);

#endif
