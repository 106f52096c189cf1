#include "num/format.h"

size_t format_row_bytes(const struct mat *m) {
    size_t bytes = 0;
    for (int p = 0; p < MAT_PLANES; p++) bytes += m->stride[p];
    return bytes;
}

size_t format_bytes(const struct mat *m) {
    return m->rows * format_row_bytes(m);
}
