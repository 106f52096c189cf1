/* Reading a tokenizer's JSON: every refusal names the file and the part of it. */
#ifndef NIBBLE_TEXT_JSON_H
#define NIBBLE_TEXT_JSON_H

#include "base/error.h"
#include "base/json.h"

/* Where messages belong. */
struct json {
    const char *where; /* the file */
    const char *part;  /* of it, such as "normalizer" */
    struct error *e;
};

/* Of tokenizers, lists of added tokens and chat templates. */
extern const struct json_limits json_sizes;

/* A member of an object by its exact name; NULL if it is absent, null, or o is no object. */
const cJSON *json_find(const cJSON *o, const char *name);

/* The string that is a member; NULL if absent or no string. */
const char *json_text(const cJSON *o, const char *name);

/* The "type" of a component, "" if it has none. */
const char *json_type(const cJSON *o);

/* Each fails if a member is there and of another kind. Absent, *value stays. */
bool json_flag(const struct json *in, const cJSON *o, const char *name, bool *value);
bool json_integer(const struct json *in, const cJSON *o, const char *name, int high, int *value);

/* Refuses a member that names, a list with spaces, does not hold: it would ask for something that
 * is not done. Members that are null or say no ask for nothing. */
bool json_only(const struct json *in, const cJSON *o, const char *names);

/* Fails: "FILE asks for the PART WHAT, which nibble does not do". */
bool json_refuse(const struct json *in, const char *what);

/* Fails: "FILE: PART is not as it should be: WHY". */
bool json_wrong(const struct json *in, const char *why);
bool json_no_memory(const struct json *in);

#endif
