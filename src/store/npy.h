/* The header of one NPY array (numpy's format, versions 1 and 2).
 * https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html */
#ifndef NIBBLE_STORE_NPY_H
#define NIBBLE_STORE_NPY_H

#include <stdint.h>

#include "base/dtype.h"
#include "base/error.h"
#include "base/span.h"

enum { NPY_MAX_DIMS = 8, NPY_MAX_HEADER = 320 };

struct npy {
    enum dtype dtype;
    int dims;
    uint64_t shape[NPY_MAX_DIMS];
    size_t header_bytes; /* the data follows */
    size_t data_bytes;   /* product of shape times element size: exactly what follows the header */
};

/* Reads the header at the start of file; name is for messages ("weights.npz: layers.0.wq.weight").
 * Refuses, by name: other element types, big endian, a Fortran-ordered array with more than one
 * dimension above 1, more than NPY_MAX_DIMS dimensions, data shorter or longer than its shape. Safe
 * on any bytes. */
bool npy_parse(struct span file, const char *name, struct npy *out, struct error *e);

/* Writes a version 1 header whose data begins at a multiple of 64 bytes when the header itself
 * begins at file offset `offset`; returns its length, at most NPY_MAX_HEADER. dims is 0 to
 * NPY_MAX_DIMS. The text keeps the column layout that MLX's reader expects. */
size_t npy_header(unsigned char out[NPY_MAX_HEADER], enum dtype dtype, int dims,
                  const uint64_t *shape, uint64_t offset);

/* The bytes of the elements of such an array; false if the product (zeros left out, so that any
 * part of it is safe to form as well) passes what memory can address. */
bool npy_bytes(enum dtype dtype, int dims, const uint64_t *shape, size_t *bytes);

#endif
