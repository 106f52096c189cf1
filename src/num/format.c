#include "num/format.h"

size_t format_row_bytes(const struct mat *m) {
    size_t bytes = 0;
    for (int p = 0; p < MAT_PLANES; p++) bytes += m->row_bytes[p];
    return bytes;
}

size_t format_bytes(const struct mat *m) {
    return m->rows * format_row_bytes(m);
}

struct mat format_rows(const struct mat *m, size_t row, size_t *count) {
    struct mat rows = *m;
    size_t block = m->block ? row / m->block : 0, at = row - block * m->block;
    size_t end = m->block && m->rows - row > m->block - at ? row + m->block - at : m->rows;
    for (int p = 0; p < MAT_PLANES; p++) {
        if (m->plane[p]) rows.plane[p] += block * m->block_stride[p] + at * m->stride[p];
    }
    rows.rows = *count = end - row;
    rows.block = 0;
    return rows;
}

struct mat format_part(const struct mat *m, size_t first, size_t rows, size_t block, size_t apart) {
    struct mat part = *m;
    part.rows = rows;
    part.block = block > 1 ? block : 0;
    for (int p = 0; p < MAT_PLANES; p++) {
        if (m->plane[p]) part.plane[p] += first * m->stride[p];
        part.block_stride[p] = block > 1 ? apart * m->stride[p] : 0;
        if (block == 1) part.stride[p] = apart * m->stride[p];
    }
    return part;
}

void format_decode(const struct mat *m, size_t row, size_t count, float *out) {
    for (size_t end = row + count, n; row < end; row += n, out += n * m->cols) {
        struct mat rows = format_rows(m, row, &n);
        n = n < end - row ? n : end - row;
        if (m->format->decode_rows) {
            m->format->decode_rows(&rows, 0, n, out);
            continue;
        }
        for (size_t i = 0; i < n; i++) m->format->decode(&rows, i, out + i * m->cols);
    }
}
