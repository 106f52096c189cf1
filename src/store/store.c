#include "store/store.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/map.h"
#include "store/npz.h"

static const char *const known_names[] = {
    "config.json",     "params.json",    "generation_config.json",
    "tokenizer.model", "tokenizer.json", "tokenizer_config.json",
};
enum { KNOWN = sizeof known_names / sizeof *known_names };

struct known_file {
    struct span bytes; /* data is NULL if absent */
    char *where;
    bool own_mapping; /* a file of its own, not in an archive */
};

struct store_files {
    struct known_file known[KNOWN];
    struct npz *archives;
    size_t archive_count;
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

static bool ends_with(const char *text, const char *tail) {
    size_t n = strlen(text), t = strlen(tail);
    return n >= t && strcmp(text + n - t, tail) == 0;
}

/* folder/name in memory of its own, NULL without any. */
static char *join(const char *folder, const char *name) {
    char *path = NULL;
    const char *slash = ends_with(folder, "/") ? "" : "/";
    return asprintf(&path, "%s%s%s", folder, slash, name) < 0 ? NULL : path;
}

/* ---- what a folder holds ---- */

struct shard {
    unsigned long number;
    char *name;
};

struct listing {
    struct shard *shards; /* weights.N.npz */
    size_t count;
    bool whole;   /* weights.npz */
    char *unread; /* the safetensors file first by name, else the .npz first by name; NULL */
};

/* weights.N.npz, N a decimal number of a few digits. */
static bool shard_number(const char *name, unsigned long *number) {
    size_t prefix = strlen("weights.");
    if (strncmp(name, "weights.", prefix) != 0) return false;
    size_t digits = strspn(name + prefix, "0123456789");
    if (digits < 1 || digits > 6 || strcmp(name + prefix + digits, ".npz") != 0) return false;
    *number = strtoul(name + prefix, NULL, 10);
    return true;
}

static bool prefer_unread(const char *name, const char *old) {
    bool a = ends_with(name, ".safetensors"), b = old && ends_with(old, ".safetensors");
    return !old || (a != b ? a : strcmp(name, old) < 0);
}

static bool list_name(struct listing *list, const char *name) {
    unsigned long number;
    if (strcmp(name, "weights.npz") == 0) {
        list->whole = true;
    } else if (shard_number(name, &number)) {
        struct shard *more = realloc(list->shards, (list->count + 1) * sizeof *more);
        if (!more) return false;
        list->shards = more;
        list->shards[list->count] = (struct shard){number, strdup(name)};
        return list->shards[list->count++].name != NULL;
    } else if (name[0] != '.' && (ends_with(name, ".safetensors") || ends_with(name, ".npz")) &&
               prefer_unread(name, list->unread)) {
        free(list->unread);
        list->unread = strdup(name);
        return list->unread != NULL;
    }
    return true;
}

static int by_number(const void *a, const void *b) {
    const struct shard *x = a, *y = b;
    if (x->number != y->number) return x->number < y->number ? -1 : 1;
    return strcmp(x->name, y->name);
}

static bool list_folder(const struct store *store, struct listing *list, struct error *e) {
    DIR *dir = opendir(store->path);
    if (!dir) {
        return fail(e, STATUS_FILE, "%s cannot be opened: %s", store->path, strerror(errno));
    }
    bool ok = true;
    for (struct dirent *d; ok && (d = readdir(dir)) != NULL;) ok = list_name(list, d->d_name);
    closedir(dir);
    if (list->count) qsort(list->shards, list->count, sizeof *list->shards, by_number);
    return ok || fail_memory(store, e);
}

static void listing_free(struct listing *list) {
    for (size_t i = 0; i < list->count; i++) free(list->shards[i].name);
    free(list->shards);
    free(list->unread);
}

/* Shards are numbered from 0 without holes; how many there should be is written nowhere. */
static bool check_shards(const struct store *store, const struct listing *list, struct error *e) {
    if (list->whole && list->count) {
        return fail(e, STATUS_MODEL, "%s holds both weights.npz and %s; remove one of the two",
                    store->path, list->shards[0].name);
    }
    for (size_t i = 0; i < list->count; i++) {
        const struct shard *s = &list->shards[i];
        if (s->number < i) {
            return fail(e, STATUS_MODEL, "%s holds both %s and %s; remove one of the two",
                        store->path, s[-1].name, s->name);
        }
        if (s->number > i) {
            const char *first = list->shards[0].name + strlen("weights.");
            int width = *first == '0' ? (int)strspn(first, "0123456789") : 0;
            return fail(e, STATUS_MODEL,
                        "%s lacks the shard weights.%0*zu.npz, though %s is there; copy all shards",
                        store->path, width, i, s->name);
        }
    }
    return true;
}

/* ---- opening ---- */

static bool open_archives(struct store *store, char *const *paths, size_t count, struct error *e) {
    struct store_files *files = store->files;
    files->archives = calloc(count, sizeof *files->archives);
    if (!files->archives) return fail_memory(store, e);
    for (; files->archive_count < count; files->archive_count++) {
        if (!npz_open(&files->archives[files->archive_count], paths[files->archive_count], e)) {
            return false;
        }
    }
    return true;
}

static bool open_listed(struct store *store, const struct listing *list, struct error *e) {
    size_t count = list->whole ? 1 : list->count;
    if (count == 0) return true;
    char **paths = calloc(count, sizeof *paths);
    bool ok = paths != NULL;
    for (size_t i = 0; ok && i < count; i++) {
        paths[i] = join(store->path, list->whole ? "weights.npz" : list->shards[i].name);
        ok = paths[i] != NULL;
    }
    ok = ok ? open_archives(store, paths, count, e) : fail_memory(store, e);
    for (size_t i = 0; paths && i < count; i++) free(paths[i]);
    free(paths);
    return ok;
}

static bool open_beside(struct store *store, struct error *e) {
    for (int i = 0; i < KNOWN; i++) {
        struct stat st;
        struct known_file *known = &store->files->known[i];
        char *path = join(store->path, known_names[i]);
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

static bool open_folder(struct store *store, struct error *e) {
    struct listing list = {0};
    bool ok = list_folder(store, &list, e) && check_shards(store, &list, e) &&
              open_beside(store, e) && open_listed(store, &list, e);
    store->unread = list.unread;
    list.unread = NULL;
    listing_free(&list);
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
    return !ends_with(m->name, ".npy") || add_array(store, npz, m, e);
}

static int by_name(const void *a, const void *b) {
    return strcmp(((const struct array *)a)->name, ((const struct array *)b)->name);
}

static bool make_table(struct store *store, struct error *e) {
    const struct store_files *files = store->files;
    size_t total = 0;
    for (size_t i = 0; i < files->archive_count; i++) total += files->archives[i].count;
    if (total == 0) return true;
    store->arrays = calloc(total, sizeof *store->arrays);
    if (!store->arrays) return fail_memory(store, e);
    for (size_t i = 0; i < files->archive_count; i++) {
        const struct npz *npz = &files->archives[i];
        for (size_t k = 0; k < npz->count; k++) {
            if (!add_member(store, npz, &npz->members[k], e)) return false;
        }
    }
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
    if (unread && ends_with(unread, ".safetensors")) {
        return fail(e, STATUS_MODEL,
                    "%s holds %s, which nibble does not read; convert it with scripts/convert.py "
                    "%s -o model.npz",
                    store->path, unread, store->path);
    }
    if (unread) {
        return fail(e, STATUS_MODEL, "%s holds %s but no weights.npz; name the file itself",
                    store->path, unread);
    }
    return fail(e, STATUS_MODEL,
                "%s holds no arrays; a model is an .npz file of arrays, or a folder with "
                "weights.npz or weights.00.npz and so on",
                store->path);
}

static bool require_something(const struct store *store, struct error *e) {
    for (int i = 0; i < KNOWN; i++) {
        if (store->files->known[i].bytes.data) return true;
    }
    return store_require_arrays(store, e);
}

bool store_open(struct store *store, const char *path, struct error *e) {
    struct stat st;
    *store = (struct store){0};
    if (stat(path, &st) != 0) {
        return fail(e, STATUS_FILE, "%s cannot be opened: %s", path, strerror(errno));
    }
    if (S_ISREG(st.st_mode) && ends_with(path, ".safetensors")) {
        return fail(e, STATUS_MODEL,
                    "%s is a safetensors file, which nibble does not read; convert its folder with "
                    "scripts/convert.py FOLDER -o model.npz",
                    path);
    }
    store->path = strdup(path);
    store->files = calloc(1, sizeof *store->files);
    if (!store->path || !store->files) {
        fail(e, STATUS_MEMORY, "%s: no memory to open it", path);
        goto fail;
    }
    if (S_ISDIR(st.st_mode))
        TRY(open_folder(store, e));
    else
        TRY(open_archives(store, &store->path, 1, e));
    TRY(make_table(store, e));
    TRY(require_something(store, e));
    return true;
fail:
    store_close(store);
    return false;
}

void store_close(struct store *store) {
    struct store_files *files = store->files;
    for (size_t i = 0; i < store->count; i++) free((char *)store->arrays[i].name);
    for (int i = 0; files && i < KNOWN; i++) {
        if (files->known[i].own_mapping) map_close(&files->known[i].bytes);
        free(files->known[i].where);
    }
    for (size_t i = 0; files && i < files->archive_count; i++) npz_close(&files->archives[i]);
    if (files) free(files->archives);
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
    return known < 0 ? (struct span){0} : store->files->known[known].bytes;
}

void store_where(const struct store *store, const char *name, char *out, size_t size) {
    int known = known_index(name);
    const char *where = known < 0 ? NULL : store->files->known[known].where;
    const struct array *a = where ? NULL : store_find(store, name);
    snprintf(out, size, "%s", where ? where : a ? a->file : store->path);
}
