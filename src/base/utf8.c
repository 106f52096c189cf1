#include "base/utf8.h"

/* What may follow a lead byte (Unicode 15, table 3-7): the sequence's length and the range of its
 * second byte; later bytes are 80..BF. */
static size_t lead(unsigned char c, unsigned char *low, unsigned char *high) {
    *low = c == 0xe0 ? 0xa0 : c == 0xf0 ? 0x90 : 0x80;
    *high = c == 0xed ? 0x9f : c == 0xf4 ? 0x8f : 0xbf;
    if (c < 0x80) return 1;
    if (c >= 0xc2 && c <= 0xdf) return 2;
    if (c >= 0xe0 && c <= 0xef) return 3;
    if (c >= 0xf0 && c <= 0xf4) return 4;
    return 0;
}

/* How many bytes of text[0..size) agree with one sequence; *length is the whole sequence's. */
static size_t matched(const unsigned char *text, size_t size, size_t *length) {
    unsigned char low, high;
    *length = size ? lead(text[0], &low, &high) : 0;
    if (!*length) return 0;
    size_t i = 1;
    for (; i < *length && i < size; i++) {
        if (text[i] < (i == 1 ? low : 0x80) || text[i] > (i == 1 ? high : 0xbf)) break;
    }
    return i;
}

size_t utf8_sequence(const char *text, size_t size) {
    size_t length, n = matched((const unsigned char *)text, size, &length);
    return n == length ? n : 0;
}

size_t utf8_complete(const char *text, size_t size) {
    for (size_t back = 1; back <= 3 && back <= size; back++) {
        size_t length, n = matched((const unsigned char *)text + size - back, back, &length);
        if (n == back && n < length) return size - back;
    }
    return size;
}
