#include "store/folder.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "store/names.h"

static const char index_name[] = "model.safetensors.index.json";

/* A file whose name ends as those of weights do. */
struct entry {
    char *name;
    unsigned long number; /* of a numbered shard */
    bool taken;
};

struct listing {
    const char *path;      /* the folder */
    struct entry *entries; /* sorted by name */
    size_t count;
    bool index, safetensors; /* whether there is one */
};

static bool fail_memory(const struct listing *list, struct error *e) {
    return fail(e, STATUS_MEMORY, "%s: no memory for its list of files", list->path);
}

/* --- listing -----------------------------------------------------------------------------------
 */

static bool list_name(struct listing *list, const char *name) {
    bool safetensors = names_end(name, ".safetensors");
    list->index |= strcmp(name, index_name) == 0;
    if (name[0] == '.' || (!safetensors && !names_end(name, ".npz"))) return true;
    struct entry *more = realloc(list->entries, (list->count + 1) * sizeof *more);
    if (!more) return false;
    list->entries = more;
    more[list->count] = (struct entry){.name = strdup(name)};
    list->safetensors |= safetensors;
    return more[list->count++].name != NULL;
}

static int by_name(const void *a, const void *b) {
    return strcmp(((const struct entry *)a)->name, ((const struct entry *)b)->name);
}

static bool list_folder(struct listing *list, struct error *e) {
    DIR *dir = opendir(list->path);
    if (!dir) {
        return fail(e, STATUS_FILE, "%s cannot be opened: %s", list->path, strerror(errno));
    }
    bool ok = true;
    for (struct dirent *d; ok && (d = readdir(dir)) != NULL;) ok = list_name(list, d->d_name);
    closedir(dir);
    if (!ok) return fail_memory(list, e);
    if (list->count) qsort(list->entries, list->count, sizeof *list->entries, by_name);
    return true;
}

static struct entry *find(const struct listing *list, const char *name) {
    struct entry key = {.name = (char *)name};
    if (list->count == 0) return NULL;
    return bsearch(&key, list->entries, list->count, sizeof key, by_name);
}

/* Adds the file to those that are read. */
static bool take(struct folder *f, const struct listing *list, struct entry *entry,
                 struct error *e) {
    entry->taken = true;
    f->paths[f->count] = names_join(list->path, entry->name);
    return f->paths[f->count++] || fail_memory(list, e);
}

/* --- numbered shards ---------------------------------------------------------------------------
 */

/* weights.N and the ending, N a decimal number of a few digits. */
static bool read_number(const char *name, const char *ending, unsigned long *number) {
    size_t prefix = strlen("weights.");
    if (strncmp(name, "weights.", prefix) != 0) return false;
    size_t digits = strspn(name + prefix, "0123456789");
    if (digits < 1 || digits > 6 || strcmp(name + prefix + digits, ending) != 0) return false;
    *number = strtoul(name + prefix, NULL, 10);
    return true;
}

static int by_number(const void *a, const void *b) {
    const struct entry *x = *(struct entry *const *)a, *y = *(struct entry *const *)b;
    if (x->number != y->number) return x->number < y->number ? -1 : 1;
    return strcmp(x->name, y->name);
}

static bool fail_both(const struct listing *list, const char *one, const char *other,
                      struct error *e) {
    return fail(e, STATUS_MODEL, "%s holds both %s and %s; remove one of the two", list->path, one,
                other);
}

/* Without holes from 0; how many there should be is written nowhere. */
static bool check_numbers(const struct listing *list, struct entry *const *shards, size_t count,
                          const char *ending, struct error *e) {
    for (size_t i = 0; i < count; i++) {
        if (shards[i]->number == i) continue;
        if (shards[i]->number < i) return fail_both(list, shards[i - 1]->name, shards[i]->name, e);
        const char *first = shards[0]->name + strlen("weights.");
        int width = *first == '0' ? (int)strspn(first, "0123456789") : 0;
        return fail(e, STATUS_MODEL,
                    "%s lacks the shard weights.%0*zu%s, though %s is there; copy all shards",
                    list->path, width, i, ending, shards[i]->name);
    }
    return true;
}

/* shards has room for all that are listed. */
static bool take_shards(struct folder *f, struct listing *list, struct entry **shards,
                        const char *ending, struct entry *whole, struct error *e) {
    size_t count = 0;
    for (size_t i = 0; i < list->count; i++) {
        struct entry *entry = &list->entries[i];
        if (read_number(entry->name, ending, &entry->number)) shards[count++] = entry;
    }
    qsort(shards, count, sizeof *shards, by_number);
    if (whole && count) return fail_both(list, whole->name, shards[0]->name, e);
    if (!check_numbers(list, shards, count, ending, e)) return false;
    for (size_t i = 0; i < count; i++) {
        if (!take(f, list, shards[i], e)) return false;
    }
    return !whole || take(f, list, whole, e);
}

/* "weights" and the ending, or numbered shards, or nothing. */
static bool take_weights(struct folder *f, struct listing *list, const char *whole,
                         const char *ending, struct error *e) {
    struct entry **shards = malloc((list->count + 1) * sizeof *shards);
    if (!shards) return fail_memory(list, e);
    bool ok = take_shards(f, list, shards, ending, find(list, whole), e);
    free(shards);
    return ok;
}

/* --- shards of an index ------------------------------------------------------------------------
 */

static bool take_indexed(struct folder *f, const struct listing *list, struct error *e) {
    char *path = names_join(list->path, index_name);
    bool ok = path ? safetensors_index_open(&f->index, path, e) : fail_memory(list, e);
    free(path);
    for (size_t i = 0; ok && i < f->index.count; i++) {
        const char *shard = f->index.places[i].shard;
        if (i > 0 && strcmp(shard, f->index.places[i - 1].shard) == 0) continue;
        struct entry *entry = find(list, shard);
        ok = entry ? take(f, list, entry, e)
                   : fail(e, STATUS_MODEL,
                          "%s names %s, which is not in the folder; download it as well",
                          f->index.path, shard);
    }
    return ok;
}

bool folder_is_shard(const char *name) {
    const char *of = strstr(name, "-of-");
    for (const char *next = of; next; next = strstr(next + 1, "-of-")) of = next;
    if (!of) return false;
    size_t digits = strspn(of + 4, "0123456789");
    return digits && strcmp(of + 4 + digits, ".safetensors") == 0 && strtoul(of + 4, NULL, 10) > 1;
}

/* --- choosing ----------------------------------------------------------------------------------
 */

static bool choose(struct folder *f, struct listing *list, struct error *e) {
    if (!take_weights(f, list, "weights.npz", ".npz", e)) return false;
    if (f->count) return true;
    f->safetensors = true;
    struct entry *whole = find(list, "model.safetensors");
    if (whole) return take(f, list, whole, e);
    if (list->index && list->safetensors) return take_indexed(f, list, e);
    return take_weights(f, list, "weights.safetensors", ".safetensors", e);
}

static bool name_unread(struct folder *f, const struct listing *list, struct error *e) {
    const char *name = NULL;
    for (size_t i = list->count; i-- > 0;) {
        const struct entry *entry = &list->entries[i];
        bool prefer = !name || names_end(entry->name, ".safetensors") || names_end(name, ".npz");
        if (!entry->taken && prefer) name = entry->name;
    }
    f->unread = name ? strdup(name) : NULL;
    return !name || f->unread || fail_memory(list, e);
}

bool folder_open(struct folder *folder, const char *path, struct error *e) {
    struct listing list = {.path = path};
    *folder = (struct folder){0};
    bool ok = list_folder(&list, e);
    if (ok) folder->paths = calloc(list.count + 1, sizeof *folder->paths);
    if (ok && !folder->paths) ok = fail_memory(&list, e);
    ok = ok && choose(folder, &list, e) && name_unread(folder, &list, e);
    for (size_t i = 0; i < list.count; i++) free(list.entries[i].name);
    free(list.entries);
    if (!ok) folder_close(folder);
    return ok;
}

void folder_close(struct folder *folder) {
    for (size_t i = 0; folder->paths && i < folder->count; i++) free(folder->paths[i]);
    free(folder->paths);
    free(folder->unread);
    safetensors_index_close(&folder->index);
    *folder = (struct folder){0};
}
