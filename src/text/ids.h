/* A list of token ids that grows; failed like struct bytes. */
#ifndef NIBBLE_TEXT_IDS_H
#define NIBBLE_TEXT_IDS_H

#include <stdbool.h>
#include <stddef.h>

struct ids {
    int *list;
    size_t count, room;
    bool failed; /* memory ran out */
};

void ids_add(struct ids *to, const int *ids, size_t count);

#endif
