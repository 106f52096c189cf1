#include "text/guard.h"

bool guard_covers(const struct guard *g, size_t start, size_t end) {
    size_t low = 0, high = g->count;
    while (low < high) { /* the first range that ends behind start */
        size_t middle = low + (high - low) / 2;
        if (g->words[middle].end > start)
            high = middle;
        else
            low = middle + 1;
    }
    return low < g->count && g->words[low].start < end;
}

bool guard_bars(const struct guard *g, int id) {
    for (size_t i = 0; i < g->barred_count; i++) {
        if (g->barred[i] == id) return true;
    }
    return false;
}
