/* A model's files as one table of named, typed, borrowed arrays and a few whole files.
 *
 * path is a single .npz file (config and tokenizer inside, as u1 arrays "config.json",
 * "tokenizer.model" or as plain members of those names), a single .safetensors file or a folder;
 * of the last two config.json or params.json and the tokenizer lie beside the weights. Which files
 * of a folder those are, folder.h says. What the arrays mean is not known here. */
#ifndef NIBBLE_STORE_STORE_H
#define NIBBLE_STORE_STORE_H

#include <stdint.h>

#include "base/error.h"
#include "base/span.h"
#include "store/npy.h"

struct array {
    const char *name; /* without ".npy" */
    const char *file; /* that holds it, for messages */
    enum dtype dtype;
    int dims;
    uint64_t shape[NPY_MAX_DIMS];
    struct span bytes; /* at any alignment: load bytes, never cast */
    bool mapped;       /* false: inflated into private memory */
    uint64_t hash;     /* over its name, size and checksum; 0 if no checksum is stated */
};

struct store {
    char *path;
    struct array *arrays; /* sorted by name, names unique over all shards */
    size_t count;
    size_t mapped_bytes;  /* of arrays that lie in a mapping */
    size_t private_bytes; /* of arrays that were inflated */
    uint64_t hash; /* over those of the arrays, whatever files they are in; 0 if one has none */
    char *unread;  /* a weight file in the folder that is not read, by name, or NULL */
    struct store_files *files;
};

/* Opens path. Without arrays it opens with count 0 as long as one of the known files is there
 * (tokenizing needs no weights). Missing shards, names twice, and everything npz, npy and
 * safetensors refuse is refused here, with the file named. Members that are neither arrays nor
 * known files are left. */
bool store_open(struct store *store, const char *path, struct error *e);

/* The same in a short time: compressed arrays are there by name, type and shape, but of what they
 * hold perhaps only the front. */
bool store_glance(struct store *store, const char *path, struct error *e);
void store_close(struct store *store); /* all zero is fine */

/* For who needs weights: fails, and says what to do, if there are no arrays. */
bool store_require_arrays(const struct store *store, struct error *e);

const struct array *store_find(const struct store *store, const char *name); /* NULL if absent */

/* The bytes of a whole file: one of config.json, params.json, generation_config.json,
 * tokenizer.model, tokenizer.json, added_tokens.json, tokenizer_config.json, chat_template.jinja,
 * chat_segments.json, reference.json. data is NULL if absent. */
struct span store_file(const struct store *store, const char *name);

/* A name for messages that says where an entry lies: "folder/config.json" or
 * "model.npz (config.json)" for a whole file, "model.npz" or "folder/weights.00.npz" for an array;
 * the store's path for what is absent. */
void store_where(const struct store *store, const char *name, char *out, size_t size);

/* Whether an address lies in a file that is mapped. May be called from a signal handler. */
bool store_holds(const struct store *store, const void *address);

/* What store_check read. */
struct store_checked {
    size_t members, bytes; /* that have a checksum; 0: the format states none */
};

/* Reads all members of all archives and compares them with their checksums; those that differ are
 * refused all at once. go_on, which may be NULL, is told how many bytes of how many have been read;
 * false stops. Safetensors have no checksums. */
bool store_check(const struct store *store, bool (*go_on)(void *arg, size_t done, size_t total),
                 void *arg, struct store_checked *out, struct error *e);

#endif
