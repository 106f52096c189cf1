/* JSON that came from anyone. */
#ifndef NIBBLE_BASE_JSON_H
#define NIBBLE_BASE_JSON_H

#include <cjson/cJSON.h>
#include <stddef.h>

#include "base/error.h"
#include "base/span.h"

/* How large a text may be; a value takes 70 to 100 bytes of memory once it is parsed. */
struct json_limits {
    size_t bytes, values;
};

/* Parses a whole file, one object. Refused is besides what cJSON refuses what it would let pass:
 * bytes that are not UTF-8, control characters, a NUL in a string, which would end it early, values
 * that would take gigabytes, and a key that an object has twice, by which readers differ: to some
 * the first counts, to others the last. NULL on failure, of which the message begins with where
 * ("model/config.json"); cJSON_Delete is the caller's. */
cJSON *json_parse(struct span text, struct json_limits limits, const char *where, struct error *e);

#endif
