#include "store/safetensors.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/map.h"
#include "store/foreign.h"
#include "store/names.h"

/* The limit on the header is the reference library's. A tensor has about 9 values: 100,000 tensors
 * are allowed. */
enum { PREFIX = 8, MAX_JSON = 100000000, MAX_NAME = 1024 };

static const struct json_limits limits = {.bytes = MAX_JSON, .values = 1 << 20};

static const char *const type_names[DTYPE_COUNT] = {
    [DTYPE_F32] = "F32", [DTYPE_F16] = "F16", [DTYPE_BF16] = "BF16", [DTYPE_F64] = "F64",
    [DTYPE_U8] = "U8",   [DTYPE_I8] = "I8",   [DTYPE_BOOL] = "BOOL", [DTYPE_U16] = "U16",
    [DTYPE_I16] = "I16", [DTYPE_U32] = "U32", [DTYPE_I32] = "I32",   [DTYPE_U64] = "U64",
    [DTYPE_I64] = "I64",
};

/* --- numbers ---------------------------------------------------------------------------------- */

/* A whole number that a double holds exactly, as cJSON's numbers are. */
static bool read_whole(const cJSON *node, uint64_t *value) {
    double v = cJSON_IsNumber(node) ? node->valuedouble : -1;
    if (!(v >= 0 && v < 9007199254740992.0)) return false;
    *value = (uint64_t)v;
    return (double)*value == v;
}

/* --- one tensor --------------------------------------------------------------------------------
 */

/* Functions that find an entry of the header wrong return what is wrong, to follow its name. */
struct entry {
    const cJSON *dtype, *shape, *offsets;
};

static const char *find_values(const cJSON *node, struct entry *entry) {
    const cJSON *child;
    if (!cJSON_IsObject(node)) return "is not described by a JSON object";
    cJSON_ArrayForEach(child, node) {
        const cJSON **value = strcmp(child->string, "dtype") == 0          ? &entry->dtype
                              : strcmp(child->string, "shape") == 0        ? &entry->shape
                              : strcmp(child->string, "data_offsets") == 0 ? &entry->offsets
                                                                           : NULL;
        if (value) *value = child;
    }
    if (!entry->dtype || !cJSON_IsString(entry->dtype)) return "has no text as its dtype";
    if (!entry->shape || !cJSON_IsArray(entry->shape)) return "has no list as its shape";
    if (!entry->offsets || !cJSON_IsArray(entry->offsets)) return "has no list as its data_offsets";
    return NULL;
}

static const char *read_shape(const cJSON *shape, struct tensor *t) {
    const cJSON *size;
    cJSON_ArrayForEach(size, shape) {
        if (t->dims == NPY_MAX_DIMS) return "has more than 8 dimensions";
        if (!read_whole(size, &t->shape[t->dims++]))
            return "has a dimension that is not a whole number below 2^53";
    }
    return NULL;
}

static const char *read_offsets(const cJSON *offsets, uint64_t at[2]) {
    if (cJSON_GetArraySize(offsets) != 2 || !read_whole(offsets->child, &at[0]) ||
        !read_whole(offsets->child->next, &at[1]))
        return "has data_offsets that are not two whole numbers below 2^53";
    return at[0] <= at[1] ? NULL : "ends before it begins";
}

static bool check_name(const char *name, const char *path, struct error *e) {
    size_t length = strlen(name);
    const char *wrong = length == 0 ? "empty" : length > MAX_NAME ? "over 1024 bytes long" : NULL;
    for (const char *p = name; *p; p++) {
        if ((unsigned char)*p < ' ' || *p == 0x7f) wrong = "not printable";
    }
    if (!wrong) return true;
    return fail(e, STATUS_FORMAT,
                "%s has a tensor whose name is %s ('%.60s'); the file is damaged or no model, "
                "download it again",
                path, wrong, name);
}

static bool find_type(const char *type, const char *label, enum dtype *dtype, struct error *e) {
    for (int t = 0; t < DTYPE_COUNT; t++) {
        *dtype = (enum dtype)t;
        if (strcmp(type, type_names[t]) == 0) return true;
    }
    return fail(e, STATUS_FORMAT,
                "%s has elements of type '%.60s', which nibble does not read; take a version of "
                "the model in BF16, F16 or F32",
                label, type);
}

/* Where its bytes lie, among those of all tensors. */
static bool find_bytes(struct tensor *t, struct span data, const uint64_t at[2], const char *label,
                       struct error *e) {
    size_t needed;
    if (at[1] > data.size) {
        return fail(e, STATUS_FORMAT,
                    "%s ends %" PRIu64 " bytes behind the header, where the file has %zu; it is "
                    "cut short or damaged, download it again",
                    label, at[1], data.size);
    }
    if (!npy_bytes(t->dtype, t->dims, t->shape, &needed)) {
        return fail(e, STATUS_FORMAT,
                    "%s has a shape with more elements than memory can hold; the file is damaged, "
                    "download it again",
                    label);
    }
    t->bytes = (struct span){data.data + at[0], (size_t)(at[1] - at[0])};
    if (t->bytes.size == needed) return true;
    return fail(e, STATUS_FORMAT,
                "%s holds %zu bytes of data where its shape and type need %zu; the file is "
                "damaged, download it again",
                label, t->bytes.size, needed);
}

/* What t holds after a failure is freed by safetensors_close. */
static bool read_tensor(struct tensor *t, const cJSON *node, const char *path, struct span data,
                        struct error *e) {
    char label[2048];
    struct entry entry = {0};
    uint64_t at[2];
    if (!check_name(node->string, path, e)) return false;
    snprintf(label, sizeof label, "%s: %s", path, node->string);
    t->name = strdup(node->string);
    if (!t->name) return fail(e, STATUS_MEMORY, "%s: no memory for its name", label);
    const char *wrong = find_values(node, &entry);
    if (!wrong) wrong = read_shape(entry.shape, t);
    if (!wrong) wrong = read_offsets(entry.offsets, at);
    if (wrong) {
        return fail(e, STATUS_FORMAT, "%s %s; the file is damaged, download it again", label,
                    wrong);
    }
    return find_type(entry.dtype->valuestring, label, &t->dtype, e) &&
           find_bytes(t, data, at, label, e);
}

/* --- the file ----------------------------------------------------------------------------------
 */

/* Cuts the file into the text of its header and the data. */
static bool cut(const struct safetensors *st, struct span *text, struct span *data,
                struct error *e) {
    struct span file = st->file;
    uint64_t size = 0;
    for (size_t i = 0; i < PREFIX && i < file.size; i++) size |= (uint64_t)file.data[i] << 8 * i;
    if (file.size >= PREFIX && size <= file.size - PREFIX && size <= MAX_JSON) {
        *text = (struct span){file.data + PREFIX, (size_t)size};
        *data = (struct span){text->data + text->size, file.size - PREFIX - text->size};
        return true;
    }
    const char *words = foreign_words(file);
    if (words) return fail(e, STATUS_FORMAT, "%s %s", st->path, words);
    if (file.size >= PREFIX && size > MAX_JSON) {
        return fail(e, STATUS_FORMAT,
                    "%s is not a safetensors file, or damaged: its header would have %" PRIu64
                    " bytes; download it again",
                    st->path, size);
    }
    return fail(e, STATUS_FORMAT,
                "%s is cut short: it has %zu bytes, fewer than its header; download it again",
                st->path, file.size);
}

static bool check_metadata(const cJSON *node, const char *path, struct error *e) {
    const cJSON *child;
    bool good = cJSON_IsObject(node);
    cJSON_ArrayForEach(child, node) good &= cJSON_IsString(child);
    if (good || cJSON_IsNull(node)) return true;
    return fail(e, STATUS_FORMAT,
                "%s has a __metadata__ that is not an object of texts; the file is damaged, "
                "download it again",
                path);
}

static bool read_tensors(struct safetensors *st, const cJSON *header, struct span data,
                         struct error *e) {
    const cJSON *node;
    st->tensors = calloc((size_t)cJSON_GetArraySize(header) + 1, sizeof *st->tensors);
    if (!st->tensors) return fail(e, STATUS_MEMORY, "%s: no memory for its table", st->path);
    cJSON_ArrayForEach(node, header) {
        bool ok = strcmp(node->string, "__metadata__") == 0
                      ? check_metadata(node, st->path, e)
                      : read_tensor(&st->tensors[st->count++], node, st->path, data, e);
        if (!ok) return false;
    }
    return true;
}

static int by_place(const void *a, const void *b) {
    const struct span *x = &((const struct tensor *)a)->bytes;
    const struct span *y = &((const struct tensor *)b)->bytes;
    if (x->data != y->data) return x->data < y->data ? -1 : 1;
    return (x->size > y->size) - (x->size < y->size);
}

/* Every byte of the data belongs to exactly one tensor. */
static bool check_layout(struct safetensors *st, struct span data, struct error *e) {
    const unsigned char *at = data.data;
    qsort(st->tensors, st->count, sizeof *st->tensors, by_place);
    for (size_t i = 0; i < st->count; i++) {
        const struct tensor *t = &st->tensors[i];
        if (t->bytes.data != at) {
            return fail(e, STATUS_FORMAT, "%s: %s %s; the file is damaged, download it again",
                        st->path, t->name,
                        t->bytes.data < at ? "shares bytes with another tensor"
                                           : "follows bytes that no tensor has");
        }
        at += t->bytes.size;
    }
    if (at == data.data + data.size) return true;
    return fail(e, STATUS_FORMAT,
                "%s has %zu bytes behind its last tensor; the file is damaged, download it again",
                st->path, (size_t)(data.data + data.size - at));
}

static int by_name(const void *a, const void *b) {
    return strcmp(((const struct tensor *)a)->name, ((const struct tensor *)b)->name);
}

bool safetensors_open(struct safetensors *st, const char *path, struct error *e) {
    struct span text = {0}, data = {0};
    char what[2048];
    cJSON *header = NULL;
    *st = (struct safetensors){0};
    TRY(map_open(path, &st->file, e));
    st->path = strdup(path);
    TRY(st->path || fail(e, STATUS_MEMORY, "%s: no memory for its name", path));
    TRY(cut(st, &text, &data, e));
    snprintf(what, sizeof what, "%s: the header", path);
    TRY((header = json_parse(text, limits, what, e)) != NULL);
    TRY(read_tensors(st, header, data, e));
    TRY(check_layout(st, data, e));
    qsort(st->tensors, st->count, sizeof *st->tensors, by_name);
    cJSON_Delete(header);
    return true;
fail:
    cJSON_Delete(header);
    safetensors_close(st);
    return false;
}

void safetensors_close(struct safetensors *st) {
    for (size_t i = 0; i < st->count; i++) free(st->tensors[i].name);
    free(st->tensors);
    free(st->path);
    map_close(&st->file);
    *st = (struct safetensors){0};
}

/* --- the index ---------------------------------------------------------------------------------
 */

/* Letters that need no thought, and no way into another folder. */
static bool is_plain(const char *name) {
    static const char letters[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.";
    return name[0] != '.' && name[strspn(name, letters)] == 0 && names_end(name, ".safetensors");
}

static int by_shard(const void *a, const void *b) {
    const struct safetensors_place *x = a, *y = b;
    int order = strcmp(x->shard, y->shard);
    return order ? order : strcmp(x->tensor, y->tensor);
}

static bool read_places(struct safetensors_index *index, struct error *e) {
    const cJSON *map = cJSON_GetObjectItemCaseSensitive(index->json, "weight_map"), *node;
    size_t count = cJSON_IsObject(map) ? (size_t)cJSON_GetArraySize(map) : 0;
    if (count == 0) {
        return fail(e, STATUS_FORMAT,
                    "%s has no weight_map that says which file holds which tensor; download it "
                    "again",
                    index->path);
    }
    index->places = calloc(count, sizeof *index->places);
    if (!index->places) return fail(e, STATUS_MEMORY, "%s: no memory for its table", index->path);
    cJSON_ArrayForEach(node, map) {
        const char *shard = cJSON_IsString(node) ? node->valuestring : "";
        if (!is_plain(shard)) {
            return fail(e, STATUS_FORMAT,
                        "%s puts %.1024s into '%.255s', which is not the name of a .safetensors "
                        "file in the same folder; download it again",
                        index->path, node->string, shard);
        }
        index->places[index->count++] = (struct safetensors_place){node->string, shard};
    }
    qsort(index->places, index->count, sizeof *index->places, by_shard);
    return true;
}

bool safetensors_index_open(struct safetensors_index *index, const char *path, struct error *e) {
    struct span text = {0};
    *index = (struct safetensors_index){0};
    TRY(map_open(path, &text, e));
    index->path = strdup(path);
    TRY(index->path || fail(e, STATUS_MEMORY, "%s: no memory for its name", path));
    TRY((index->json = json_parse(text, limits, path, e)) != NULL);
    TRY(read_places(index, e));
    map_close(&text);
    return true;
fail:
    map_close(&text);
    safetensors_index_close(index);
    return false;
}

void safetensors_index_close(struct safetensors_index *index) {
    free(index->places);
    free(index->path);
    cJSON_Delete(index->json);
    *index = (struct safetensors_index){0};
}

bool safetensors_index_check(const struct safetensors_index *index,
                             const struct safetensors *shards, struct error *e) {
    for (size_t i = 0; i < index->count; i++) {
        const struct safetensors_place *place = &index->places[i];
        const struct tensor key = {.name = (char *)place->tensor};
        if (i > 0 && strcmp(place->shard, place[-1].shard) != 0) shards++;
        if (shards->count && bsearch(&key, shards->tensors, shards->count, sizeof key, by_name))
            continue;
        return fail(e, STATUS_MODEL,
                    "%s puts %.1024s into %s, which does not hold it; download both again",
                    index->path, place->tensor, place->shard);
    }
    return true;
}
