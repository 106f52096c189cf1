/* The members of one .npz archive, in place.
 *
 * The file is mapped once. libzip does the zip parsing, on a source of ours that reads from the
 * mapping and remembers where the first read after opening a member began: that is where a stored
 * member's bytes lie. Compressed members are inflated into memory of exactly their declared size;
 * their checksum is verified then. That of stored members is not, for it would read the file:
 * npz_check() does. */
#ifndef NIBBLE_STORE_NPZ_H
#define NIBBLE_STORE_NPZ_H

#include <stdint.h>

#include "base/error.h"
#include "base/span.h"

struct npz_member {
    char *name;        /* as in the archive, ".npy" included; a NUL in it has become a space */
    struct span bytes; /* the member's bytes, headers of npy included; data is never NULL */
    bool mapped;       /* lies in the mapping; otherwise inflated and owned */
    bool has_crc;
    uint32_t crc; /* CRC-32 of bytes, as the directory states it */
};

struct npz {
    char *path;
    struct span file;           /* the mapping */
    struct npz_member *members; /* sorted by name */
    size_t count;               /* 0: an archive without members */
};

/* Refuses, by name: what is not a zip, encrypted members, methods other than stored and deflated,
 * sizes or positions outside the file, members that share bytes, a name twice, a declared inflated
 * size that is over 1000 times the compressed size or does not fit in memory. On failure nothing is
 * left open. */
bool npz_open(struct npz *npz, const char *path, struct error *e);
void npz_close(struct npz *npz); /* all zero is fine */

/* The same in a short time, however large compressed members are: of each only the front is
 * inflated, 64 kB at least and 16 MB in all; the rest of it reads as zeros. */
bool npz_glance(struct npz *npz, const char *path, struct error *e);

/* Reading everything once, to compare it with its checksums. */
struct npz_check {
    bool (*go_on)(void *arg, size_t bytes); /* told what has been read so far; false: stop */
    void *arg;
    size_t members, bytes; /* read so far */
    size_t damaged;        /* of them */
};

/* Adds an archive to c; a damaged member becomes an item of e's list, which the first one begins.
 * False if it was stopped. */
bool npz_check(const struct npz *npz, struct npz_check *c, struct error *e);

const char *npz_library(void); /* the version of libzip */

#endif
