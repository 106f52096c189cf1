/* What cJSON would let pass of a text that came from anyone. */
#ifndef NIBBLE_BASE_JSON_H
#define NIBBLE_BASE_JSON_H

#include <stddef.h>

#include "base/span.h"

/* NULL if text is UTF-8 without a NUL, written out or as \u0000 in a string, which would end that
 * string early, and has no more values than `most`, each of which takes some 80 bytes of memory
 * once it is parsed. Else what is wrong ("it is not UTF-8"). */
const char *json_look_through(struct span text, size_t most);

#endif
