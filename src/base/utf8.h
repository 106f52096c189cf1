/* The little of UTF-8 that streaming needs. */
#ifndef NIBBLE_BASE_UTF8_H
#define NIBBLE_BASE_UTF8_H

#include <stddef.h>

/* The length of text[0..size) without a final sequence that more bytes could complete. Bytes that
 * can never be part of a valid sequence count as complete, so nothing is held back for ever. */
size_t utf8_complete(const char *text, size_t size);

/* The length of the valid sequence at the start of text[0..size), 1 to 4; 0 if there is none. */
size_t utf8_sequence(const char *text, size_t size);

#endif
