#include "text/ids.h"

#include <stdlib.h>
#include <string.h>

void ids_add(struct ids *to, const int *ids, size_t count) {
    if (!count || to->failed) return;
    if (count > to->room - to->count) {
        size_t room = to->count + count > 2 * to->room ? to->count + count : 2 * to->room;
        int *grown = realloc(to->list, room * sizeof *grown);
        to->failed = !grown;
        if (!grown) return;
        to->list = grown;
        to->room = room;
    }
    memcpy(to->list + to->count, ids, count * sizeof *ids);
    to->count += count;
}
