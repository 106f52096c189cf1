#include "text/json.h"

#include <math.h>
#include <string.h>

/* The largest in use take 35 MB and have 2 million values. */
const struct json_limits json_sizes = {.bytes = 128 << 20, .values = 8 << 20};

const cJSON *json_find(const cJSON *o, const char *name) {
    const cJSON *found = cJSON_IsObject(o) ? cJSON_GetObjectItemCaseSensitive(o, name) : NULL;
    return found && !cJSON_IsNull(found) ? found : NULL;
}

const char *json_text(const cJSON *o, const char *name) {
    return cJSON_GetStringValue(json_find(o, name));
}

const char *json_type(const cJSON *o) {
    const char *type = json_text(o, "type");
    return type ? type : "";
}

bool json_flag(const struct json *in, const cJSON *o, const char *name, bool *value) {
    const cJSON *flag = json_find(o, name);
    if (flag && !cJSON_IsBool(flag))
        return fail(in->e, STATUS_FORMAT, "%s: %s of the %s must be true or false", in->where, name,
                    in->part);
    if (flag) *value = cJSON_IsTrue(flag);
    return true;
}

bool json_integer(const struct json *in, const cJSON *o, const char *name, int high, int *value) {
    const cJSON *number = json_find(o, name);
    if (!number) return true;
    double v = number->valuedouble;
    if (!cJSON_IsNumber(number) || !(v >= 0 && v <= high) || v != floor(v))
        return fail(in->e, STATUS_FORMAT, "%s: %s of the %s must be a whole number from 0 to %d",
                    in->where, name, in->part, high);
    *value = (int)v;
    return true;
}

static bool is_listed(const char *names, const char *name) {
    size_t size = strlen(name);
    for (const char *at = names; *at; at += strspn(at, " ")) {
        size_t length = strcspn(at, " ");
        if (length == size && memcmp(at, name, size) == 0) return true;
        at += length;
    }
    return false;
}

static bool asks_for_nothing(const cJSON *value) {
    const char *text = cJSON_GetStringValue(value);
    return cJSON_IsNull(value) || cJSON_IsFalse(value) || (text && !*text);
}

bool json_only(const struct json *in, const cJSON *o, const char *names) {
    const cJSON *member;
    cJSON_ArrayForEach(member, o) {
        if (member->string && is_listed(names, member->string)) continue;
        if (asks_for_nothing(member)) continue;
        return json_refuse(in, member->string ? member->string : "without a name");
    }
    return true;
}

bool json_refuse(const struct json *in, const char *what) {
    return fail(in->e, STATUS_MODEL,
                "%s asks for the %s %s, which nibble does not do; use a tokenizer.model, if the "
                "model has one, without this file beside it",
                in->where, in->part, *what ? what : "of no type");
}

bool json_wrong(const struct json *in, const char *why) {
    return fail(in->e, STATUS_FORMAT, "%s: the %s cannot be used: %s; fetch it again", in->where,
                in->part, why);
}

bool json_no_memory(const struct json *in) {
    return fail(in->e, STATUS_MEMORY, "not enough memory for the tokenizer in %s", in->where);
}
