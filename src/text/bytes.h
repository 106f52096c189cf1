/* A text that grows. What memory ran out for stays failed, so that whoever builds one asks once. */
#ifndef NIBBLE_TEXT_BYTES_H
#define NIBBLE_TEXT_BYTES_H

#include <stdbool.h>
#include <stddef.h>

struct bytes {
    char *data;
    size_t size, room;
    bool failed; /* memory ran out: size is that of what fitted */
};

void bytes_add(struct bytes *b, const char *data, size_t size);
void bytes_clear(struct bytes *b); /* keeps the room; forgets a failure */
void bytes_free(struct bytes *b);
void bytes_swap(struct bytes *a, struct bytes *b);

#endif
