#include "text/unicode.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "base/utf8.h"

void unicode_clean(struct bytes *out, const char *text, size_t size) {
    size_t from = 0, at = 0;
    while (at < size) {
        size_t length = (unsigned char)text[at] < 0x80 ? 1 : utf8_sequence(text + at, size - at);
        if (!length) {
            bytes_add(out, text + from, at - from);
            bytes_add(out, "\xef\xbf\xbd", 3);
            from = at + 1;
        }
        at += length ? length : 1;
    }
    bytes_add(out, text + from, size - from);
}

size_t unicode_next(const char *text, size_t size, int32_t *c) {
    utf8proc_int32_t found;
    utf8proc_ssize_t length = utf8proc_iterate((const utf8proc_uint8_t *)text,
                                               (utf8proc_ssize_t)(size < 4 ? size : 4), &found);
    *c = length > 0 ? found : 0xfffd;
    return length > 0 ? (size_t)length : 1;
}

size_t unicode_last(const char *text, size_t size, int32_t *c) {
    size_t length = 1;
    while (length < size && length < 4 && ((unsigned char)text[size - length] & 0xc0) == 0x80)
        length++;
    unicode_next(text + size - length, length, c);
    return length;
}

void unicode_add(struct bytes *out, int32_t c) {
    utf8proc_uint8_t text[4];
    bytes_add(out, (const char *)text, (size_t)utf8proc_encode_char(c, text));
}

/* --- Kinds of characters ---------------------------------------------------------------------- */

static bool is_ascii_letter(int32_t c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

bool unicode_is_space(int32_t c) {
    if (c < 0x80) return c == ' ' || (c >= '\t' && c <= '\r');
    utf8proc_category_t k = utf8proc_category(c);
    return c == 0x85 || k == UTF8PROC_CATEGORY_ZS || k == UTF8PROC_CATEGORY_ZL ||
           k == UTF8PROC_CATEGORY_ZP;
}

bool unicode_is_number(int32_t c) {
    if (c < 0x80) return c >= '0' && c <= '9';
    utf8proc_category_t k = utf8proc_category(c);
    return k >= UTF8PROC_CATEGORY_ND && k <= UTF8PROC_CATEGORY_NO;
}

bool unicode_is_punctuation(int32_t c) {
    if (c < 0x80) return c > ' ' && c < 0x7f && !is_ascii_letter(c) && !unicode_is_number(c);
    utf8proc_category_t k = utf8proc_category(c);
    return k >= UTF8PROC_CATEGORY_PC && k <= UTF8PROC_CATEGORY_PO;
}

bool unicode_is_mark(int32_t c) {
    if (c < 0x80) return false;
    utf8proc_category_t k = utf8proc_category(c);
    return k >= UTF8PROC_CATEGORY_MN && k <= UTF8PROC_CATEGORY_ME;
}

/* Alphabetic, taken as L, Nl and the circled letters; M, Nd, Pc, and the joiners. */
bool unicode_is_word(int32_t c) {
    if (c < 0x80) return is_ascii_letter(c) || unicode_is_number(c) || c == '_';
    utf8proc_category_t k = utf8proc_category(c);
    bool circled = (c >= 0x24b6 && c <= 0x24e9) || (c >= 0x1f130 && c <= 0x1f149) ||
                   (c >= 0x1f150 && c <= 0x1f169) || (c >= 0x1f170 && c <= 0x1f189);
    return (k >= UTF8PROC_CATEGORY_LU && k <= UTF8PROC_CATEGORY_LO) || unicode_is_mark(c) ||
           k == UTF8PROC_CATEGORY_ND || k == UTF8PROC_CATEGORY_NL || k == UTF8PROC_CATEGORY_PC ||
           circled || c == 0x200c || c == 0x200d;
}

/* --- Changing texts --------------------------------------------------------------------------- */

static bool is_ascii(const char *text, size_t size) {
    for (size_t i = 0; i < size; i++) {
        if ((unsigned char)text[i] >= 0x80) return false;
    }
    return true;
}

bool unicode_normalize(struct bytes *out, const char *text, size_t size, enum unicode_form form) {
    static const int options[] = {
        [UNICODE_NFC] = UTF8PROC_COMPOSE,
        [UNICODE_NFD] = UTF8PROC_DECOMPOSE,
        [UNICODE_NFKC] = UTF8PROC_COMPOSE | UTF8PROC_COMPAT,
        [UNICODE_NFKD] = UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT,
    };
    utf8proc_uint8_t *made = NULL;
    if (is_ascii(text, size)) {
        bytes_add(out, text, size);
        return !out->failed;
    }
    utf8proc_ssize_t length =
        utf8proc_map((const utf8proc_uint8_t *)text, (utf8proc_ssize_t)size, &made,
                     (utf8proc_option_t)(UTF8PROC_STABLE | options[form]));
    if (length >= 0) bytes_add(out, (const char *)made, (size_t)length);
    free(made);
    return length >= 0 && !out->failed;
}

void unicode_lower(struct bytes *out, const char *text, size_t size) {
    for (size_t at = 0; at < size;) {
        int32_t c;
        at += unicode_next(text + at, size - at, &c);
        unicode_add(out, c == 0x130 ? 'i' : utf8proc_tolower(c));
        if (c == 0x130) unicode_add(out, 0x307); /* the one letter that becomes two */
    }
}

/* --- GPT-2's alphabet ------------------------------------------------------------------------- */

/* Bytes that are printed in Latin-1 stand for themselves; the other 68, in order, are U+0100 and
 * what follows (bytes_to_unicode of GPT-2's encoder.py). */
static bool is_printed(int byte) {
    return (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xff && byte != 0xad);
}

static int32_t letter_of(int byte) {
    if (is_printed(byte)) return byte;
    if (byte <= 0x20) return 0x100 + byte;
    if (byte <= 0xa0) return 0x121 + byte - 0x7f;
    return 0x143; /* 0xad */
}

static int byte_of(int32_t letter) {
    if (letter < 0x100) return is_printed(letter) ? letter : -1;
    if (letter <= 0x120) return letter - 0x100;
    if (letter <= 0x142) return letter - 0x121 + 0x7f;
    return letter == 0x143 ? 0xad : -1;
}

void unicode_to_alphabet(struct bytes *out, const char *text, size_t size) {
    for (size_t i = 0; i < size; i++) {
        int32_t c = letter_of((unsigned char)text[i]);
        char two[2] = {(char)(0xc0 | c >> 6), (char)(0x80 | (c & 0x3f))}, one = (char)c;
        bytes_add(out, c < 0x80 ? &one : two, c < 0x80 ? 1 : 2);
    }
}

bool unicode_from_alphabet(struct bytes *out, const char *text, size_t size) {
    size_t before = out->size;
    for (size_t at = 0; at < size;) {
        int32_t c;
        at += unicode_next(text + at, size - at, &c);
        char byte = (char)byte_of(c);
        if (byte_of(c) < 0) {
            out->size = before;
            return false;
        }
        bytes_add(out, &byte, 1);
    }
    return true;
}

const char *unicode_library(void) {
    return utf8proc_version();
}
