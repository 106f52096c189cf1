#include "store/write.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zip.h>

#include "store/npy.h"

/* What libzip writes before a stored member: a local header, its name, and from 4 GiB - 1 on an
 * extra field with both sizes. Alignment needs to know it beforehand. */
enum { LOCAL_HEADER_BYTES = 30, ZIP64_EXTRA_BYTES = 20 };
enum { MAX_NAME = 1024, DOS_DATE_1980_01_01 = 1 << 5 | 1 };

struct writer {
    char *path;
    zip_t *zip;
    uint64_t offset; /* where the next member's local header begins */
    size_t count;
    struct error *error; /* of write_commit, for produce */
    bool produce_failed; /* *error is filled */
};

/* One member on its way into the archive. libzip owns it and frees it with its source. */
struct member {
    struct writer *writer;
    char *name;
    write_produce *produce;
    void *arg;
    unsigned char header[NPY_MAX_HEADER];
    size_t header_bytes, data_bytes;
    struct span data; /* once produced */
    size_t at;        /* bytes read so far, header included */
    zip_error_t error;
};

static bool fail_memory(const char *path, struct error *e) {
    return fail(e, STATUS_MEMORY, "%s: no memory to write it", path);
}

/* Only opening a FIFO is interrupted by a signal: nobody may ever read it. */
static bool fail_write(const char *path, int error_number, struct error *e) {
    if (error_number == EINTR) return fail(e, STATUS_INTERRUPTED, "%s: interrupted", path);
    return fail(e, STATUS_FILE, "%s cannot be written: %s", path, strerror(error_number));
}

static bool check_shape(const char *path, const char *name, enum dtype dtype, int dims,
                        const uint64_t *shape, size_t *bytes, struct error *e) {
    if (dims < 0 || dims > NPY_MAX_DIMS) {
        return fail(e, STATUS_ARGUMENT, "%s: %s has %d dimensions where an array has 0 to %d", path,
                    name, dims, NPY_MAX_DIMS);
    }
    if (npy_bytes(dtype, dims, shape, bytes)) return true;
    return fail(e, STATUS_ARGUMENT, "%s: %s has a shape with more elements than memory can hold",
                path, name);
}

static bool check_size(const char *path, const char *name, size_t given, size_t needed,
                       struct error *e) {
    if (given == needed) return true;
    return fail(e, STATUS_ARGUMENT, "%s: %s was given %zu bytes where its shape and type need %zu",
                path, name, given, needed);
}

static zip_int64_t member_open(struct member *m) {
    struct writer *w = m->writer;
    m->at = 0;
    if (m->produce(m->arg, &m->data, w->error) &&
        check_size(w->path, m->name, m->data.size, m->data_bytes, w->error)) {
        return 0;
    }
    w->produce_failed = true;
    zip_error_set(&m->error, ZIP_ER_CANCELLED, 0);
    return -1;
}

static size_t copy_part(struct span from, size_t at, unsigned char *out, size_t size) {
    if (at >= from.size) return 0;
    if (size > from.size - at) size = from.size - at;
    memcpy(out, from.data + at, size);
    return size;
}

static zip_int64_t member_read(struct member *m, unsigned char *out, size_t size) {
    size_t n = copy_part((struct span){m->header, m->header_bytes}, m->at, out, size);
    m->at += n;
    if (m->at >= m->header_bytes) {
        size_t more = copy_part(m->data, m->at - m->header_bytes, out + n, size - n);
        m->at += more;
        n += more;
    }
    return (zip_int64_t)n;
}

/* The size is known before the data: libzip then needs no zip64 fields to be on the safe side. */
static zip_int64_t member_stat(struct member *m, zip_stat_t *st) {
    zip_stat_init(st);
    st->size = m->header_bytes + m->data_bytes;
    st->valid = ZIP_STAT_SIZE;
    return (zip_int64_t)sizeof *st;
}

static void member_free(struct member *m) {
    zip_error_fini(&m->error);
    free(m->name);
    free(m);
}

static zip_int64_t member_call(void *state, void *data, zip_uint64_t size, zip_source_cmd_t cmd) {
    struct member *m = state;
    switch (cmd) {
    case ZIP_SOURCE_OPEN: return member_open(m);
    case ZIP_SOURCE_READ: return member_read(m, data, (size_t)size);
    case ZIP_SOURCE_CLOSE: return 0;
    case ZIP_SOURCE_STAT: return member_stat(m, data);
    case ZIP_SOURCE_ERROR: return zip_error_to_data(&m->error, data, size);
    case ZIP_SOURCE_FREE: member_free(m); return 0;
    case ZIP_SOURCE_SUPPORTS: return ZIP_SOURCE_SUPPORTS_READABLE;
    default: zip_error_set(&m->error, ZIP_ER_OPNOTSUPP, 0); return -1;
    }
}

/* libzip puts its temporary file beside path and renames it over path: path must not be a link then
 * (/dev/stdout may be one), and what it leads to must be a file or nothing. */
static bool resolve(const char *path, char **out, struct error *e) {
    struct stat st;
    if (stat(path, &st) == 0 && !S_ISREG(st.st_mode)) {
        return fail(
            e, STATUS_FILE,
            "%s is not a regular file and an .npz can only be written as one; name a new file",
            path);
    }
    bool link = lstat(path, &st) == 0 && S_ISLNK(st.st_mode);
    *out = link ? realpath(path, NULL) : strdup(path);
    return *out || fail_write(path, errno, e);
}

bool write_open(struct writer **out, const char *path, struct error *e) {
    int code = 0;
    struct writer *w = *out = calloc(1, sizeof *w);
    if (!w) return fail_memory(path, e);
    TRY(resolve(path, &w->path, e));
    w->zip = zip_open(w->path, ZIP_CREATE | ZIP_TRUNCATE, &code);
    if (!w->zip) {
        zip_error_t why;
        int system = errno;
        zip_error_init_with_code(&why, code);
        if (zip_error_system_type(&why) == ZIP_ET_SYS)
            fail_write(path, system, e);
        else
            fail(e, STATUS_FILE, "%s cannot be written: %s", path, zip_error_strerror(&why));
        zip_error_fini(&why);
        goto fail;
    }
    return true;
fail:
    write_discard(w);
    *out = NULL;
    return false;
}

/* The bytes of front [n] from `at` on, as far as they go, are those of text. */
static bool agrees(const char *front, size_t n, size_t at, const char *text) {
    size_t length = strlen(text);
    return n <= at || memcmp(front + at, text, n - at < length ? n - at : length) == 0;
}

static bool read_front(const char *path, char *front, size_t size, size_t *n, struct error *e) {
    FILE *f = fopen(path, "rb");
    *n = f ? fread(front, 1, size, f) : 0;
    bool ok = f && !ferror(f);
    if (!ok) fail(e, STATUS_FILE, "%s cannot be read: %s", path, strerror(errno));
    if (f) fclose(f);
    return ok;
}

bool write_may_replace(const char *path, const char *first_array, struct error *e) {
    char front[LOCAL_HEADER_BYTES + MAX_NAME];
    size_t n = 0;
    struct stat st;
    if (stat(path, &st) != 0) return true;
    bool file = S_ISREG(st.st_mode);
    if (file && !read_front(path, front, sizeof front, &n, e)) return false;
    if (file && agrees(front, n, 0, "PK\3\4") && agrees(front, n, LOCAL_HEADER_BYTES, first_array))
        return true;
    return fail(e, STATUS_ARGUMENT,
                "%s is there and is no file that may be replaced by what is to be written; name "
                "another one",
                path);
}

/* Hands m to libzip, which frees it also when it refuses. */
static bool add_member(struct writer *w, struct member *m, const char *name, struct error *e) {
    char entry[MAX_NAME + 8];
    snprintf(entry, sizeof entry, "%s.npy", name);
    zip_source_t *source = zip_source_function_create(member_call, m, NULL);
    if (!source) {
        member_free(m);
        return fail_memory(w->path, e);
    }
    zip_int64_t index = zip_file_add(w->zip, entry, source, ZIP_FL_ENC_UTF_8);
    if (index < 0) {
        int code = zip_error_code_zip(zip_get_error(w->zip));
        zip_source_free(source);
        return fail(e, STATUS_ARGUMENT, "%s: %s cannot be added: %s", w->path, name,
                    code == ZIP_ER_EXISTS  ? "another array has that name"
                    : code == ZIP_ER_INVAL ? "its name is not UTF-8"
                                           : zip_strerror(w->zip));
    }
    /* A fixed date, for the same arrays shall give the same bytes. */
    if (zip_set_file_compression(w->zip, (zip_uint64_t)index, ZIP_CM_STORE, 0) != 0 ||
        zip_file_set_dostime(w->zip, (zip_uint64_t)index, 0, DOS_DATE_1980_01_01, 0) != 0) {
        return fail_memory(w->path, e);
    }
    return true;
}

/* Chooses the header that puts m's data at a multiple of 64; *next is where the data ends. */
static bool lay_out(struct member *m, enum dtype dtype, int dims, const uint64_t *shape,
                    uint64_t *next, struct error *e) {
    uint64_t header_at = m->writer->offset + LOCAL_HEADER_BYTES + strlen(m->name) + strlen(".npy");
    bool sound = m->writer->offset != UINT32_MAX;
    m->header_bytes = npy_header(m->header, dtype, dims, shape, header_at);
    if (m->header_bytes + m->data_bytes >= UINT32_MAX) {
        header_at += ZIP64_EXTRA_BYTES;
        m->header_bytes = npy_header(m->header, dtype, dims, shape, header_at);
        sound = sound && m->header_bytes + m->data_bytes > UINT32_MAX;
    }
    *next = header_at + m->header_bytes + m->data_bytes;
    if (sound) return true;
    /* libzip 1.7 forgets the zip64 field's contents for a value of exactly 2^32 - 1. */
    return fail(e, STATUS_ARGUMENT,
                "%s: %s would begin or end where libzip writes a broken header; write the arrays "
                "in another order",
                m->writer->path, m->name);
}

static struct member *new_member(struct writer *w, const char *name, write_produce *produce,
                                 void *arg) {
    struct member *m = calloc(1, sizeof *m);
    if (!m) return NULL;
    *m = (struct member){.writer = w, .name = strdup(name), .produce = produce, .arg = arg};
    zip_error_init(&m->error);
    if (m->name) return m;
    member_free(m);
    return NULL;
}

bool write_array(struct writer *w, const char *name, enum dtype dtype, int dims,
                 const uint64_t *shape, write_produce *produce, void *arg, struct error *e) {
    size_t data_bytes;
    uint64_t next;
    if (name[0] == 0 || strlen(name) > MAX_NAME) {
        return fail(e, STATUS_ARGUMENT, "%s: an array's name has 1 to %d bytes", w->path, MAX_NAME);
    }
    if (!check_shape(w->path, name, dtype, dims, shape, &data_bytes, e)) return false;
    struct member *m = new_member(w, name, produce, arg);
    if (!m) return fail_memory(w->path, e);
    m->data_bytes = data_bytes;
    if (!lay_out(m, dtype, dims, shape, &next, e)) {
        member_free(m);
        return false;
    }
    if (!add_member(w, m, name, e)) return false;
    w->offset = next;
    w->count++;
    return true;
}

/* zip_close has failed: produce's own error stands, otherwise libzip's is put into words. */
static bool fail_close(struct writer *w, struct error *e) {
    zip_error_t *why = zip_get_error(w->zip);
    if (w->produce_failed) return false;
    if (zip_error_system_type(why) == ZIP_ET_SYS && zip_error_code_system(why) != 0) {
        return fail_write(w->path, zip_error_code_system(why), e);
    }
    return fail(e, STATUS_FILE, "%s cannot be written: %s", w->path, zip_error_strerror(why));
}

bool write_commit(struct writer *w, struct error *e) {
    bool ok = false;
    w->error = e;
    if (w->count == 0) {
        fail(e, STATUS_ARGUMENT, "%s: there are no arrays to write", w->path);
    } else if (zip_close(w->zip) != 0) {
        fail_close(w, e);
    } else {
        w->zip = NULL; /* zip_close has freed it */
        ok = true;
    }
    write_discard(w);
    return ok;
}

void write_discard(struct writer *w) {
    if (!w) return;
    if (w->zip) zip_discard(w->zip);
    free(w->path);
    free(w);
}

/* ---- files of their own ---- */

static bool write_all(int fd, struct span bytes) {
    while (bytes.size) {
        ssize_t n = write(fd, bytes.data, bytes.size);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return false;
        bytes.data += n;
        bytes.size -= (size_t)n;
    }
    return true;
}

/* A name beside path that is free; *temporary is malloc'd, also on failure. */
static int open_temporary(const char *path, char **temporary) {
    for (int i = 0; i < 100; i++) {
        free(*temporary);
        if (asprintf(temporary, "%s.%ld.%d", path, (long)getpid(), i) < 0) {
            *temporary = NULL;
            errno = ENOMEM;
            return -1;
        }
        int fd = open(*temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        if (fd >= 0 || errno != EEXIST) return fd;
    }
    return -1;
}

/* Opens what is to be written: path itself if it exists and is no regular file, else a temporary
 * file. Returns -1 with errno set on failure. */
static int open_output(const char *path, char **temporary) {
    struct stat st;
    if (lstat(path, &st) != 0 || S_ISREG(st.st_mode)) return open_temporary(path, temporary);
    return open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
}

static bool write_parts(const char *path, struct span head, struct span bytes, struct error *e) {
    char *temporary = NULL;
    int fd = open_output(path, &temporary);
    bool opened = fd >= 0;
    bool ok = opened && write_all(fd, head) && write_all(fd, bytes);
    if (!ok) fail_write(path, errno, e);
    if (opened && close(fd) != 0 && ok) ok = fail_write(path, errno, e);
    if (ok && temporary && rename(temporary, path) != 0) ok = fail_write(path, errno, e);
    if (!ok && opened && temporary) unlink(temporary);
    free(temporary);
    return ok;
}

bool write_npy(const char *path, enum dtype dtype, int dims, const uint64_t *shape,
               struct span bytes, struct error *e) {
    unsigned char header[NPY_MAX_HEADER];
    size_t needed;
    if (!check_shape(path, "the array", dtype, dims, shape, &needed, e)) return false;
    if (!check_size(path, "the array", bytes.size, needed, e)) return false;
    struct span head = {header, npy_header(header, dtype, dims, shape, 0)};
    return write_parts(path, head, bytes, e);
}

bool write_file(const char *path, struct span bytes, struct error *e) {
    return write_parts(path, (struct span){0}, bytes, e);
}
