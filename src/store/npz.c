#include "store/npz.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zip.h>

#include "base/map.h"
#include "base/memory.h"
#include "store/foreign.h"

/* Deflate shrinks at most 1032 to 1, so a ratio beyond MAX_RATIO is no array that anybody stored;
 * small members of zeros may come near it. */
enum { MAX_RATIO = 1000, SMALL_BYTES = 16 << 20, MAX_NAME = 1024 };

/* What a glance inflates: of one member at least, of all together. */
enum { GLANCE_BYTES = 64 << 10, GLANCE_TOTAL = 16 << 20 };

/* What libzip reads the archive through. */
struct source {
    struct span file;
    uint64_t at;
    uint64_t first_read; /* where the first read since watching was set began */
    bool watching;
    zip_error_t error;
};

static zip_int64_t source_read(struct source *s, void *out, uint64_t size) {
    uint64_t left = s->file.size - s->at;
    if (size > left) size = left;
    if (s->watching) s->first_read = s->at;
    s->watching = false;
    memcpy(out, s->file.data + s->at, (size_t)size);
    s->at += size;
    return (zip_int64_t)size;
}

static zip_int64_t source_seek(struct source *s, void *args, uint64_t size) {
    zip_int64_t to = zip_source_seek_compute_offset(s->at, s->file.size, args, size, &s->error);
    if (to < 0) return -1;
    s->at = (uint64_t)to;
    return 0;
}

static zip_int64_t source_stat(struct source *s, void *out) {
    zip_stat_t *st = out;
    zip_stat_init(st);
    st->size = s->file.size;
    st->valid = ZIP_STAT_SIZE;
    return (zip_int64_t)sizeof *st;
}

static zip_int64_t source_call(void *state, void *data, zip_uint64_t size, zip_source_cmd_t cmd) {
    struct source *s = state;
    switch (cmd) {
    case ZIP_SOURCE_OPEN: s->at = 0; return 0;
    case ZIP_SOURCE_READ: return source_read(s, data, size);
    case ZIP_SOURCE_SEEK: return source_seek(s, data, size);
    case ZIP_SOURCE_TELL: return (zip_int64_t)s->at;
    case ZIP_SOURCE_STAT: return source_stat(s, data);
    case ZIP_SOURCE_ERROR: return zip_error_to_data(&s->error, data, size);
    case ZIP_SOURCE_SUPPORTS: return ZIP_SOURCE_SUPPORTS_SEEKABLE;
    case ZIP_SOURCE_CLOSE:
    case ZIP_SOURCE_FREE: return 0;
    default: zip_error_set(&s->error, ZIP_ER_OPNOTSUPP, 0); return -1;
    }
}

/* libzip found no directory at the file's end: says what the file is instead. */
static bool fail_not_zip(struct span file, const char *path, struct error *e) {
    if (foreign_begins(file, "PK\x03\x04") || foreign_begins(file, "PK\x05\x06")) {
        return fail(e, STATUS_FORMAT,
                    "%s is a zip archive that is damaged or cut short: its directory is not at its "
                    "end; copy it again",
                    path);
    }
    const char *words = foreign_words(file);
    if (words) return fail(e, STATUS_FORMAT, "%s %s", path, words);
    return fail(e, STATUS_FORMAT, "%s is not a zip archive; an .npz file is expected", path);
}

static bool fail_open(const zip_error_t *why, struct span file, const char *path, struct error *e) {
    int code = zip_error_code_zip(why);
    if (code == ZIP_ER_NOZIP) return fail_not_zip(file, path, e);
    if (code == ZIP_ER_MEMORY)
        return fail(e, STATUS_MEMORY, "%s: no memory for its directory", path);
    if (code == ZIP_ER_MULTIDISK) {
        return fail(e, STATUS_FORMAT, "%s is one part of a split zip archive; join the parts",
                    path);
    }
    return fail(e, STATUS_FORMAT,
                "%s is a zip archive that is damaged or cut short: its directory contradicts "
                "itself; copy it again",
                path);
}

static bool open_archive(zip_t **zip, struct source *s, const char *path, struct error *e) {
    zip_error_t why;
    zip_error_init(&why);
    zip_source_t *source = zip_source_function_create(source_call, s, &why);
    if (source) *zip = zip_open_from_source(source, ZIP_RDONLY, &why);
    if (!*zip) {
        fail_open(&why, s->file, path, e);
        zip_source_free(source);
    }
    zip_error_fini(&why);
    return *zip != NULL;
}

/* One member while it is read: names for messages, where it is, what the directory says of it. */
struct entry {
    const char *path;
    zip_t *zip;
    struct source *source;
    size_t *left; /* that may be inflated in full; NULL: all may */
    zip_stat_t st;
};

static bool fail_damaged(const struct entry *m, const char *what, struct error *e) {
    return fail(e, STATUS_FORMAT, "%s: %s is damaged: %s; copy the file again", m->path, m->st.name,
                what);
}

static bool check_entry(const struct entry *m, struct error *e) {
    const zip_uint64_t needed = ZIP_STAT_NAME | ZIP_STAT_SIZE | ZIP_STAT_COMP_SIZE |
                                ZIP_STAT_COMP_METHOD | ZIP_STAT_ENCRYPTION_METHOD;
    const zip_stat_t *st = &m->st;
    if ((st->valid & needed) != needed || strlen(st->name) > MAX_NAME) {
        return fail(e, STATUS_FORMAT,
                    "%s has an entry without a usable name or size; it was not written by numpy, "
                    "save the arrays again",
                    m->path);
    }
    if (st->encryption_method != ZIP_EM_NONE) {
        return fail(
            e, STATUS_FORMAT,
            "%s: %s is encrypted; unpack the archive and save the arrays without a password",
            m->path, st->name);
    }
    if (st->comp_method != ZIP_CM_STORE && st->comp_method != ZIP_CM_DEFLATE) {
        return fail(e, STATUS_FORMAT,
                    "%s: %s is compressed with zip method %d, nibble reads stored and deflated "
                    "members; save it again with numpy.savez",
                    m->path, st->name, st->comp_method);
    }
    if (st->comp_method == ZIP_CM_STORE && st->size != st->comp_size) {
        return fail_damaged(m, "it is stored, with two different sizes", e);
    }
    return true;
}

static bool check_inflated(const struct entry *m, struct error *e) {
    uint64_t size = m->st.size, available = memory_available();
    if (size > SMALL_BYTES && size / MAX_RATIO > m->st.comp_size) {
        return fail(e, STATUS_FORMAT,
                    "%s: %s claims to inflate from %llu to %llu bytes, which no array does; get "
                    "the file from a source you trust",
                    m->path, m->st.name, (unsigned long long)m->st.comp_size,
                    (unsigned long long)size);
    }
    if (available && size > available) {
        return fail(e, STATUS_MEMORY,
                    "%s: %s inflates to %llu bytes and %llu are available; save the arrays with "
                    "numpy.savez, without compression",
                    m->path, m->st.name, (unsigned long long)size, (unsigned long long)available);
    }
    return true;
}

/* A stored member: libzip skips the local header and reads one byte, at the first of the member. */
static bool locate(struct entry *m, zip_file_t *f, struct span *bytes, struct error *e) {
    struct source *s = m->source;
    unsigned char first;
    s->watching = true;
    s->first_read = UINT64_MAX;
    zip_int64_t n = zip_fread(f, &first, 1);
    s->watching = false;
    if (n != 1 || s->first_read >= s->file.size || m->st.size > s->file.size - s->first_read) {
        return fail_damaged(m, "its bytes lie outside the file", e);
    }
    *bytes = (struct span){s->file.data + s->first_read, (size_t)m->st.size};
    return true;
}

/* Of a member at a glance: so much of it as may be, whose checksum is not known then. */
static bool inflate_front(struct entry *m, zip_file_t *f, unsigned char *out, struct error *e) {
    uint64_t most = *m->left > GLANCE_BYTES ? *m->left : GLANCE_BYTES, done = 0;
    if (most > m->st.size) most = m->st.size;
    *m->left -= most < *m->left ? (size_t)most : *m->left;
    while (done < most) {
        zip_int64_t n = zip_fread(f, out + done, most - done);
        if (n <= 0) return fail_damaged(m, zip_file_strerror(f), e);
        done += (uint64_t)n;
    }
    return true;
}

/* Reads all of the member and one byte more: libzip verifies the checksum when it meets the end. */
static bool inflate_into(struct entry *m, zip_file_t *f, unsigned char *out, struct error *e) {
    uint64_t done = 0;
    zip_int64_t n = 1;
    unsigned char extra;
    while (done < m->st.size && n > 0) {
        n = zip_fread(f, out + done, m->st.size - done);
        if (n > 0) done += (uint64_t)n;
    }
    if (n > 0 || done == m->st.size) n = zip_fread(f, &extra, 1);
    if (n < 0) return fail_damaged(m, zip_file_strerror(f), e);
    if (n > 0) return fail_damaged(m, "it inflates to more than its declared size", e);
    if (done < m->st.size) return fail_damaged(m, "it inflates to less than its declared size", e);
    return true;
}

/* Fills member from entry i of the archive; what it holds then is freed by npz_close. */
static bool read_member(struct entry *m, uint64_t i, struct npz_member *member, struct error *e) {
    zip_file_t *f = NULL;
    if (!check_entry(m, e)) return false;
    member->mapped = m->st.comp_method == ZIP_CM_STORE;
    member->has_crc = (m->st.valid & ZIP_STAT_CRC) != 0;
    member->crc = m->st.crc;
    if (!member->mapped && !check_inflated(m, e)) return false;
    member->name = strdup(m->st.name);
    if (!member->name) return fail(e, STATUS_MEMORY, "%s: no memory for its names", m->path);
    if (member->mapped && m->st.size == 0) {
        member->bytes.data = m->source->file.data; /* libzip reads nothing for it */
        return true;
    }
    f = zip_fopen_index(m->zip, i, 0);
    if (!f) return fail_damaged(m, zip_strerror(m->zip), e);
    bool ok;
    if (member->mapped) {
        ok = locate(m, f, &member->bytes, e);
    } else {
        unsigned char *out = calloc((size_t)m->st.size + (m->st.size == 0), 1);
        member->bytes.data = out;
        member->bytes.size = (size_t)m->st.size;
        ok = out ? (m->left ? inflate_front : inflate_into)(m, f, out, e)
                 : fail(e, STATUS_MEMORY, "%s: no memory for the %llu bytes that %s inflates to",
                        m->path, (unsigned long long)m->st.size, m->st.name);
    }
    zip_fclose(f);
    return ok;
}

static int by_name(const void *a, const void *b) {
    return strcmp(((const struct npz_member *)a)->name, ((const struct npz_member *)b)->name);
}

static bool check_names(const struct npz *npz, struct error *e) {
    for (size_t i = 1; i < npz->count; i++) {
        if (strcmp(npz->members[i - 1].name, npz->members[i].name) != 0) continue;
        return fail(e, STATUS_FORMAT, "%s holds %s twice; save the arrays again, each name once",
                    npz->path, npz->members[i].name);
    }
    return true;
}

static int by_place(const void *a, const void *b) {
    const struct npz_member *const *x = a, *const *y = b;
    return ((*x)->bytes.data > (*y)->bytes.data) - ((*x)->bytes.data < (*y)->bytes.data);
}

/* No two members share bytes: each would be whole by its checksum, and one of them a lie. */
static bool check_places(const struct npz *npz, struct error *e) {
    const struct npz_member **stored = calloc(npz->count, sizeof(void *)), *wrong = NULL;
    size_t count = 0;
    if (!stored) return fail(e, STATUS_MEMORY, "%s: no memory for its directory", npz->path);
    for (size_t i = 0; i < npz->count; i++) {
        const struct npz_member *m = &npz->members[i];
        if (m->mapped && m->bytes.size) stored[count++] = m;
    }
    if (count) qsort(stored, count, sizeof(void *), by_place);
    for (size_t i = 1; i < count && !wrong; i++) {
        const struct span *before = &stored[i - 1]->bytes;
        if (before->data + before->size > stored[i]->bytes.data) wrong = stored[i];
    }
    if (wrong) {
        fail(e, STATUS_FORMAT, "%s is damaged: %s lies where another member does; copy it again",
             npz->path, wrong->name);
    }
    free(stored);
    return !wrong;
}

static bool read_members(struct npz *npz, zip_t *zip, struct source *s, size_t *left,
                         struct error *e) {
    zip_int64_t total = zip_get_num_entries(zip, 0);
    uint64_t packed = 0;
    if (total <= 0) return true;
    npz->members = calloc((size_t)total, sizeof *npz->members);
    if (!npz->members) return fail(e, STATUS_MEMORY, "%s: no memory for its directory", npz->path);
    for (zip_int64_t i = 0; i < total; i++) {
        struct entry m = {.path = npz->path, .zip = zip, .source = s, .left = left};
        if (zip_stat_index(zip, (zip_uint64_t)i, ZIP_FL_ENC_RAW, &m.st) != 0) {
            return fail(e, STATUS_FORMAT,
                        "%s: entry %lld of its directory is damaged: %s; copy the file again",
                        npz->path, (long long)i, zip_strerror(zip));
        }
        /* Members that share bytes could multiply a small file without limit. */
        if (m.st.comp_size > s->file.size - packed) {
            return fail_damaged(&m, "it is larger than its place in the file", e);
        }
        packed += m.st.comp_size;
        npz->count++; /* so that npz_close frees what read_member leaves */
        if (!read_member(&m, (uint64_t)i, &npz->members[i], e)) return false;
    }
    qsort(npz->members, npz->count, sizeof *npz->members, by_name);
    return check_names(npz, e) && check_places(npz, e);
}

static bool open_members(struct npz *npz, const char *path, size_t *left, struct error *e) {
    struct source source = {0};
    zip_t *zip = NULL;
    *npz = (struct npz){0};
    zip_error_init(&source.error);
    TRY(map_open(path, &npz->file, e));
    source.file = npz->file;
    npz->path = strdup(path);
    TRY(npz->path || fail(e, STATUS_MEMORY, "%s: no memory for its name", path));
    TRY(open_archive(&zip, &source, path, e));
    TRY(read_members(npz, zip, &source, left, e));
    zip_discard(zip);
    zip_error_fini(&source.error);
    return true;
fail:
    if (zip) zip_discard(zip);
    zip_error_fini(&source.error);
    npz_close(npz);
    return false;
}

bool npz_open(struct npz *npz, const char *path, struct error *e) {
    return open_members(npz, path, NULL, e);
}

bool npz_glance(struct npz *npz, const char *path, struct error *e) {
    size_t left = GLANCE_TOTAL;
    return open_members(npz, path, &left, e);
}

void npz_close(struct npz *npz) {
    for (size_t i = 0; i < npz->count; i++) {
        struct npz_member *m = &npz->members[i];
        free(m->name);
        if (!m->mapped) free((void *)m->bytes.data);
    }
    free(npz->members);
    free(npz->path);
    map_close(&npz->file);
    *npz = (struct npz){0};
}

/* --- checksums -------------------------------------------------------------------------------- */

static void add_damaged(const struct npz *npz, const char *name, const char *why,
                        struct npz_check *c, struct error *e) {
    if (c->damaged++ == 0) {
        fail(e, STATUS_FORMAT,
             "%s: members are damaged, their bytes are not those that were written; copy the file "
             "again:",
             npz->path);
    }
    error_item(e, "%s: %s", name ? name : "?", why);
}

/* libzip compares the checksum when it meets the end. */
static bool check_member(const struct npz *npz, zip_t *zip, uint64_t i, struct npz_check *c,
                         struct error *e) {
    unsigned char bytes[1 << 16];
    const char *name = zip_get_name(zip, i, ZIP_FL_ENC_RAW);
    zip_file_t *f = zip_fopen_index(zip, i, 0);
    zip_int64_t n = f ? 1 : -1;
    bool go_on = true;
    while (n > 0 && go_on) {
        n = zip_fread(f, bytes, sizeof bytes);
        if (n > 0) c->bytes += (size_t)n;
        go_on = !c->go_on || c->go_on(c->arg, c->bytes);
    }
    if (n < 0) add_damaged(npz, name, f ? zip_file_strerror(f) : zip_strerror(zip), c, e);
    if (f) zip_fclose(f);
    c->members++;
    return go_on || fail(e, STATUS_INTERRUPTED, "interrupted while %s was read", npz->path);
}

bool npz_check(const struct npz *npz, struct npz_check *c, struct error *e) {
    struct source source = {.file = npz->file};
    zip_t *zip = NULL;
    zip_error_init(&source.error);
    bool ok = open_archive(&zip, &source, npz->path, e);
    zip_int64_t total = ok ? zip_get_num_entries(zip, 0) : 0;
    for (zip_int64_t i = 0; ok && i < total; i++) ok = check_member(npz, zip, (uint64_t)i, c, e);
    if (zip) zip_discard(zip);
    zip_error_fini(&source.error);
    return ok;
}

const char *npz_library(void) {
    return zip_libzip_version();
}
