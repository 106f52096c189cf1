#include "model/config.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"

/* The largest in use take 1 MB. */
static const struct json_limits limits = {.bytes = 16 << 20, .values = 1 << 20};

bool config_open(struct config *c, struct span text, const char *where, struct error *e) {
    *c = (struct config){0};
    snprintf(c->where, sizeof c->where, "%s", where);
    c->root = json_parse(text, limits, where, e);
    return c->root != NULL;
}

void config_close(struct config *c) {
    cJSON_Delete(c->root);
    c->root = NULL;
}

struct config config_inner(const struct config *c, const char *name) {
    struct config inner = *c;
    cJSON *object = cJSON_GetObjectItemCaseSensitive(c->root, name);
    if (cJSON_IsObject(object)) inner.root = object;
    return inner;
}

/* Follows one dotted path of `length` characters. */
static const cJSON *follow(const cJSON *node, const char *path, size_t length) {
    while (node && length) {
        char key[64];
        size_t part = 0;
        while (part < length && path[part] != '.') part++;
        if (part >= sizeof key) return NULL;
        memcpy(key, path, part);
        key[part] = 0;
        bool number = *key && key[strspn(key, "0123456789")] == 0 && part < 6;
        node = cJSON_IsObject(node)            ? cJSON_GetObjectItemCaseSensitive(node, key)
               : cJSON_IsArray(node) && number ? cJSON_GetArrayItem(node, atoi(key))
                                               : NULL;
        size_t used = part + (part < length);
        path += used;
        length -= used;
    }
    return node;
}

const cJSON *config_find(const struct config *c, const char *names, const char **name) {
    while (*names) {
        size_t length = strcspn(names, " ");
        const cJSON *node = follow(c->root, names, length);
        if (node && !cJSON_IsNull(node)) {
            if (name) *name = names;
            return node;
        }
        names += length + strspn(names + length, " ");
    }
    return NULL;
}

int config_width(const char *names) {
    return (int)strcspn(names, " ");
}

bool config_number(const struct config *c, const char *names, double low, double high, bool whole,
                   double *value, struct error *e) {
    const char *name;
    const cJSON *node = config_find(c, names, &name);
    if (!node) return true;
    double v = node->valuedouble;
    if (!cJSON_IsNumber(node)) {
        return fail(e, STATUS_MODEL, "%s: %.*s is not a number", c->where, config_width(name),
                    name);
    }
    if (whole && v != floor(v)) {
        return fail(e, STATUS_MODEL, "%s: %.*s is %.10g, but must be a whole number", c->where,
                    config_width(name), name, v);
    }
    if (!(v >= low && v <= high)) {
        return fail(e, STATUS_MODEL, "%s: %.*s is %.10g, but must be from %.10g to %.10g", c->where,
                    config_width(name), name, v, low, high);
    }
    *value = v;
    return true;
}

bool config_flag(const struct config *c, const char *names, int *value, struct error *e) {
    const char *name;
    const cJSON *node = config_find(c, names, &name);
    if (!node) return true;
    if (!cJSON_IsBool(node)) {
        return fail(e, STATUS_MODEL, "%s: %.*s is neither true nor false", c->where,
                    config_width(name), name);
    }
    *value = cJSON_IsTrue(node);
    return true;
}

bool config_choice(const struct config *c, const char *names, const char *const *words, int *value,
                   struct error *e) {
    const char *name;
    const cJSON *node = config_find(c, names, &name);
    if (!node) return true;
    const char *text = cJSON_IsString(node) ? node->valuestring : "(not a string)";
    char list[256] = "";
    for (int i = 0; words[i]; i++) {
        if (strcmp(text, words[i]) == 0) {
            *value = i;
            return true;
        }
        size_t used = strlen(list);
        snprintf(list + used, sizeof list - used, "%s%s", i ? ", " : "", words[i]);
    }
    return fail(e, STATUS_MODEL, "%s: %.*s '%.64s' is not supported; nibble runs %s", c->where,
                config_width(name), name, text, list);
}

const char *config_text(const struct config *c, const char *names) {
    const cJSON *node = config_find(c, names, NULL);
    return cJSON_IsString(node) ? node->valuestring : NULL;
}

static bool one_id(const struct config *c, const cJSON *node, const char *name, int *id,
                   struct error *e) {
    double v = node->valuedouble;
    if (!cJSON_IsNumber(node) || v != floor(v) || !(v >= 0 && v <= 1 << 30)) {
        return fail(e, STATUS_MODEL, "%s: %.*s holds something that is no token id", c->where,
                    config_width(name), name);
    }
    *id = (int)v;
    return true;
}

bool config_ids(const struct config *c, const char *names, int *ids, int cap, int *count,
                struct error *e) {
    const char *name;
    const cJSON *node = config_find(c, names, &name);
    if (!node) return true;
    const cJSON *item = cJSON_IsArray(node) ? node->child : node;
    bool list = cJSON_IsArray(node);
    for (int n = 0; item; item = list ? item->next : NULL) {
        if (n == cap)
            return fail(e, STATUS_MODEL, "%s: %.*s lists over %d ids", c->where, config_width(name),
                        name, cap);
        if (!one_id(c, item, name, &ids[n], e)) return false;
        *count = ++n;
    }
    return true;
}

const char *config_library(void) {
    return cJSON_Version();
}
