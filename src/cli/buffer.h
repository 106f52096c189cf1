/* Bytes that grow. Begins as zeros; free(b->bytes) when done. */
#ifndef NIBBLE_CLI_BUFFER_H
#define NIBBLE_CLI_BUFFER_H

#include <stdbool.h>
#include <stddef.h>

struct buffer {
    char *bytes; /* malloc'd, a NUL after them; NULL while there are none */
    size_t size, cap;
    bool failed; /* there was not enough memory: what was added since is missing */
};

void buffer_add(struct buffer *b, const void *bytes, size_t size);

#endif
