#include "base/json.h"

#include <stdbool.h>
#include <string.h>

#include "base/utf8.h"

const char *json_look_through(struct span text, size_t most) {
    const char *s = (const char *)text.data;
    size_t values = 0;
    bool escaped = false;
    for (size_t at = 0, length; at < text.size; at += length) {
        length = text.data[at] < 0x80 ? 1 : utf8_sequence(s + at, text.size - at);
        if (!length) return "it is not UTF-8";
        if (!s[at]) return "it holds a NUL";
        if (escaped && s[at] == 'u' && text.size - at > 5 && memcmp(s + at, "u0000", 5) == 0)
            return "a string of it holds a NUL";
        escaped = s[at] == '\\' && !escaped;
        values += s[at] == ',' || s[at] == '[' || s[at] == '{';
    }
    return values > most ? "it has more values than any in use" : NULL;
}
