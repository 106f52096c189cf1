#include "model/kv_file.h"

#include <cjson/cJSON.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "model/config.h"
#include "store/write.h"

/* --- what a cache depends on ------------------------------------------------------------------ */

/* FORMAT: another one whenever arrays, or what ops/cache.h keeps in them, change. */
enum { FORMAT = 1, NAME_BYTES = 64 };

static const struct {
    const char *name, *differs;
} fields[KV_FILE_FIELDS] = {
    {"format", "has another format"},
    {"build", "was written by another build of nibble"},
    {"weights", "was computed with other weights"},
    {"config", "was computed with another config"},
    {"tokenizer", "belongs to another tokenizer"},
    {"kv_type", "holds another type of KV cache"},
    {"level", "was computed at another SIMD level"},
};

static uint64_t hash_text(uint64_t h, const char *text) {
    return hash_bytes(h, (struct span){(const unsigned char *)text, strlen(text)});
}

static uint64_t hash_files(const struct store *store, const char *const *names) {
    uint64_t h = 0;
    for (; *names; names++) h = hash_bytes(h, store_file(store, *names));
    return h;
}

static uint64_t hash_weights(const struct store *store) {
    uint64_t h = store->hash;
    for (size_t i = 0; i < store->count && !store->hash; i++) {
        const struct array *a = &store->arrays[i];
        h = hash_text(hash_text(h, a->name), dtype_name(a->dtype));
        for (int k = 0; k < a->dims; k++) {
            h = hash_bytes(h, (struct span){(const unsigned char *)&a->shape[k], sizeof *a->shape});
        }
        h = hash_bytes(h, a->bytes);
    }
    return h;
}

static void set_hash(char *field, uint64_t h) {
    snprintf(field, KV_FILE_FIELD_BYTES, "%016llx", (unsigned long long)h);
}

void kv_file_identify(struct kv_file_identity *id, const struct run *r, const char *build) {
    static const char *const config[] = {"config.json", "params.json", NULL};
    static const char *const tokenizer[] = {"tokenizer.model", "tokenizer.json",
                                            "tokenizer_config.json", NULL};
    const struct store *store = &r->model->store;
    snprintf(id->fields[0], KV_FILE_FIELD_BYTES, "%d", FORMAT);
    snprintf(id->fields[1], KV_FILE_FIELD_BYTES, "%s", build);
    set_hash(id->fields[2], hash_weights(store));
    set_hash(id->fields[3], hash_files(store, config));
    set_hash(id->fields[4], hash_files(store, tokenizer));
    snprintf(id->fields[5], KV_FILE_FIELD_BYTES, "%s", kv_type_name(r->kv.layers[0].dtype));
    snprintf(id->fields[6], KV_FILE_FIELD_BYTES, "%s", r->backend.level);
}

static bool is_long_rope(const struct run *r, const struct rope *rope) {
    return rope == &r->model->ropes[ROTARY_LONG];
}

static char *describe(const struct run *r, const struct kv_file_identity *id) {
    cJSON *root = cJSON_CreateObject();
    for (int i = 0; i < KV_FILE_FIELDS; i++)
        cJSON_AddStringToObject(root, fields[i].name, id->fields[i]);
    cJSON_AddBoolToObject(root, "long_rope", is_long_rope(r, r->turned_by));
    char *text = cJSON_PrintUnformatted(root);
    cJSON_Delete(root);
    return text;
}

static bool check_identity(const struct config *c, const struct kv_file_identity *id,
                           struct error *e) {
    for (int i = 0; i < KV_FILE_FIELDS; i++) {
        const char *found = config_text(c, fields[i].name);
        if (found && strcmp(found, id->fields[i]) == 0) continue;
        return fail(e, STATUS_MODEL, "%s %s", c->where, fields[i].differs);
    }
    return true;
}

/* --- what lies in the file -------------------------------------------------------------------- */

/* What one layer keeps of n positions, head after head. */
struct plane {
    const char *name;
    enum dtype dtype;
    int dims;
    uint64_t shape[4];
    unsigned char *first; /* of the first head in memory */
    size_t stride;        /* from a head to the next in memory */
    size_t head_bytes;    /* of a head in the file */
};

enum { PLANES = 4 };

static struct plane scales_plane(const struct cache *c, const char *name, float *scales, size_t n) {
    return (struct plane){.name = name,
                          .dtype = DTYPE_F32,
                          .dims = 2,
                          .shape = {c->heads, n},
                          .first = (unsigned char *)scales,
                          .stride = cache_scale_at(c, 1, 0) * sizeof *scales,
                          .head_bytes = n * sizeof *scales};
}

/* Keys go into the file in the tiles that they lie in. Returns how many planes there are. */
static int planes_of(const struct cache *c, size_t n, struct plane *planes) {
    size_t bytes = dtype_bytes(c->dtype), tiles = n / CACHE_TILE + (n % CACHE_TILE != 0);
    planes[0] = (struct plane){.name = "keys",
                               .dtype = c->dtype,
                               .dims = 4,
                               .shape = {c->heads, tiles, c->key_dim, CACHE_TILE},
                               .first = cache_keys(c, 0, 0),
                               .stride = (size_t)(cache_keys(c, 1, 0) - cache_keys(c, 0, 0)),
                               .head_bytes = tiles * c->key_dim * CACHE_TILE * bytes};
    planes[1] = (struct plane){.name = "values",
                               .dtype = c->dtype,
                               .dims = 3,
                               .shape = {c->heads, n, c->value_dim},
                               .first = cache_values(c, 0, 0),
                               .stride = c->context * c->value_dim * bytes,
                               .head_bytes = n * c->value_dim * bytes};
    if (c->dtype != DTYPE_I8) return 2;
    planes[2] = scales_plane(c, "key_scales", c->k_scales, n);
    planes[3] = scales_plane(c, "value_scales", c->v_scales, n);
    return PLANES;
}

static void name_plane(char name[NAME_BYTES], size_t layer, const struct plane *p) {
    snprintf(name, NAME_BYTES, "layers.%zu.%s", layer, p->name);
}

/* --- writing ---------------------------------------------------------------------------------- */

struct writing {
    const struct run *run;
    size_t n;
    unsigned char *buffer; /* of the largest plane */
};

/* One array: bytes that are there, or a plane that is gathered. */
struct part {
    const struct writing *writing;
    struct span bytes;
    size_t layer;
    int plane;
};

/* What the last tile holds behind the last token is of other texts, or nothing. */
static void clear_end(const struct cache *c, unsigned char *keys, size_t head_bytes, size_t n) {
    size_t bytes = dtype_bytes(c->dtype), row = CACHE_TILE * bytes, used = n % CACHE_TILE * bytes;
    unsigned char *tile = keys + head_bytes - c->key_dim * row;
    for (size_t i = 0; i < c->key_dim && used; i++) memset(tile + i * row + used, 0, row - used);
}

static bool produce_bytes(void *arg, struct span *bytes, struct error *e) {
    const struct part *part = arg;
    (void)e;
    *bytes = part->bytes;
    return true;
}

static bool produce_plane(void *arg, struct span *bytes, struct error *e) {
    const struct part *part = arg;
    const struct writing *w = part->writing;
    const struct cache *c = &w->run->kv.layers[part->layer];
    struct plane planes[PLANES];
    (void)e;
    planes_of(c, w->n, planes);
    const struct plane *p = &planes[part->plane];
    for (size_t h = 0; h < c->heads; h++) {
        unsigned char *to = w->buffer + h * p->head_bytes;
        memcpy(to, p->first + h * p->stride, p->head_bytes);
        if (part->plane == 0) clear_end(c, to, p->head_bytes, w->n);
    }
    *bytes = (struct span){w->buffer, c->heads * p->head_bytes};
    return true;
}

static bool add_bytes(struct writer *w, struct part *part, const char *name, enum dtype dtype,
                      struct span bytes, struct error *e) {
    uint64_t shape = bytes.size / dtype_bytes(dtype);
    *part = (struct part){.bytes = bytes};
    return write_array(w, name, dtype, 1, &shape, produce_bytes, part, e);
}

static bool add_planes(struct writer *w, struct part *parts, const struct writing *writing,
                       struct error *e) {
    for (size_t i = 0; i < writing->run->model->spec.layers; i++) {
        struct plane planes[PLANES];
        int count = planes_of(&writing->run->kv.layers[i], writing->n, planes);
        for (int k = 0; k < count; k++, parts++) {
            const struct plane *p = &planes[k];
            char name[NAME_BYTES];
            name_plane(name, i, p);
            *parts = (struct part){.writing = writing, .layer = i, .plane = k};
            if (!write_array(w, name, p->dtype, p->dims, p->shape, produce_plane, parts, e))
                return false;
        }
    }
    return true;
}

static bool write_all(const struct writing *w, struct part *parts, const char *text,
                      const char *path, struct error *e) {
    struct writer *writer = NULL;
    struct span description = {(const unsigned char *)text, strlen(text)};
    struct span ids = {(const unsigned char *)w->run->ids, w->n * sizeof *w->run->ids};
    TRY(write_open(&writer, path, e));
    TRY(add_bytes(writer, &parts[0], "cache.json", DTYPE_U8, description, e));
    TRY(add_bytes(writer, &parts[1], "ids", DTYPE_I32, ids, e));
    TRY(add_planes(writer, parts + 2, w, e));
    return write_commit(writer, e);
fail:
    write_discard(writer);
    return false;
}

bool kv_file_write(const struct run *r, size_t n, const struct kv_file_identity *id,
                   const char *path, struct error *e) {
    const struct cache *c = &r->kv.layers[0];
    struct plane planes[PLANES];
    if (!write_may_replace(path, "cache.json", e)) return false;
    if (!n || n > r->turned)
        return fail(e, STATUS_ARGUMENT,
                    "%s: %zu tokens cannot be kept, where the context holds %zu", path, n,
                    r->turned);
    planes_of(c, n, planes);
    size_t most = c->heads * planes[planes[1].head_bytes > planes[0].head_bytes].head_bytes;
    struct writing w = {r, n, malloc(most)};
    struct part *parts = calloc(2 + PLANES * r->model->spec.layers, sizeof *parts);
    char *text = describe(r, id);
    bool ok = w.buffer && parts && text;
    if (ok)
        ok = write_all(&w, parts, text, path, e);
    else
        fail(e, STATUS_MEMORY, "%s: no memory to write it", path);
    cJSON_free(text);
    free(parts);
    free(w.buffer);
    return ok;
}

/* --- reading ---------------------------------------------------------------------------------- */

static bool is_array(const struct array *a, enum dtype dtype, int dims, const uint64_t *shape) {
    return a && a->dtype == dtype && a->dims == dims &&
           memcmp(a->shape, shape, (size_t)dims * sizeof *shape) == 0;
}

static bool check_planes(const struct run *r, const struct store *store, size_t n,
                         struct error *e) {
    for (size_t i = 0; i < r->model->spec.layers; i++) {
        struct plane planes[PLANES];
        int count = planes_of(&r->kv.layers[i], n, planes);
        for (int k = 0; k < count; k++) {
            const struct plane *p = &planes[k];
            char name[NAME_BYTES];
            name_plane(name, i, p);
            if (is_array(store_find(store, name), p->dtype, p->dims, p->shape)) continue;
            return fail(e, STATUS_FORMAT, "%s lacks %s as %zu tokens of this model have it",
                        store->path, name, n);
        }
    }
    return true;
}

/* Whether the archive's checksums are those of what it holds, all of it. */
static bool check_bytes(const struct store *store, struct error *e) {
    struct store_checked checked;
    if (!store_check(store, NULL, NULL, &checked, e)) return false;
    return checked.members >= store->count ||
           fail(e, STATUS_FORMAT, "%s has arrays without a checksum", store->path);
}

/* n: the length of the text that it is wanted for. */
static bool check_description(const struct run *r, const struct store *store, size_t n,
                              const struct kv_file_identity *id, struct error *e) {
    const struct array *text = store_find(store, "cache.json");
    struct config c;
    int is_long = 0;
    if (!text || text->dtype != DTYPE_U8 || text->dims != 1)
        return fail(e, STATUS_FORMAT, "%s is no KV cache of nibble's", store->path);
    if (!config_open(&c, text->bytes, store->path, e)) return false;
    bool ok = check_identity(&c, id, e) && config_flag(&c, "long_rope", &is_long, e);
    config_close(&c);
    if (!ok || is_long == is_long_rope(r, run_rope(r, n))) return ok;
    return fail(e, STATUS_MODEL, "%s is of a text so %s that another table of rope turned it",
                store->path, is_long ? "long" : "short");
}

/* The tokens of the file: how many, and how many of them are ids [n]'s first. */
static bool compare_ids(const struct store *store, const int *ids, size_t n, size_t *held,
                        size_t *common, struct error *e) {
    const struct array *a = store_find(store, "ids");
    if (!a || a->dtype != DTYPE_I32 || a->dims != 1)
        return fail(e, STATUS_FORMAT, "%s has no list of token ids", store->path);
    *held = a->bytes.size / sizeof *ids;
    *common = 0;
    for (int id; *common < n && *common < *held; ++*common) {
        memcpy(&id, a->bytes.data + *common * sizeof id, sizeof id);
        if (id != ids[*common]) break;
    }
    return *common || fail(e, STATUS_MODEL, "%s is of a text that begins otherwise", store->path);
}

/* The first n positions, of the `held` in the file. */
static void copy_planes(struct run *r, const struct store *store, size_t n, size_t held) {
    for (size_t i = 0; i < r->model->spec.layers; i++) {
        const struct cache *c = &r->kv.layers[i];
        struct plane planes[PLANES], whole[PLANES];
        int count = planes_of(c, n, planes);
        planes_of(c, held, whole);
        for (int k = 0; k < count; k++) {
            char name[NAME_BYTES];
            name_plane(name, i, &planes[k]);
            const unsigned char *from = store_find(store, name)->bytes.data;
            for (size_t h = 0; h < c->heads; h++) {
                memcpy(planes[k].first + h * planes[k].stride, from + h * whole[k].head_bytes,
                       planes[k].head_bytes);
            }
        }
    }
}

static bool restore(struct run *r, const struct store *store, const int *ids, size_t n,
                    const struct kv_file_identity *id, size_t *count, struct error *e) {
    size_t held = 0, common = 0;
    if (!check_description(r, store, n, id, e) || !compare_ids(store, ids, n, &held, &common, e) ||
        !check_planes(r, store, held, e) || !check_bytes(store, e)) {
        return false;
    }
    if (common > r->context) common = r->context;
    copy_planes(r, store, common, held);
    run_restore(r, ids, common, run_rope(r, n));
    *count = common;
    return true;
}

bool kv_file_read(struct run *r, const int *ids, size_t n, const struct kv_file_identity *id,
                  const char *path, size_t *count, struct error *e) {
    struct store store;
    run_rewind(r, 0);
    if (!write_may_replace(path, "cache.json", e) || !store_open(&store, path, e)) return false;
    bool ok = restore(r, &store, ids, n, id, count, e);
    store_close(&store);
    return ok;
}
