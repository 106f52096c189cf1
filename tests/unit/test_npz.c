/* npz.h: archives of numpy, archives made here byte by byte, and damaged ones. */
#include "store/npz.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "check.h"
#include "scratch.h"

/* ---- an archive, byte by byte, right or wrong as a test wants it ---- */

enum { STORED = 0, DEFLATED = 8, FLAG_ENCRYPTED = 1, FLAG_DESCRIPTOR = 8 };

struct bytes {
    unsigned char data[1 << 16];
    size_t size;
};

struct part {
    const char *name;
    const void *data; /* as it lies in the file */
    size_t packed;    /* its bytes in the file */
    /* what the directory says, if it is not the truth */
    unsigned method, flags, crc;
    uint64_t size, comp_size, offset;
    size_t name_bytes;
    bool lies_size, lies_comp, lies_offset, lies_crc, local_zip64;
};

static struct bytes archive, directory;
static unsigned parts;

static void put(struct bytes *b, uint64_t v, int n) {
    for (int i = 0; i < n; i++, v >>= 8) b->data[b->size++] = (unsigned char)v;
}

static void put_data(struct bytes *b, const void *data, size_t n) {
    if (n) memcpy(b->data + b->size, data, n);
    b->size += n;
}

static uint32_t crc32_of(const void *data, size_t n) {
    uint32_t crc = 0xffffffff;
    for (size_t i = 0; i < n; i++) {
        crc ^= ((const unsigned char *)data)[i];
        for (int k = 0; k < 8; k++) crc = crc >> 1 ^ (0xedb88320u & (0u - (crc & 1)));
    }
    return ~crc;
}

static void begin(void) {
    archive.size = directory.size = 0;
    parts = 0;
}

static unsigned low(uint64_t v, bool wide) {
    return wide ? 0xffffffff : (unsigned)v;
}

static void add(struct part p) {
    size_t name_bytes = p.name_bytes ? p.name_bytes : strlen(p.name);
    uint64_t offset = p.lies_offset ? p.offset : archive.size;
    uint64_t comp = p.lies_comp ? p.comp_size : p.packed, size = p.lies_size ? p.size : comp;
    bool wide = size >= 0xffffffff || comp >= 0xffffffff;
    unsigned crc = p.lies_crc ? p.crc : crc32_of(p.data, p.packed);

    put(&archive, 0x04034b50, 4);
    put(&archive, 20, 2);
    put(&archive, p.flags, 2);
    put(&archive, p.method, 2);
    put(&archive, 0x00210000, 4);
    put(&archive, p.local_zip64 ? 0 : crc, 4);
    put(&archive, low(comp, p.local_zip64), 4);
    put(&archive, low(size, p.local_zip64), 4);
    put(&archive, name_bytes, 2);
    put(&archive, p.local_zip64 ? 20 : 0, 2);
    put_data(&archive, p.name, name_bytes);
    if (p.local_zip64) {
        put(&archive, 1, 2);
        put(&archive, 16, 2);
        put(&archive, size, 8);
        put(&archive, comp, 8);
    }
    put_data(&archive, p.data, p.packed);

    put(&directory, 0x02014b50, 4);
    put(&directory, 20 << 16 | 20, 4);
    put(&directory, p.flags, 2);
    put(&directory, p.method, 2);
    put(&directory, 0x00210000, 4);
    put(&directory, crc, 4);
    put(&directory, low(comp, wide), 4);
    put(&directory, low(size, wide), 4);
    put(&directory, name_bytes, 2);
    put(&directory, wide ? 20 : 0, 2);
    put(&directory, 0, 10); /* comment, disk, attributes */
    put(&directory, offset, 4);
    put_data(&directory, p.name, name_bytes);
    if (wide) {
        put(&directory, 1, 2);
        put(&directory, 16, 2);
        put(&directory, size, 8);
        put(&directory, comp, 8);
    }
    parts++;
}

/* The directory and its end record, for an archive whose members end at `start`. */
static void put_end(struct bytes *b, uint64_t start) {
    put_data(b, directory.data, directory.size);
    put(b, 0x06054b50, 4);
    put(b, 0, 4);
    put(b, parts, 2);
    put(b, parts, 2);
    put(b, directory.size, 4);
    put(b, start, 4);
    put(b, 0, 2);
}

static const char *end(void) {
    put_end(&archive, archive.size);
    return scratch_write("t.npz", archive.data, archive.size);
}

static void check_refused(const char *path, enum status status, const char *why) {
    struct npz npz;
    struct error e = {0};
    bool ok = npz_open(&npz, path, &e);
    CHECK_MSG(!ok, "%s was opened, expected: %s", path, why);
    if (ok)
        npz_close(&npz);
    else
        CHECK_MSG(e.status == status && strstr(e.message, why), "%s", e.message);
    CHECK(npz.members == NULL && npz.file.data == NULL && npz.path == NULL);
}

static const struct npz_member *find(const struct npz *npz, const char *name) {
    for (size_t i = 0; i < npz->count; i++) {
        if (strcmp(npz->members[i].name, name) == 0) return &npz->members[i];
    }
    return NULL;
}

static bool holds(const struct npz *npz, const char *name, const void *data, size_t n,
                  bool mapped) {
    const struct npz_member *m = find(npz, name);
    return m && m->bytes.data && m->bytes.size == n && m->mapped == mapped &&
           (n == 0 || memcmp(m->bytes.data, data, n) == 0);
}

/* ---- tests ---- */

static void test_stored(void) {
    struct npz npz;
    struct error e = {0};
    begin();
    add((struct part){.name = "b", .data = "bytes", .packed = 5});
    add((struct part){.name = "a/long name", .data = "zip64", .packed = 5, .local_zip64 = true});
    add((struct part){.name = "descr", .data = "streamed", .packed = 8, .flags = FLAG_DESCRIPTOR});
    put(&archive, 0x08074b50, 4); /* the descriptor itself */
    put(&archive, 0, 12);
    add((struct part){.name = "empty", .data = "", .packed = 0});
    add((struct part){.name = "c", .data = "last", .packed = 4});
    CHECK_MSG(npz_open(&npz, end(), &e), "%s", e.message);
    CHECK(npz.count == 5 && npz.file.size == archive.size);
    CHECK(holds(&npz, "b", "bytes", 5, true));
    CHECK(holds(&npz, "a/long name", "zip64", 5, true));
    CHECK(holds(&npz, "descr", "streamed", 8, true));
    CHECK(holds(&npz, "empty", "", 0, true));
    CHECK(holds(&npz, "c", "last", 4, true));
    for (size_t i = 1; i < npz.count; i++) {
        CHECK(strcmp(npz.members[i - 1].name, npz.members[i].name) < 0);
    }
    npz_close(&npz);
    npz_close(&npz); /* all zero now */

    begin();
    CHECK(npz_open(&npz, end(), &e) && npz.count == 0); /* no members is an archive too */
    npz_close(&npz);
}

/* Deflate streams of one block that is not compressed: 1, length, its complement, bytes. */
#define BLOCK5 "\x01\x05\x00\xfa\xff"
#define CRC_HELLO 0x3610a686u /* of "hello" */

static const char *deflated(const char *stream, size_t packed, uint64_t size, unsigned crc) {
    begin();
    add((struct part){.name = "first", .data = "x", .packed = 1});
    add((struct part){.name = "w",
                      .data = stream,
                      .packed = packed,
                      .method = DEFLATED,
                      .size = size,
                      .lies_size = true,
                      .crc = crc,
                      .lies_crc = true});
    return end();
}

static void test_deflated(void) {
    struct npz npz;
    struct error e = {0};
    CHECK(crc32_of("hello", 5) == CRC_HELLO);
    CHECK_MSG(npz_open(&npz, deflated(BLOCK5 "hello", 10, 5, CRC_HELLO), &e), "%s", e.message);
    CHECK(holds(&npz, "w", "hello", 5, false) && holds(&npz, "first", "x", 1, true));
    npz_close(&npz);
    CHECK(npz_open(&npz, deflated("\x03\x00", 2, 0, 0), &e) && holds(&npz, "w", "", 0, false));
    npz_close(&npz);

    check_refused(deflated(BLOCK5 "hello", 10, 5, CRC_HELLO + 1), STATUS_FORMAT, "CRC");
    check_refused(deflated(BLOCK5 "hello", 10, 4, CRC_HELLO), STATUS_FORMAT, "w is damaged");
    check_refused(deflated(BLOCK5 "hello", 10, 1, CRC_HELLO), STATUS_FORMAT, "w is damaged");
    check_refused(deflated(BLOCK5 "hello", 10, 0, CRC_HELLO), STATUS_FORMAT, "w is damaged");
    check_refused(deflated(BLOCK5 "hello", 10, 6, CRC_HELLO), STATUS_FORMAT, "w is damaged");
    check_refused(deflated(BLOCK5 "hello", 10, 4000000, CRC_HELLO), STATUS_FORMAT, "w is damaged");
    check_refused(deflated(BLOCK5 "hell", 9, 5, CRC_HELLO), STATUS_FORMAT, "w is damaged");
    check_refused(deflated("\xff\xff\xff\xff\xff", 5, 5, CRC_HELLO), STATUS_FORMAT, "w is damaged");
    check_refused(deflated("", 0, 5, CRC_HELLO), STATUS_FORMAT, "w is damaged");
    /* A bomb is refused by what it declares, before any memory is taken for it. */
    check_refused(deflated(BLOCK5 "hello", 10, 1ull << 30, CRC_HELLO), STATUS_FORMAT,
                  "claims to inflate from 10 to 1073741824 bytes");
    check_refused(deflated(BLOCK5 "hello", 10, UINT64_MAX, CRC_HELLO), STATUS_FORMAT, "claims");
}

/* A ratio that could be true, of more memory than there is: 4 TiB out of a hole of 5 GB. */
static void test_too_large(void) {
    uint64_t hole = 5ull << 30;
    begin();
    add((struct part){.name = "w",
                      .data = "",
                      .method = DEFLATED,
                      .comp_size = hole,
                      .lies_comp = true,
                      .size = hole * 900,
                      .lies_size = true});
    static struct bytes tail;
    uint64_t start = archive.size + hole;
    put_data(&tail, directory.data, directory.size);
    put(&tail, 0x06064b50,
        4); /* zip64 end record and its locator, for the directory lies beyond 4 GiB */
    put(&tail, 44, 8);
    put(&tail, 45 << 16 | 45, 4);
    put(&tail, 0, 8);
    put(&tail, 1, 8);
    put(&tail, 1, 8);
    put(&tail, directory.size, 8);
    put(&tail, start, 8);
    put(&tail, 0x07064b50, 4);
    put(&tail, 0, 4);
    put(&tail, start + directory.size, 8);
    put(&tail, 1, 4);
    put(&tail, 0x06054b50, 4);
    put(&tail, 0, 4);
    put(&tail, 1 << 16 | 1, 4);
    put(&tail, 0xffffffffffffffff, 8);
    put(&tail, 0, 2);
    const char *path = scratch_write("t.npz", archive.data, archive.size);
    FILE *f = fopen(path, "ab");
    bool ok = f && ftruncate(fileno(f), (off_t)start) == 0 && fseek(f, 0, SEEK_END) == 0 &&
              fwrite(tail.data, 1, tail.size, f) == tail.size;
    if (f && fclose(f) != 0) ok = false;
    if (ok)
        check_refused(path, STATUS_MEMORY, "w inflates to 4831838208000 bytes");
    else
        printf("skipped: no room for a file with a hole of 5 GB\n");
    unlink(path);
}

static void test_refused_members(void) {
    begin();
    add((struct part){.name = "secret",
                      .data = "0123456789abcdef",
                      .packed = 16,
                      .flags = FLAG_ENCRYPTED,
                      .size = 4,
                      .lies_size = true});
    check_refused(end(), STATUS_FORMAT, "secret is encrypted");
    begin();
    add((struct part){.name = "w", .data = "abc", .packed = 3, .method = 12});
    check_refused(end(), STATUS_FORMAT, "w is compressed with zip method 12");
    begin();
    add((struct part){.name = "w", .data = "abc", .packed = 3, .size = 4, .lies_size = true});
    check_refused(end(), STATUS_FORMAT, "two different sizes");
    begin();
    add((struct part){.name = "w", .data = "", .packed = 0, .size = 4, .lies_size = true});
    check_refused(end(), STATUS_FORMAT, "two different sizes");
    begin();
    add((struct part){.name = "w", .data = "abc", .packed = 3});
    add((struct part){.name = "v", .data = "abc", .packed = 3});
    add((struct part){.name = "w", .data = "abc", .packed = 3});
    check_refused(end(), STATUS_FORMAT, "holds w twice");
}

static void test_positions(void) {
    struct part p = {.name = "w", .data = "abc", .packed = 3, .lies_offset = true};
    for (p.offset = 1; p.offset < 1 << 20; p.offset += p.offset < 256 ? 1 : 99991) {
        struct npz npz;
        struct error e = {0};
        begin();
        add(p);
        if (!npz_open(&npz, end(), &e)) {
            CHECK_MSG(strstr(e.message, "w is damaged"), "%s", e.message);
            continue;
        }
        const struct npz_member *m = &npz.members[0];
        CHECK(m->bytes.data >= npz.file.data && m->bytes.size == 3);
        CHECK((size_t)(m->bytes.data - npz.file.data) + m->bytes.size <= npz.file.size);
        npz_close(&npz);
    }
    begin();
    add((struct part){
        .name = "w", .data = "abc", .packed = 3, .comp_size = 100, .lies_comp = true});
    check_refused(end(), STATUS_FORMAT, "outside the file");
    begin();
    add((struct part){
        .name = "w", .data = "abc", .packed = 3, .comp_size = 5000, .lies_comp = true});
    check_refused(end(), STATUS_FORMAT, "larger than its place");
    begin();
    add((struct part){
        .name = "w", .data = "abc", .packed = 3, .comp_size = UINT64_MAX, .lies_comp = true});
    check_refused(end(), STATUS_FORMAT, "larger than its place");
}

/* Ten members of the same bytes: a few more, deflated, would make a file of any size. */
static void test_shared_bytes(void) {
    static char data[2000];
    begin();
    for (int i = 0; i < 10; i++) {
        char name[2] = {(char)('a' + i), 0};
        add((struct part){.name = name,
                          .data = data,
                          .packed = i ? 0 : sizeof data,
                          .offset = 0,
                          .lies_offset = true,
                          .comp_size = sizeof data,
                          .lies_comp = true});
    }
    check_refused(end(), STATUS_FORMAT, "larger than its place");
}

static void test_names(void) {
    struct npz npz;
    struct error e = {0};
    char names[] = "with\0nul ../../etc/passwd \x1b[31m";
    begin();
    add((struct part){.name = names, .name_bytes = 8, .data = "1", .packed = 1});
    add((struct part){.name = names + 9, .name_bytes = 16, .data = "2", .packed = 1});
    add((struct part){.name = "\xff\xfe", .data = "3", .packed = 1});
    add((struct part){.name = "\x1b[31m", .data = "4", .packed = 1});
    add((struct part){.name = "", .data = "5", .packed = 1});
    CHECK_MSG(npz_open(&npz, end(), &e), "%s", e.message);
    CHECK(npz.count == 5 && holds(&npz, "with nul", "1", 1, true) && holds(&npz, "", "5", 1, true));
    CHECK(holds(&npz, "../../etc/passwd", "2", 1, true) && holds(&npz, "\xff\xfe", "3", 1, true));
    npz_close(&npz);

    begin();
    add((struct part){.name = names, .name_bytes = 8, .data = "1", .packed = 1});
    add((struct part){.name = "with nul", .data = "2", .packed = 1});
    check_refused(end(), STATUS_FORMAT, "holds with nul twice");
    begin();
    add((struct part){.name = "\x1b[31m", .data = "4", .packed = 1, .method = 77});
    check_refused(end(), STATUS_FORMAT, "?[31m is compressed with zip method 77");

    char *lengthy = malloc(60000);
    memset(lengthy, 'n', 60000);
    begin();
    add((struct part){.name = lengthy, .name_bytes = 20000, .data = "1", .packed = 1});
    check_refused(end(), STATUS_FORMAT, "without a usable name");
    free(lengthy);
}

static void test_other_files(void) {
    static const struct {
        const char *text;
        enum status status;
        const char *why;
    } cases[] = {
        {"", STATUS_FORMAT, "is empty"},
        {"P", STATUS_FORMAT, "is not a zip archive"},
        {"hello, this is a text\n", STATUS_FORMAT, "is not a zip archive"},
        {"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", STATUS_FORMAT,
         "git lfs pull"},
        {"<!DOCTYPE html><html><body>404 this is not the file that you want</body>", STATUS_FORMAT,
         "web page"},
        {"PK\x03\x04 and then nothing of what a directory would hold", STATUS_FORMAT, "cut short"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        check_refused(scratch_text("t.npz", cases[i].text), cases[i].status, cases[i].why);
    }
    check_refused(scratch_path("nowhere.npz"), STATUS_FILE, "nowhere.npz cannot be opened");
    check_refused(scratch_folder, STATUS_FILE, "is not a regular file");
    CHECK(mkfifo(scratch_path("fifo"), 0600) == 0);
    check_refused(scratch_path("fifo"), STATUS_FILE, "is not a regular file");
}

static const char make_numpy[] =
    "a = {'w': np.arange(600, dtype='f4').reshape(20, 30), 'deep.name.b': np.arange(7, "
    "dtype='u1'),\n"
    "     'zeros': np.zeros((50, 50), 'f2'), 'none': np.zeros((0, 3), 'f4'), 's': np.float32(3)}\n"
    "np.savez('plain.npz', **a)\n"
    "np.savez_compressed('packed.npz', **a)\n"
    "np.savez('small.npz', w=np.arange(3, dtype='u1'), v=np.zeros(0))\n"
    "np.savez_compressed('small-packed.npz', w=np.arange(3, dtype='u1'), v=np.zeros(0))\n";

static void test_numpy(void) {
    static const char *const files[] = {"plain.npz", "packed.npz"};
    CHECK(scratch_python(make_numpy));
    for (int i = 0; i < 2; i++) {
        struct npz npz;
        struct error e = {0};
        float w[600];
        CHECK_MSG(npz_open(&npz, scratch_path(files[i]), &e), "%s", e.message);
        CHECK(npz.count == 5);
        const struct npz_member *m = find(&npz, "w.npy"), *none = find(&npz, "none.npy");
        CHECK(m && m->mapped == (i == 0) && m->bytes.size > sizeof w);
        CHECK(none && none->bytes.size == 128);
        memcpy(w, m->bytes.data + m->bytes.size - sizeof w, sizeof w);
        for (int k = 0; k < 600; k++) CHECK(w[k] == (float)k);
        npz_close(&npz);
    }
}

/* Reads every byte that npz_open hands out: a sanitizer sees what lies outside. */
static unsigned touch(const struct npz *npz) {
    unsigned sum = 0;
    for (size_t i = 0; i < npz->count; i++) {
        struct span b = npz->members[i].bytes;
        for (size_t k = 0; k < b.size; k++) sum += b.data[k];
    }
    return sum;
}

static void test_cut(void) {
    static const char *const files[] = {"small.npz", "small-packed.npz"};
    for (int i = 0; i < 2; i++) {
        size_t size = 0;
        unsigned char *whole = scratch_read(files[i], &size);
        CHECK_MSG(size > 300 && size < 3000, "%zu", size);
        for (size_t n = 0; n < size; n++) {
            check_refused(scratch_write("cut.npz", whole, n), STATUS_FORMAT,
                          n == 0  ? "is empty"
                          : n < 4 ? "is not a zip"
                                  : "cut short");
        }
        free(whole);
    }
}

static void test_changed(void) {
    static const char *const files[] = {"small.npz", "small-packed.npz"};
    static const unsigned char masks[] = {0x01, 0x80, 0xff, 0x08};
    unsigned opened = 0, sum = 0;
    for (int i = 0; i < 2; i++) {
        size_t size = 0;
        unsigned char *p = scratch_read(files[i], &size);
        for (size_t at = 0; at < size; at++) {
            for (size_t k = 0; k < sizeof masks; k++) {
                struct npz npz;
                struct error e = {0};
                p[at] ^= masks[k];
                if (npz_open(&npz, scratch_write("changed.npz", p, size), &e)) {
                    opened++;
                    sum += touch(&npz);
                    npz_close(&npz);
                } else {
                    CHECK(e.message[0] != 0);
                }
                p[at] ^= masks[k];
            }
        }
        free(p);
    }
    CHECK(opened > 0 && sum > 0);
}

int main(void) {
    scratch_open();
    check_run("npz: stored members", test_stored);
    check_run("npz: deflated members", test_deflated);
    check_run("npz: inflating beyond memory", test_too_large);
    check_run("npz: members that are refused", test_refused_members);
    check_run("npz: positions and sizes outside", test_positions);
    check_run("npz: members that share bytes", test_shared_bytes);
    check_run("npz: names", test_names);
    check_run("npz: files that are no archives", test_other_files);
    check_run("npz: files of numpy", test_numpy);
    check_run("npz: cut at every byte", test_cut);
    check_run("npz: every byte changed", test_changed);
    return check_done();
}
