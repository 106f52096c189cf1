/* Which of a folder's files are its weights, by their names.
 *
 * The first that there is of: weights.npz, or shards weights.N.npz; model.safetensors; the shards
 * that model.safetensors.index.json names; weights.safetensors, or shards weights.N.safetensors.
 * Numbered shards begin at 0, with or without leading zeros. */
#ifndef NIBBLE_STORE_FOLDER_H
#define NIBBLE_STORE_FOLDER_H

#include "base/error.h"
#include "store/safetensors.h"

struct folder {
    char **paths; /* of the weights, none opened yet; shards in order */
    size_t count;
    bool safetensors;               /* what kind all of them are; otherwise .npz */
    struct safetensors_index index; /* whose shards they are; no places without one */
    char *unread; /* by name, a weight file that is not among them: a .safetensors rather than an
                     .npz, else the first; NULL if there is none */
};

/* An index counts only where there is some .safetensors file. Refuses shards that are missing, and
 * that stand beside a whole file or under two names. */
bool folder_open(struct folder *folder, const char *path, struct error *e);
void folder_close(struct folder *folder); /* all zero is fine */

/* A shard, by its name: ...-00001-of-00002.safetensors */
bool folder_is_shard(const char *name);

#endif
