#include "store/store.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/map.h"
#include "store/folder.h"
#include "store/names.h"
#include "store/npz.h"
#include "store/safetensors.h"

static const char *const known_names[] = {
    "config.json",        "params.json",        "generation_config.json", "tokenizer.model",
    "tokenizer.json",     "added_tokens.json",  "tokenizer_config.json",  "chat_template.jinja",
    "chat_template.json", "chat_segments.json", "reference.json",
};
enum { KNOWN = sizeof known_names / sizeof *known_names };

struct known_file {
    struct span bytes; /* data is NULL if absent */
    char *where;
    bool own_mapping; /* a file of its own, not in an archive */
};

typedef bool open_archive(struct npz *npz, const char *path, struct error *e);

struct store_files {
    open_archive *open;
    struct known_file known[KNOWN];
    struct npz *archives;
    size_t archive_count;
    struct safetensors *safetensors;
    size_t safetensors_count;
};

static int known_index(const char *name) {
    for (int i = 0; i < KNOWN; i++) {
        if (strcmp(name, known_names[i]) == 0) return i;
    }
    return -1;
}

static bool fail_memory(const struct store *store, struct error *e) {
    return fail(e, STATUS_MEMORY, "%s: no memory for its table of arrays", store->path);
}

/* ---- opening ---- */

static bool open_archives(struct store *store, char *const *paths, size_t count, struct error *e) {
    struct store_files *files = store->files;
    files->archives = calloc(count, sizeof *files->archives);
    if (!files->archives) return fail_memory(store, e);
    for (; files->archive_count < count; files->archive_count++) {
        if (!files->open(&files->archives[files->archive_count], paths[files->archive_count], e)) {
            return false;
        }
    }
    return true;
}

static bool open_safetensors(struct store *store, char *const *paths, size_t count,
                             struct error *e) {
    struct store_files *files = store->files;
    files->safetensors = calloc(count, sizeof *files->safetensors);
    if (!files->safetensors) return fail_memory(store, e);
    for (; files->safetensors_count < count; files->safetensors_count++) {
        if (!safetensors_open(&files->safetensors[files->safetensors_count],
                              paths[files->safetensors_count], e)) {
            return false;
        }
    }
    return true;
}

static bool open_beside(struct store *store, const char *folder, struct error *e) {
    for (int i = 0; i < KNOWN; i++) {
        struct stat st;
        struct known_file *known = &store->files->known[i];
        char *path = names_join(folder, known_names[i]);
        if (!path) return fail_memory(store, e);
        /* lstat: a link into nowhere is not absent, map_open shall complain. */
        if (lstat(path, &st) != 0 && errno == ENOENT) {
            free(path);
            continue;
        }
        known->where = path;
        known->own_mapping = true;
        if (!map_open(path, &known->bytes, e)) return false;
    }
    return true;
}

static bool open_listed(struct store *store, const struct folder *folder, struct error *e) {
    if (folder->count == 0) return true;
    if (!folder->safetensors) return open_archives(store, folder->paths, folder->count, e);
    return open_safetensors(store, folder->paths, folder->count, e) &&
           safetensors_index_check(&folder->index, store->files->safetensors, e);
}

static bool open_folder(struct store *store, struct error *e) {
    struct folder folder;
    if (!folder_open(&folder, store->path, e)) return false;
    bool ok = open_beside(store, store->path, e) && open_listed(store, &folder, e);
    store->unread = folder.unread;
    folder.unread = NULL;
    folder_close(&folder);
    return ok;
}

/* A .safetensors file: config and tokenizer lie beside it. */
static bool open_single(struct store *store, struct error *e) {
    const char *slash = strrchr(store->path, '/'), *name = slash ? slash + 1 : store->path;
    if (folder_is_shard(name)) {
        return fail(e, STATUS_MODEL, "%s is one of several shards; name the folder it lies in",
                    store->path);
    }
    char *folder = strndup(store->path, (size_t)(name - store->path));
    if (!folder) return fail_memory(store, e);
    bool ok = open_beside(store, folder, e) && open_safetensors(store, &store->path, 1, e);
    free(folder);
    return ok;
}

/* ---- the table ---- */

/* A known file inside an archive. */
static bool add_known(struct store *store, int index, struct span bytes, const struct npz *npz,
                      struct error *e) {
    struct known_file *known = &store->files->known[index];
    if (known->bytes.data) {
        return fail(e, STATUS_MODEL, "%s holds %s, which is in %s as well; remove one of the two",
                    npz->path, known_names[index], known->where);
    }
    if (asprintf(&known->where, "%s (%s)", npz->path, known_names[index]) < 0) {
        known->where = NULL;
        return fail_memory(store, e);
    }
    known->bytes = bytes;
    return true;
}

/* FNV-1a of 64 bits: Fowler, Noll and Vo, "The FNV Non-Cryptographic Hash Algorithm",
 * draft-eastlake-fnv. */
static const uint64_t fnv_basis = 14695981039346656037u;

static uint64_t fnv_byte(uint64_t hash, unsigned char byte) {
    return (hash ^ byte) * 1099511628211u;
}

static uint64_t fnv_text(uint64_t hash, const char *text) {
    do hash = fnv_byte(hash, (unsigned char)*text);
    while (*text++);
    return hash;
}

static uint64_t fnv_number(uint64_t hash, uint64_t number) {
    for (int i = 0; i < 8; i++) hash = fnv_byte(hash, (unsigned char)(number >> 8 * i));
    return hash;
}

static uint64_t hash_member(const struct npz_member *m) {
    if (!m->has_crc) return 0;
    return fnv_number(fnv_number(fnv_text(fnv_basis, m->name), m->bytes.size), m->crc);
}

static uint64_t hash_arrays(const struct store *store) {
    uint64_t hash = fnv_basis;
    for (size_t i = 0; i < store->count; i++) {
        if (!store->arrays[i].hash) return 0;
        hash = fnv_number(hash, store->arrays[i].hash);
    }
    return store->count ? hash : 0;
}

static bool add_array(struct store *store, const struct npz *npz, const struct npz_member *m,
                      struct error *e) {
    char label[2048];
    struct npy npy;
    struct array *a = &store->arrays[store->count];
    size_t length = strlen(m->name) - strlen(".npy");
    snprintf(label, sizeof label, "%s: %.*s", npz->path, (int)length, m->name);
    if (!npy_parse(m->bytes, label, &npy, e)) return false;
    struct span data = {m->bytes.data + npy.header_bytes, npy.data_bytes};

    char *name = strndup(m->name, length);
    if (!name) return fail_memory(store, e);
    int known = known_index(name);
    if (known >= 0) {
        free(name);
        if (npy.dtype == DTYPE_U8 && npy.dims == 1) return add_known(store, known, data, npz, e);
        return fail(e, STATUS_FORMAT,
                    "%s must be a file's bytes as a one-dimensional array of u1; save it with "
                    "numpy.fromfile(..., 'u1')",
                    label);
    }
    *a = (struct array){name, npz->path, npy.dtype, npy.dims, {0}, data, m->mapped, hash_member(m)};
    memcpy(a->shape, npy.shape, sizeof a->shape);
    *(m->mapped ? &store->mapped_bytes : &store->private_bytes) += npy.data_bytes;
    store->count++;
    return true;
}

static bool add_member(struct store *store, const struct npz *npz, const struct npz_member *m,
                       struct error *e) {
    int known = known_index(m->name);
    if (known >= 0) return add_known(store, known, m->bytes, npz, e);
    return !names_end(m->name, ".npy") || add_array(store, npz, m, e);
}

static bool add_tensor(struct store *store, const struct safetensors *st, const struct tensor *t,
                       struct error *e) {
    struct array *a = &store->arrays[store->count];
    *a = (struct array){.name = strdup(t->name), .file = st->path, .mapped = true};
    if (!a->name) return fail_memory(store, e);
    a->dtype = t->dtype;
    a->dims = t->dims;
    a->bytes = t->bytes;
    memcpy(a->shape, t->shape, sizeof a->shape);
    store->mapped_bytes += t->bytes.size;
    store->count++;
    return true;
}

static bool add_arrays(struct store *store, struct error *e) {
    const struct store_files *files = store->files;
    for (size_t i = 0; i < files->archive_count; i++) {
        const struct npz *npz = &files->archives[i];
        for (size_t k = 0; k < npz->count; k++) {
            if (!add_member(store, npz, &npz->members[k], e)) return false;
        }
    }
    for (size_t i = 0; i < files->safetensors_count; i++) {
        const struct safetensors *st = &files->safetensors[i];
        for (size_t k = 0; k < st->count; k++) {
            if (!add_tensor(store, st, &st->tensors[k], e)) return false;
        }
    }
    return true;
}

static int by_name(const void *a, const void *b) {
    return strcmp(((const struct array *)a)->name, ((const struct array *)b)->name);
}

static bool make_table(struct store *store, struct error *e) {
    const struct store_files *files = store->files;
    size_t total = 0;
    for (size_t i = 0; i < files->archive_count; i++) total += files->archives[i].count;
    for (size_t i = 0; i < files->safetensors_count; i++) total += files->safetensors[i].count;
    if (total == 0) return true;
    store->arrays = calloc(total, sizeof *store->arrays);
    if (!store->arrays) return fail_memory(store, e);
    if (!add_arrays(store, e)) return false;
    qsort(store->arrays, store->count, sizeof *store->arrays, by_name);
    for (size_t i = 1; i < store->count; i++) {
        const struct array *a = &store->arrays[i - 1];
        if (strcmp(a[0].name, a[1].name) != 0) continue;
        return fail(e, STATUS_MODEL, "%s is in %s and in %s; the shards are not of one model",
                    a->name, a[0].file, a[1].file);
    }
    store->hash = hash_arrays(store);
    return true;
}

bool store_require_arrays(const struct store *store, struct error *e) {
    const char *unread = store->unread;
    if (store->count) return true;
    if (unread && folder_is_shard(unread)) {
        return fail(e, STATUS_MODEL,
                    "%s holds %s, but no model.safetensors.index.json that names all shards; "
                    "download that as well",
                    store->path, unread);
    }
    if (unread) {
        return fail(e, STATUS_MODEL,
                    "%s holds %s, but no model.safetensors and no weights.npz; name the file "
                    "itself",
                    store->path, unread);
    }
    return fail(e, STATUS_MODEL,
                "%s holds no arrays; a model is a folder with model.safetensors or weights.npz, or "
                "a single .npz file",
                store->path);
}

static bool require_something(const struct store *store, struct error *e) {
    for (int i = 0; i < KNOWN; i++) {
        if (store->files->known[i].bytes.data) return true;
    }
    return store_require_arrays(store, e);
}

static bool open_path(struct store *store, const char *path, open_archive *opener,
                      struct error *e) {
    struct stat st;
    *store = (struct store){0};
    if (stat(path, &st) != 0) {
        return fail(e, STATUS_FILE, "%s cannot be opened: %s", path, strerror(errno));
    }
    store->path = strdup(path);
    store->files = calloc(1, sizeof *store->files);
    if (!store->path || !store->files) {
        fail(e, STATUS_MEMORY, "%s: no memory to open it", path);
        goto fail;
    }
    store->files->open = opener;
    if (S_ISDIR(st.st_mode))
        TRY(open_folder(store, e));
    else if (names_end(path, ".safetensors"))
        TRY(open_single(store, e));
    else
        TRY(open_archives(store, &store->path, 1, e));
    TRY(make_table(store, e));
    TRY(require_something(store, e));
    return true;
fail:
    store_close(store);
    return false;
}

bool store_open(struct store *store, const char *path, struct error *e) {
    return open_path(store, path, npz_open, e);
}

bool store_glance(struct store *store, const char *path, struct error *e) {
    return open_path(store, path, npz_glance, e);
}

void store_close(struct store *store) {
    struct store_files *files = store->files;
    for (size_t i = 0; i < store->count; i++) free((char *)store->arrays[i].name);
    for (int i = 0; files && i < KNOWN; i++) {
        if (files->known[i].own_mapping) map_close(&files->known[i].bytes);
        free(files->known[i].where);
    }
    for (size_t i = 0; files && i < files->archive_count; i++) npz_close(&files->archives[i]);
    for (size_t i = 0; files && i < files->safetensors_count; i++) {
        safetensors_close(&files->safetensors[i]);
    }
    if (files) free(files->archives);
    if (files) free(files->safetensors);
    free(files);
    free(store->arrays);
    free(store->unread);
    free(store->path);
    *store = (struct store){0};
}

const struct array *store_find(const struct store *store, const char *name) {
    struct array key = {.name = name};
    if (store->count == 0) return NULL;
    return bsearch(&key, store->arrays, store->count, sizeof key, by_name);
}

struct span store_file(const struct store *store, const char *name) {
    int known = known_index(name);
    if (known < 0) return (struct span){0};
    return store->files->known[known].bytes;
}

void store_where(const struct store *store, const char *name, char *out, size_t size) {
    int known = known_index(name);
    const char *where = known < 0 ? NULL : store->files->known[known].where;
    const struct array *a = where ? NULL : store_find(store, name);
    snprintf(out, size, "%s", where ? where : a ? a->file : store->path);
}

static bool holds(struct span file, const void *address) {
    uintptr_t at = (uintptr_t)address, begin = (uintptr_t)file.data;
    return at >= begin && at - begin < file.size;
}

bool store_holds(const struct store *store, const void *address) {
    const struct store_files *files = store->files;
    bool found = false;
    for (size_t i = 0; i < files->archive_count; i++)
        found |= holds(files->archives[i].file, address);
    for (size_t i = 0; i < files->safetensors_count; i++)
        found |= holds(files->safetensors[i].file, address);
    for (int i = 0; i < KNOWN; i++) {
        if (files->known[i].own_mapping) found |= holds(files->known[i].bytes, address);
    }
    return found;
}

/* ---- checksums ---- */

struct check {
    bool (*go_on)(void *arg, size_t done, size_t total);
    void *arg;
    size_t total;
};

static bool go_on(void *arg, size_t bytes) {
    const struct check *c = arg;
    return !c->go_on || c->go_on(c->arg, bytes, c->total);
}

bool store_check(const struct store *store, bool (*progress)(void *arg, size_t done, size_t total),
                 void *arg, struct store_checked *out, struct error *e) {
    const struct store_files *files = store->files;
    struct check check = {progress, arg, 0};
    struct npz_check c = {.go_on = go_on, .arg = &check};
    bool ok = true;
    for (size_t i = 0; i < files->archive_count; i++) check.total += files->archives[i].file.size;
    for (size_t i = 0; ok && i < files->archive_count; i++)
        ok = npz_check(&files->archives[i], &c, e);
    *out = (struct store_checked){c.members, c.bytes};
    if (ok && c.damaged) error_items_end(e);
    return ok && !c.damaged;
}
