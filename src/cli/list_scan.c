#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "cli/list.h"

enum { MAX_DEPTH = 4, MAX_NAMES = 20000 };

/* In the order in which a folder's files are taken as its weights. */
enum format { NPZ, SAFETENSORS, PYTORCH, GGUF, FORMATS };
static const char *const format_names[FORMATS] = {"npz", "safetensors", "pytorch", "gguf"};

/* Folders that are still to be looked at. */
struct queue {
    struct place {
        char *path;
        int depth;
    } * items;
    size_t first, count;
    size_t names; /* read so far */
};

/* What a folder holds. */
struct contents {
    bool config;
    size_t files[FORMATS], bytes[FORMATS]; /* of weights by their usual names */
    struct list_model *alone;              /* files that may be models of their own */
    size_t alone_count;
};

/* --- memory --------------------------------------------------------------------------------- */

/* Room for one more element behind count; NULL without memory, which is noted. */
static void *grow(struct list_scan *s, void *items, size_t count, size_t size) {
    if (count & (count - 1)) return items; /* room was made at the last power of two */
    void *more = realloc(items, (count ? 2 * count : 1) * size);
    if (!more) s->no_memory = true;
    return more;
}

/* folder/name, without a leading "./". */
static char *join(struct list_scan *s, const char *folder, const char *name) {
    char *path;
    size_t length = strlen(folder);
    const char *slash = length && folder[length - 1] == '/' ? "" : "/";
    if (strcmp(folder, ".") == 0) folder = slash = "";
    if (asprintf(&path, "%s%s%s", folder, slash, name) >= 0) return path;
    s->no_memory = true;
    return NULL;
}

/* Takes path over. */
static void add_model(struct list_scan *s, struct list_model model) {
    struct list_model *more = model.path ? grow(s, s->models, s->count, sizeof model) : NULL;
    if (!more) {
        free(model.path);
        return;
    }
    s->models = more;
    more[s->count++] = model;
}

static void add_alone(struct list_scan *s, struct contents *c, struct list_model model) {
    struct list_model *more = model.path ? grow(s, c->alone, c->alone_count, sizeof model) : NULL;
    if (!more) {
        free(model.path);
        return;
    }
    c->alone = more;
    more[c->alone_count++] = model;
}

static void enqueue(struct list_scan *s, struct queue *q, char *path, int depth) {
    struct place *more = path ? grow(s, q->items, q->count, sizeof *more) : NULL;
    if (!more) {
        free(path);
        return;
    }
    q->items = more;
    more[q->count++] = (struct place){path, depth};
}

/* False if the folder has been looked at before. */
static bool note_seen(struct list_scan *s, const struct stat *st) {
    for (size_t i = 0; i < s->seen_count; i++) {
        if (s->seen[i].inode == st->st_ino && s->seen[i].device == st->st_dev) return false;
    }
    struct list_folder *more = grow(s, s->seen, s->seen_count, sizeof *more);
    if (!more) return false;
    s->seen = more;
    more[s->seen_count++] = (struct list_folder){st->st_dev, st->st_ino};
    return true;
}

/* --- names ---------------------------------------------------------------------------------- */

static bool begins(const char *name, const char *text) {
    return strncmp(name, text, strlen(text)) == 0;
}

static bool ends(const char *name, const char *text) {
    size_t n = strlen(name), t = strlen(text);
    return n >= t && strcmp(name + n - t, text) == 0;
}

/* weights and the ending, perhaps with a number between them. */
static bool is_weights(const char *name, const char *ending) {
    if (!begins(name, "weights") || !ends(name, ending)) return false;
    const char *between = name + strlen("weights");
    size_t length = strlen(name) - strlen("weights") - strlen(ending);
    return length == 0 || (*between == '.' && strspn(between + 1, "0123456789") == length - 1);
}

/* The weights of a folder, by the names that programs give them; FORMATS: none. */
static enum format format_of_part(const char *name) {
    if (is_weights(name, ".npz")) return NPZ;
    if (is_weights(name, ".safetensors")) return SAFETENSORS;
    if (ends(name, ".safetensors") && (begins(name, "model.") || begins(name, "model-")))
        return SAFETENSORS;
    if (begins(name, "pytorch_model") && ends(name, ".bin")) return PYTORCH;
    if (begins(name, "consolidated.") && ends(name, ".pth")) return PYTORCH;
    return FORMATS;
}

static enum format format_of_file(const char *name) {
    if (ends(name, ".npz")) return NPZ;
    if (ends(name, ".safetensors")) return SAFETENSORS;
    return ends(name, ".gguf") ? GGUF : FORMATS;
}

/* --- folders -------------------------------------------------------------------------------- */

static void see_file(struct list_scan *s, struct contents *c, const char *folder, const char *name,
                     const struct stat *st) {
    enum format part = format_of_part(name), alone = format_of_file(name);
    size_t bytes = st->st_size > 0 ? (size_t)st->st_size : 0;
    if (part != FORMATS) {
        c->files[part]++;
        c->bytes[part] += bytes;
    } else if (alone != FORMATS && S_ISREG(st->st_mode)) {
        add_alone(s, c, (struct list_model){join(s, folder, name), format_names[alone], 1, bytes});
    }
}

/* One name of a folder. Links are followed; one into nowhere may still be part of a model. */
static void see_name(struct list_scan *s, struct queue *q, struct contents *c,
                     const struct place *at, const char *name) {
    struct stat st = {0};
    bool named = format_of_part(name) != FORMATS || format_of_file(name) != FORMATS;
    if (*name == '.') return;
    c->config |= strcmp(name, "config.json") == 0 || strcmp(name, "params.json") == 0;
    char *path = join(s, at->path, name);
    bool there = path && stat(path, &st) == 0;
    if (there && S_ISDIR(st.st_mode) && at->depth < MAX_DEPTH) {
        enqueue(s, q, path, at->depth + 1);
        return;
    }
    free(path);
    if (named && !S_ISDIR(st.st_mode)) see_file(s, c, at->path, name, &st);
}

/* A folder that holds a model is no place for others. */
static void add_found(struct list_scan *s, struct queue *q, struct contents *c,
                      const struct place *at, size_t queued) {
    int f = 0;
    while (f < FORMATS && !c->files[f]) f++;
    bool model = f < FORMATS && c->config;
    if (f < FORMATS)
        add_model(s,
                  (struct list_model){strdup(at->path), format_names[f], c->files[f], c->bytes[f]});
    for (size_t i = 0; i < c->alone_count; i++) {
        if (model)
            free(c->alone[i].path);
        else
            add_model(s, c->alone[i]);
    }
    while (model && q->count > queued) free(q->items[--q->count].path);
    free(c->alone);
}

/* False, with errno, if it cannot be opened. */
static bool look_into(struct list_scan *s, struct queue *q, const struct place *at) {
    struct contents c = {0};
    struct stat st;
    size_t queued = q->count;
    if (stat(at->path, &st) != 0) return false;
    if (!note_seen(s, &st)) return true;
    DIR *dir = opendir(at->path);
    if (!dir) return false;
    struct dirent *d = NULL;
    while (q->names < MAX_NAMES && (d = readdir(dir)) != NULL) {
        q->names++;
        see_name(s, q, &c, at, d->d_name);
    }
    s->cut |= d != NULL;
    closedir(dir);
    add_found(s, q, &c, at, queued);
    return true;
}

bool list_scan(struct list_scan *s, const char *path) {
    struct queue q = {0};
    struct stat st;
    if (stat(path, &st) != 0) return false;
    if (!S_ISDIR(st.st_mode)) {
        enum format f = format_of_file(path);
        add_model(s, (struct list_model){strdup(path), f < FORMATS ? format_names[f] : "unknown", 1,
                                         st.st_size > 0 ? (size_t)st.st_size : 0});
        return true;
    }
    enqueue(s, &q, strdup(path), 0);
    bool ok = true;
    for (; q.first < q.count; q.first++) {
        struct place at = q.items[q.first]; /* the table may move */
        bool opened = look_into(s, &q, &at);
        if (at.depth == 0) ok = opened;
        int code = errno;
        free(at.path);
        errno = code;
    }
    free(q.items);
    return ok;
}

static int by_path(const void *a, const void *b) {
    return strcmp(((const struct list_model *)a)->path, ((const struct list_model *)b)->path);
}

void list_scan_sort(struct list_scan *s) {
    if (s->count) qsort(s->models, s->count, sizeof *s->models, by_path);
}

void list_scan_free(struct list_scan *s) {
    for (size_t i = 0; i < s->count; i++) free(s->models[i].path);
    free(s->models);
    free(s->seen);
    *s = (struct list_scan){0};
}
