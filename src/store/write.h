/* Writes an .npz that numpy, MLX and nibble open: stored members, no compression, every
 * array's data at a multiple of 64 bytes in the file, the same bytes for the same arrays.
 *
 * Members are declared first with a function that produces their bytes; write_commit then writes
 * them in that order under a temporary name beside path and renames it. Nothing appears
 * under path before that, and nothing stays behind on failure. A link at path stays a link: what it
 * leads to is replaced. */
#ifndef NIBBLE_STORE_WRITE_H
#define NIBBLE_STORE_WRITE_H

#include <stdint.h>

#include "base/dtype.h"
#include "base/error.h"
#include "base/span.h"

/* Gives all bytes of the member, borrowed until the next produce call of any member. Members are
 * produced once each, in order. Returning false (with *e filled) stops the writing. */
typedef bool write_produce(void *arg, struct span *bytes, struct error *e);

struct writer;

/* Refuses a path that cannot be replaced: a folder, a FIFO, a device. */
bool write_open(struct writer **w, const char *path, struct error *e);

/* name without ".npy", in UTF-8; arg must live until write_commit. Refuses a name twice. */
bool write_array(struct writer *w, const char *name, enum dtype dtype, int dims,
                 const uint64_t *shape, write_produce *produce, void *arg, struct error *e);

/* Writes everything and closes w, also on failure. Refuses to write no arrays at all. */
bool write_commit(struct writer *w, struct error *e);

/* For files that replace older ones of their kind: whether path is free or empty, or an archive
 * that begins with that array, by its first bytes. Anything else, named by mistake perhaps, is
 * refused with STATUS_ARGUMENT; a file that cannot be read with STATUS_FILE. */
bool write_may_replace(const char *path, const char *first_array, struct error *e);

/* Closes w without writing; NULL is fine. */
void write_discard(struct writer *w);

/* Writes one array as a file of its own (.npy), under a temporary name renamed at the end. What is
 * there already and is no regular file (a FIFO, /dev/stdout, a link) is written into instead. */
bool write_npy(const char *path, enum dtype dtype, int dims, const uint64_t *shape,
               struct span bytes, struct error *e);

/* The same for a file of any bytes. */
bool write_file(const char *path, struct span bytes, struct error *e);

#endif
