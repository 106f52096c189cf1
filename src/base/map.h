/* A file mapped read-only, whole. The only file that calls mmap. */
#ifndef NIBBLE_BASE_MAP_H
#define NIBBLE_BASE_MAP_H

#include "base/error.h"
#include "base/span.h"

/* Maps path. Refuses what is not a regular file, and an empty one. Close with map_close. */
bool map_open(const char *path, struct span *bytes, struct error *e);
void map_close(struct span *bytes);

#endif
