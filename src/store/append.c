#include "store/append.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zip.h>

#include "store/names.h"
#include "store/npy.h"
#include "store/write.h"

/* What comes behind the members that stay is collected in memory: the new one and the directory.
 * More than this would mean that arrays follow the member that is replaced. */
enum {
    MAX_TAIL = 256 << 20,
    MAX_NAME = 64,
    LOCAL_HEADER_BYTES = 30,
    DOS_DATE_1980_01_01 = 1 << 5 | 1
};

/* What libzip reads the archive through, and writes its new end to. */
struct archive {
    int fd;
    uint64_t size, at;
    uint64_t keep;  /* bytes at the front that stay */
    bool rehearsal; /* to learn where they end: nothing is written */
    unsigned char *tail;
    size_t tail_bytes, tail_at, capacity;
    zip_error_t error;
};

static zip_int64_t fail_system(struct archive *a, int code) {
    zip_error_set(&a->error, code, errno);
    return -1;
}

static zip_int64_t archive_read(struct archive *a, void *out, uint64_t size) {
    ssize_t n = pread(a->fd, out, (size_t)size, (off_t)a->at);
    if (n < 0) return fail_system(a, ZIP_ER_READ);
    a->at += (uint64_t)n;
    return n;
}

static zip_int64_t archive_seek(struct archive *a, void *args, uint64_t size) {
    zip_int64_t to = zip_source_seek_compute_offset(a->at, a->size, args, size, &a->error);
    if (to >= 0) a->at = (uint64_t)to;
    return to < 0 ? -1 : 0;
}

static zip_int64_t archive_stat(const struct archive *a, void *out) {
    zip_stat_t *st = out;
    zip_stat_init(st);
    st->size = a->size;
    st->valid = ZIP_STAT_SIZE;
    return (zip_int64_t)sizeof *st;
}

static zip_int64_t tail_write(struct archive *a, const void *bytes, uint64_t size) {
    if (size > MAX_TAIL - a->tail_at) {
        errno = EFBIG;
        return fail_system(a, ZIP_ER_WRITE);
    }
    size_t end = a->tail_at + (size_t)size;
    if (end > a->capacity) {
        unsigned char *more = realloc(a->tail, 2 * end);
        if (!more) return fail_system(a, ZIP_ER_MEMORY);
        a->tail = more;
        a->capacity = 2 * end;
    }
    memcpy(a->tail + a->tail_at, bytes, (size_t)size);
    a->tail_at = end;
    if (end > a->tail_bytes) a->tail_bytes = end;
    return (zip_int64_t)size;
}

static zip_int64_t tail_seek(struct archive *a, void *args, uint64_t size) {
    zip_int64_t to = zip_source_seek_compute_offset(a->keep + a->tail_at, a->keep + a->tail_bytes,
                                                    args, size, &a->error);
    if (to < 0) return -1;
    if ((uint64_t)to < a->keep) {
        zip_error_set(&a->error, ZIP_ER_INVAL, 0);
        return -1;
    }
    a->tail_at = (size_t)((uint64_t)to - a->keep);
    return 0;
}

/* Room on the disk is made first: nothing is changed if there is none. */
static zip_int64_t tail_commit(struct archive *a) {
    if (a->rehearsal) return 0;
    uint64_t end = a->keep + a->tail_bytes;
    int code = posix_fallocate(a->fd, (off_t)a->keep, (off_t)a->tail_bytes);
    if (code != 0) {
        if (ftruncate(a->fd, (off_t)a->size) == 0) errno = code;
        return fail_system(a, ZIP_ER_WRITE);
    }
    for (size_t done = 0; done < a->tail_bytes;) {
        ssize_t n = pwrite(a->fd, a->tail + done, a->tail_bytes - done, (off_t)(a->keep + done));
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return fail_system(a, ZIP_ER_WRITE);
        done += (size_t)n;
    }
    return ftruncate(a->fd, (off_t)end) == 0 ? 0 : fail_system(a, ZIP_ER_WRITE);
}

static zip_int64_t archive_supports(void) {
    return zip_source_make_command_bitmap(
        ZIP_SOURCE_OPEN, ZIP_SOURCE_READ, ZIP_SOURCE_CLOSE, ZIP_SOURCE_STAT, ZIP_SOURCE_ERROR,
        ZIP_SOURCE_FREE, ZIP_SOURCE_SEEK, ZIP_SOURCE_TELL, ZIP_SOURCE_SUPPORTS,
        ZIP_SOURCE_BEGIN_WRITE, ZIP_SOURCE_BEGIN_WRITE_CLONING, ZIP_SOURCE_COMMIT_WRITE,
        ZIP_SOURCE_ROLLBACK_WRITE, ZIP_SOURCE_SEEK_WRITE, ZIP_SOURCE_TELL_WRITE, ZIP_SOURCE_WRITE,
        ZIP_SOURCE_REMOVE, -1);
}

static zip_int64_t archive_call(void *state, void *data, zip_uint64_t size, zip_source_cmd_t cmd) {
    struct archive *a = state;
    switch (cmd) {
    case ZIP_SOURCE_OPEN: a->at = 0; return 0;
    case ZIP_SOURCE_READ: return archive_read(a, data, size);
    case ZIP_SOURCE_SEEK: return archive_seek(a, data, size);
    case ZIP_SOURCE_TELL: return (zip_int64_t)a->at;
    case ZIP_SOURCE_STAT: return archive_stat(a, data);
    case ZIP_SOURCE_ERROR: return zip_error_to_data(&a->error, data, size);
    case ZIP_SOURCE_SUPPORTS: return archive_supports();
    case ZIP_SOURCE_BEGIN_WRITE_CLONING:
        a->keep = size;
        a->tail_bytes = a->tail_at = 0;
        return 0;
    case ZIP_SOURCE_WRITE: return tail_write(a, data, size);
    case ZIP_SOURCE_SEEK_WRITE: return tail_seek(a, data, size);
    case ZIP_SOURCE_TELL_WRITE: return (zip_int64_t)(a->keep + a->tail_at);
    case ZIP_SOURCE_COMMIT_WRITE: return tail_commit(a);
    case ZIP_SOURCE_ROLLBACK_WRITE:
    case ZIP_SOURCE_CLOSE:
    case ZIP_SOURCE_FREE: return 0;
    default: zip_error_set(&a->error, ZIP_ER_OPNOTSUPP, 0); return -1; /* to write all of it */
    }
}

static bool fail_zip(const char *path, const zip_error_t *why, struct error *e) {
    bool system = zip_error_system_type(why) == ZIP_ET_SYS && zip_error_code_system(why) != 0;
    return fail(e, STATUS_FILE, "%s cannot be added to: %s", path,
                system ? strerror(zip_error_code_system(why))
                       : zip_error_strerror((zip_error_t *)why));
}

/* Declares the member, whose bytes are borrowed until the archive is closed. */
static bool add(zip_t *zip, const char *name, unsigned char *bytes, size_t size) {
    char entry[MAX_NAME];
    snprintf(entry, sizeof entry, "%s.npy", name);
    zip_int64_t plain = zip_name_locate(zip, name, 0);
    if (plain >= 0 && zip_delete(zip, (zip_uint64_t)plain) != 0) return false;
    zip_source_t *source = zip_source_buffer(zip, bytes, size, 0);
    if (!source) return false;
    zip_int64_t index = zip_file_add(zip, entry, source, ZIP_FL_OVERWRITE | ZIP_FL_ENC_UTF_8);
    if (index < 0) zip_source_free(source);
    return index >= 0 && zip_set_file_compression(zip, (zip_uint64_t)index, ZIP_CM_STORE, 0) == 0 &&
           zip_file_set_dostime(zip, (zip_uint64_t)index, 0, DOS_DATE_1980_01_01, 0) == 0;
}

/* member: a whole .npy file in memory. */
static bool add_to(struct archive *a, const char *path, const char *name, struct span member,
                   struct error *e) {
    zip_error_t why;
    zip_t *zip = NULL;
    zip_error_init(&why);
    zip_source_t *source = zip_source_function_create(archive_call, a, &why);
    if (source) zip = zip_open_from_source(source, 0, &why);
    bool ok = zip != NULL;
    if (!ok) {
        fail_zip(path, &why, e);
        zip_source_free(source);
    } else if (!add(zip, name, (unsigned char *)member.data, member.size) || zip_close(zip) != 0) {
        ok = fail_zip(path, zip_get_error(zip), e);
        zip_discard(zip);
    }
    zip_error_fini(&why);
    return ok;
}

/* Twice: where the member will lie, and so how long its header must be for aligned data, is known
 * after the first time. */
static bool add_array(struct archive *a, const char *path, const char *name, struct span bytes,
                      unsigned char *member, struct error *e) {
    uint64_t length = bytes.size, at = 0;
    for (int round = 0; round < 2; round++) {
        size_t header = npy_header(member, DTYPE_U8, 1, &length, at);
        memcpy(member + header, bytes.data, bytes.size);
        a->rehearsal = round == 0;
        if (!add_to(a, path, name, (struct span){member, header + bytes.size}, e)) return false;
        at = a->keep + LOCAL_HEADER_BYTES + strlen(name) + strlen(".npy");
    }
    return true;
}

static bool append_member(const char *path, const char *name, struct span bytes, struct error *e) {
    struct archive a = {.fd = open(path, O_RDWR | O_CLOEXEC | O_NONBLOCK)};
    struct stat st;
    unsigned char *member = malloc(NPY_MAX_HEADER + bytes.size);
    zip_error_init(&a.error);
    bool ok = a.fd >= 0 && fstat(a.fd, &st) == 0 && S_ISREG(st.st_mode);
    if (!ok)
        fail(e, STATUS_FILE, "%s cannot be added to: %s", path,
             a.fd < 0 ? strerror(errno) : "it is not a regular file");
    else if (!member)
        ok = fail(e, STATUS_MEMORY, "%s: no memory to add %s", path, name);
    if (ok && member) {
        a.size = (uint64_t)st.st_size;
        ok = add_array(&a, path, name, bytes, member, e);
    }
    if (a.fd >= 0 && close(a.fd) != 0 && ok)
        ok = fail(e, STATUS_FILE, "%s cannot be added to: %s", path, strerror(errno));
    zip_error_fini(&a.error);
    free(a.tail);
    free(member);
    return ok;
}

static bool write_beside(const char *folder, const char *name, struct span bytes, struct error *e) {
    char *path = names_join(folder, name);
    if (!path) return fail(e, STATUS_MEMORY, "%s: no memory for its name", name);
    bool ok = write_file(path, bytes, e);
    free(path);
    return ok;
}

bool append_file(const char *path, const char *name, struct span bytes, struct error *e) {
    struct stat st;
    if (stat(path, &st) != 0)
        return fail(e, STATUS_FILE, "%s cannot be opened: %s", path, strerror(errno));
    if (S_ISDIR(st.st_mode)) return write_beside(path, name, bytes, e);
    if (!names_end(path, ".safetensors")) return append_member(path, name, bytes, e);
    const char *slash = strrchr(path, '/');
    char *folder = strndup(path, slash ? (size_t)(slash + 1 - path) : 0);
    if (!folder) return fail(e, STATUS_MEMORY, "%s: no memory for its name", path);
    bool ok = write_beside(folder, name, bytes, e);
    free(folder);
    return ok;
}
