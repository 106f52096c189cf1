#include "base/json.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"

/* What is wrong with a text that cJSON would take; NULL if nothing is. */
static const char *check_text(struct span text, size_t most) {
    const char *s = (const char *)text.data;
    size_t values = 0;
    bool in_string = false;
    for (size_t at = 0, length; at < text.size; at += length) {
        unsigned char c = text.data[at];
        length = c < 0x80 ? 1 : utf8_sequence(s + at, text.size - at);
        if (!length) return "it is not UTF-8";
        if (c < ' ' && (in_string || !memchr("\t\n\r", c, 3))) return "it has control characters";
        if (!in_string) {
            in_string = c == '"';
            values += c == ',' || c == '[' || c == '{';
        } else if (c == '"') {
            in_string = false;
        } else if (c == '\\') {
            length = 2; /* an escaped quote does not end the string */
            if (text.size - at >= 6 && memcmp(s + at, "\\u0000", 6) == 0)
                return "it has a NUL in a string";
        }
    }
    return values > most ? "it has more values than any in use" : NULL;
}

/* How many members the largest object in node has. */
static size_t most_members(const cJSON *node) {
    size_t members = 0, most = 0;
    const cJSON *child;
    cJSON_ArrayForEach(child, node) {
        size_t inner = most_members(child);
        most = inner > most ? inner : most;
        members += cJSON_IsObject(node) ? 1 : 0;
    }
    return members > most ? members : most;
}

static int compare_keys(const void *a, const void *b) {
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* A key that an object in node has twice, or NULL. keys has room for those of the largest. */
static const char *find_twice(const cJSON *node, const char **keys) {
    const char *twice = NULL;
    const cJSON *member;
    size_t count = 0;
    cJSON_ArrayForEach(member, node) {
        if (cJSON_IsObject(node)) keys[count++] = member->string;
    }
    if (count > 1) qsort(keys, count, sizeof *keys, compare_keys);
    for (size_t i = 1; i < count && !twice; i++) {
        if (strcmp(keys[i - 1], keys[i]) == 0) twice = keys[i];
    }
    cJSON_ArrayForEach(member, node) {
        if (!twice) twice = find_twice(member, keys);
    }
    return twice;
}

static bool refuse(const char *where, const char *why, struct error *e) {
    return fail(e, STATUS_FORMAT, "%s is no JSON that can be used: %s; fetch it again", where, why);
}

static bool check_keys(const cJSON *root, const char *where, struct error *e) {
    size_t most = most_members(root);
    if (most < 2) return true;
    const char **keys = calloc(most, sizeof *keys);
    if (!keys) return fail(e, STATUS_MEMORY, "not enough memory for %s", where);
    const char *twice = find_twice(root, keys);
    free(keys);
    if (!twice) return true;
    return fail(e, STATUS_FORMAT, "%s has '%.80s' twice; remove the one that does not count", where,
                twice);
}

cJSON *json_parse(struct span text, struct json_limits limits, const char *where, struct error *e) {
    char large[64];
    const char *begin = (const char *)text.data, *end = NULL, *why = large;
    snprintf(large, sizeof large, "it is larger than %zu MiB", limits.bytes >> 20);
    if (text.size <= limits.bytes) why = check_text(text, limits.values);
    cJSON *root = why ? NULL : cJSON_ParseWithLengthOpts(begin, text.size, &end, false);
    while (root && end < begin + text.size && strchr(" \t\r\n", *end)) end++;
    if (!why && (!root || end < begin + text.size)) why = "it is not valid JSON";
    if (!why && !cJSON_IsObject(root)) why = "it is not a JSON object";
    if (why ? refuse(where, why, e) : check_keys(root, where, e)) return root;
    cJSON_Delete(root);
    return NULL;
}
