/* What tokenizers ask of Unicode, by utf8proc. Texts are valid UTF-8 here but for unicode_clean. */
#ifndef NIBBLE_TEXT_UNICODE_H
#define NIBBLE_TEXT_UNICODE_H

#include <stdint.h>

#include "text/bytes.h"

/* Adds text with U+FFFD for every byte that is no part of valid UTF-8. */
void unicode_clean(struct bytes *out, const char *text, size_t size);

/* The character at the start of text (size > 0), and its length in bytes. */
size_t unicode_next(const char *text, size_t size, int32_t *c);
/* The character that ends with text, and its length. */
size_t unicode_last(const char *text, size_t size, int32_t *c);

void unicode_add(struct bytes *out, int32_t c);

typedef bool unicode_test(int32_t c);
bool unicode_is_space(int32_t c);  /* White_Space */
bool unicode_is_number(int32_t c); /* N */
bool unicode_is_punctuation(
    int32_t c);                  /* P, and all of ASCII that is printed and no letter, digit */
bool unicode_is_mark(int32_t c); /* M */
bool unicode_is_word(int32_t c); /* what \w is to regular expressions of Rust */

enum unicode_form { UNICODE_NFC, UNICODE_NFD, UNICODE_NFKC, UNICODE_NFKD };

/* Adds text in one of the normalization forms. False when memory ran out. */
bool unicode_normalize(struct bytes *out, const char *text, size_t size, enum unicode_form form);

void unicode_lower(struct bytes *out, const char *text, size_t size);

/* GPT-2's alphabet: every byte of text as one printable character, and back. unicode_from_alphabet
 * adds bytes; false, and nothing added, if text holds a character that stands for no byte. */
void unicode_to_alphabet(struct bytes *out, const char *text, size_t size);
bool unicode_from_alphabet(struct bytes *out, const char *text, size_t size);

const char *unicode_library(void); /* the version of utf8proc */

#endif
