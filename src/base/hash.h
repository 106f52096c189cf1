/* A hash of bytes, fast enough for gigabytes: to tell things apart, not against someone who tries
 * to make two alike. */
#ifndef NIBBLE_BASE_HASH_H
#define NIBBLE_BASE_HASH_H

#include <stdint.h>

#include "base/span.h"

/* Depends on seed, so that hashes may be chained. The same on every machine. */
uint64_t hash_bytes(uint64_t seed, struct span bytes);

#endif
