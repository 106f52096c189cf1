/* write.h: what is written is read back by nibble and by numpy; what fails leaves nothing. */
#include "store/write.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "check.h"
#include "scratch.h"
#include "store/npz.h"
#include "store/store.h"

/* An array whose bytes count upwards from `first`, and how often it was asked for. */
struct source {
    unsigned char first;
    size_t size;
    const char *refusal; /* what produce fails with, or NULL */
    int calls, order;
    unsigned char *data;
};

static int produced; /* over all sources of a test: their order */

static bool produce(void *arg, struct span *bytes, struct error *e) {
    struct source *s = arg;
    s->calls++;
    s->order = produced++;
    if (s->refusal) return fail(e, STATUS_INTERRUPTED, "%s", s->refusal);
    free(s->data);
    s->data = malloc(s->size + (s->size == 0));
    for (size_t i = 0; i < s->size; i++) s->data[i] = (unsigned char)(s->first + i);
    *bytes = (struct span){s->data, s->size};
    return true;
}

static struct writer *open_writer(const char *path) {
    struct writer *w = NULL;
    struct error e = {0};
    CHECK_MSG(write_open(&w, path, &e), "%s", e.message);
    return w;
}

static bool add(struct writer *w, const char *name, enum dtype dtype, int dims,
                const uint64_t *shape, struct source *s, struct error *e) {
    return write_array(w, name, dtype, dims, shape, produce, s, e);
}

enum { ARRAYS = 5 };

static const struct {
    const char *name;
    enum dtype dtype;
    int dims;
    uint64_t shape[3];
    size_t bytes;
} arrays[ARRAYS] = {
    {"layers.0.wq.weight", DTYPE_F16, 2, {33, 7}, 462},
    {"norm", DTYPE_F32, 1, {9}, 36},
    {"empty", DTYPE_U32, 2, {0, 4}, 0},
    {"sc\xc3\xa4lar", DTYPE_I8, 0, {0}, 1},
    {"config.json", DTYPE_U8, 1, {20001}, 20001},
};

/* Writes the five arrays; produce calls are checked. */
static void write_all(const char *path) {
    struct source sources[ARRAYS] = {0};
    struct error e = {0};
    struct writer *w = open_writer(path);
    produced = 0;
    for (int i = 0; i < ARRAYS; i++) {
        sources[i].first = (unsigned char)(i * 40);
        sources[i].size = arrays[i].bytes;
        CHECK_MSG(add(w, arrays[i].name, arrays[i].dtype, arrays[i].dims, arrays[i].shape,
                      &sources[i], &e),
                  "%s", e.message);
    }
    CHECK(produced == 0);
    CHECK_MSG(write_commit(w, &e), "%s", e.message);
    for (int i = 0; i < ARRAYS; i++) {
        CHECK(sources[i].calls == 1 && sources[i].order == i);
        free(sources[i].data);
    }
}

static void test_read_back(void) {
    struct store store;
    struct npz npz;
    struct error e = {0};
    CHECK(mkdir(scratch_path("d"), 0755) == 0);
    write_all(scratch_path("d/a.npz"));
    CHECK(scratch_entries("d") == 1);
    CHECK_MSG(store_open(&store, scratch_path("d/a.npz"), &e), "%s", e.message);
    CHECK(store.count == ARRAYS - 1 && store_file(&store, "config.json").size == 20001);
    for (int i = 0; i < ARRAYS - 1; i++) {
        const struct array *a = store_find(&store, arrays[i].name);
        CHECK(a && a->dtype == arrays[i].dtype && a->dims == arrays[i].dims && a->mapped);
        CHECK(a && memcmp(a->shape, arrays[i].shape, (size_t)a->dims * 8) == 0);
        CHECK(a && a->bytes.size == arrays[i].bytes);
        for (size_t k = 0; a && k < a->bytes.size; k++) {
            CHECK(a->bytes.data[k] == (unsigned char)(i * 40 + (int)k));
        }
        CHECK(a && (uintptr_t)a->bytes.data % 64 == 0); /* as the mapping begins at a page */
    }
    CHECK((uintptr_t)store_file(&store, "config.json").data % 64 == 0);
    store_close(&store);

    CHECK(npz_open(&npz, scratch_path("d/a.npz"), &e) && npz.count == ARRAYS);
    npz_close(&npz);
}

static void test_numpy_reads(void) {
    write_all(scratch_path("a.npz"));
    CHECK(scratch_python(
        "z = np.load('a.npz')\n"
        "assert z.files == ['layers.0.wq.weight', 'norm', 'empty', 'sc\\u00e4lar', 'config.json']\n"
        "def same(name, i, dtype, shape):\n"
        "    a = z[name]\n"
        "    assert a.dtype == dtype and a.shape == shape, (name, a.dtype, a.shape)\n"
        "    b = np.frombuffer(a.tobytes(), 'u1')\n"
        "    assert (b == (i * 40 + np.arange(len(b))) % 256).all(), name\n"
        "same('layers.0.wq.weight', 0, 'f2', (33, 7))\n"
        "same('norm', 1, 'f4', (9,))\n"
        "same('empty', 2, 'u4', (0, 4))\n"
        "same('sc\\u00e4lar', 3, 'i1', ())\n"
        "same('config.json', 4, 'u1', (20001,))\n"
        "f = zipfile.ZipFile('a.npz')\n"
        "assert f.testzip() is None\n"
        "raw = open('a.npz', 'rb').read()\n"
        "for i in f.infolist():\n"
        "    name, extra = struct.unpack('<HH', raw[i.header_offset + 26:i.header_offset + 30])\n"
        "    assert i.compress_type == 0 and extra == 0 and not i.flag_bits & 8, i\n"
        "    assert i.date_time == (1980, 1, 1, 0, 0, 0), i\n"
        "    npy = i.header_offset + 30 + name\n"
        "    data = npy + 10 + struct.unpack('<H', raw[npy + 8:npy + 10])[0]\n"
        "    assert data % 64 == 0, i\n"));
}

/* The same arrays, the same bytes: also at another time and in another time zone. */
static void test_deterministic(void) {
    size_t n[2] = {0};
    unsigned char *data[2];
    for (int i = 0; i < 2; i++) {
        setenv("TZ", i ? "Asia/Tokyo" : "America/New_York", 1);
        write_all(scratch_path(i ? "a.npz" : "b.npz"));
        data[i] = scratch_read(i ? "a.npz" : "b.npz", &n[i]);
    }
    unsetenv("TZ");
    CHECK(n[0] == n[1] && memcmp(data[0], data[1], n[0]) == 0);
    free(data[0]);
    free(data[1]);
}

/* Every alignment of what comes before, through names of every length. */
static void test_alignment(void) {
    struct source s = {.size = 3};
    struct store store;
    struct error e = {0};
    struct writer *w = open_writer(scratch_path("a.npz"));
    for (int i = 1; i <= 200; i++) {
        char name[256] = {0};
        memset(name, 'n', (size_t)i);
        CHECK(add(w, name, DTYPE_U8, 1, (uint64_t[]){3}, &s, &e));
    }
    CHECK_MSG(write_commit(w, &e), "%s", e.message);
    CHECK(store_open(&store, scratch_path("a.npz"), &e) && store.count == 200);
    for (size_t i = 0; i < store.count; i++) {
        CHECK((uintptr_t)store.arrays[i].bytes.data % 64 == 0);
        CHECK(memcmp(store.arrays[i].bytes.data, "\0\1\2", 3) == 0);
    }
    store_close(&store);
    free(s.data);
}

/* ---- failure ---- */

/* Commits two arrays to fail/a.npz, where an older file lies or not: it stays as it was. */
static void check_failure(struct source *second, bool exists, enum status status, const char *why) {
    struct source first = {.size = 100000};
    struct error e = {0};
    size_t n = 0;
    mkdir(scratch_path("fail"), 0755);
    if (exists) scratch_text("fail/a.npz", "older");
    struct writer *w = open_writer(scratch_path("fail/a.npz"));
    CHECK(add(w, "first", DTYPE_U8, 1, (uint64_t[]){100000}, &first, &e));
    CHECK(add(w, "second", DTYPE_U8, 1, (uint64_t[]){10}, second, &e));
    CHECK(!write_commit(w, &e));
    CHECK_MSG(e.status == status && strstr(e.message, why), "%s", e.message);
    unsigned char *left = scratch_read("fail/a.npz", &n);
    CHECK(exists ? left && n == 5 && memcmp(left, "older", 5) == 0 : left == NULL);
    CHECK(scratch_entries("fail") == (exists ? 1 : 0));
    free(left);
    free(first.data);
    free(second->data);
    second->data = NULL;
    unlink(scratch_path("fail/a.npz"));
}

static void test_produce_fails(void) {
    for (int exists = 0; exists < 2; exists++) {
        struct source refuses = {.size = 10, .refusal = "the reason of produce"};
        struct source too_long = {.size = 11}, too_short = {.size = 9};
        check_failure(&refuses, exists, STATUS_INTERRUPTED, "the reason of produce");
        check_failure(&too_long, exists, STATUS_ARGUMENT, "second was given 11 bytes");
        check_failure(&too_short, exists, STATUS_ARGUMENT, "second was given 9 bytes");
    }
}

static void limit_files(rlim_t bytes) {
    struct rlimit limit;
    getrlimit(RLIMIT_FSIZE, &limit);
    limit.rlim_cur = bytes < limit.rlim_max ? bytes : limit.rlim_max;
    setrlimit(RLIMIT_FSIZE, &limit);
}

/* A limit on file sizes stands for a full disk; at 100400 only the directory does not fit. */
static void test_disk_full(void) {
    static const rlim_t limits[] = {50000, 100200, 100400};
    signal(SIGXFSZ, SIG_IGN);
    for (size_t i = 0; i < sizeof limits / sizeof *limits; i++) {
        struct source second = {.size = 10};
        limit_files(limits[i]);
        check_failure(&second, i == 1, STATUS_FILE, "a.npz cannot be written: File too large");
        limit_files(RLIM_INFINITY);
    }
    struct error e = {0};
    static unsigned char data[100000];
    mkdir(scratch_path("fail"), 0755);
    limit_files(50000);
    CHECK(!write_npy(scratch_path("fail/a.npy"), DTYPE_U8, 1, (uint64_t[]){sizeof data},
                     (struct span){data, sizeof data}, &e));
    limit_files(RLIM_INFINITY);
    CHECK_MSG(strstr(e.message, "a.npy cannot be written: File too large"), "%s", e.message);
    CHECK(scratch_entries("fail") == 0);
    /* Through a link: were it replaced by mistake, only the link would be lost. */
    if (access("/dev/full", W_OK) == 0 && symlink("/dev/full", scratch_path("full")) == 0) {
        CHECK(!write_npy(scratch_path("full"), DTYPE_U8, 0, NULL, (struct span){data, 1}, &e));
        CHECK_MSG(strstr(e.message, "full cannot be written: No space left"), "%s", e.message);
    }
}

static void check_path(const char *path, const char *why) {
    struct source s = {.size = 1};
    struct writer *w;
    struct error e = {0};
    bool ok = write_open(&w, path, &e);
    if (ok) {
        CHECK(add(w, "w", DTYPE_U8, 0, NULL, &s, &e));
        ok = write_commit(w, &e);
    } else {
        CHECK(w == NULL);
    }
    CHECK_MSG(!ok && e.status == STATUS_FILE && strstr(e.message, why), "%s: %s", path, e.message);
    CHECK(s.calls == 0); /* nothing was computed for nothing */
    free(s.data);
}

static void test_paths(void) {
    struct stat st;
    mkdir(scratch_path("folder"), 0755);
    mkfifo(scratch_path("fifo"), 0600);
    check_path(scratch_path("nowhere/a.npz"), "a.npz cannot be written: No such file or directory");
    check_path(scratch_path("folder"), "folder is not a regular file");
    check_path(scratch_path("fifo"), "fifo is not a regular file");
    CHECK(symlink("nowhere/b", scratch_path("dangling")) == 0);
    check_path(scratch_path("dangling"), "dangling cannot be written");

    scratch_text("folder/real.npz", "older");
    CHECK(symlink("folder/real.npz", scratch_path("link.npz")) == 0);
    write_all(scratch_path("link.npz"));
    CHECK(lstat(scratch_path("link.npz"), &st) == 0 && S_ISLNK(st.st_mode));
    CHECK(stat(scratch_path("folder/real.npz"), &st) == 0 && st.st_size > 20000);
    CHECK(scratch_entries("folder") == 1);
}

static void test_arguments(void) {
    struct source s = {.size = 1};
    struct error e = {0};
    char lengthy[2000];
    uint64_t one[9] = {1, 1, 1, 1, 1, 1, 1, 1, 1};
    memset(lengthy, 'n', sizeof lengthy);
    lengthy[sizeof lengthy - 1] = 0;
    struct writer *w = open_writer(scratch_path("none.npz"));
    CHECK(!add(w, "", DTYPE_U8, 0, NULL, &s, &e) && strstr(e.message, "name has 1 to"));
    CHECK(!add(w, lengthy, DTYPE_U8, 0, NULL, &s, &e) && strstr(e.message, "name has 1 to"));
    CHECK(!add(w, "\xff", DTYPE_U8, 0, NULL, &s, &e) && strstr(e.message, "not UTF-8"));
    CHECK(!add(w, "w", DTYPE_U8, 9, one, &s, &e) && strstr(e.message, "9 dimensions"));
    CHECK(!add(w, "w", DTYPE_F32, 1, (uint64_t[]){1ull << 62}, &s, &e));
    CHECK_MSG(strstr(e.message, "more elements"), "%s", e.message);
    CHECK(add(w, "w", DTYPE_U8, 0, NULL, &s, &e));
    CHECK(!add(w, "w", DTYPE_U8, 0, NULL, &s, &e));
    CHECK_MSG(e.status == STATUS_ARGUMENT && strstr(e.message, "w cannot be added: another array"),
              "%s", e.message);
    write_discard(w);
    write_discard(NULL);
    w = open_writer(scratch_path("none.npz"));
    CHECK(!write_commit(w, &e) && strstr(e.message, "no arrays to write"));
    CHECK(s.calls == 0 && access(scratch_path("none.npz"), F_OK) != 0);
}

/* A size or a position of exactly 2^32 - 1, or a size at which it depends on the longer local
 * header whether that header is needed. Nothing is produced: nothing so large is touched. */
static void test_boundary(void) {
    static const char name[] = "eighteen.bytes.abc"; /* 140 bytes of npy header, 120 after zip64 */
    for (int k = -1; k <= 21; k++) {
        struct source s = {0};
        struct error e = {0};
        struct writer *w = open_writer(scratch_path("none.npz"));
        uint64_t n = (uint64_t)(0xffffffffll - 140 + k);
        bool ok = add(w, name, DTYPE_U8, 1, &n, &s, &e);
        CHECK_MSG(ok == (k == -1 || k == 21), "%d %s", k, e.message);
        CHECK_MSG(ok || strstr(e.message, "broken header"), "%s", e.message);
        write_discard(w);
    }
    struct source s = {0};
    struct error e = {0};
    struct writer *w = open_writer(scratch_path("none.npz"));
    CHECK(add(w, "w", DTYPE_U8, 1, (uint64_t[]){0xffffffff - 128}, &s, &e));
    CHECK(!add(w, "v", DTYPE_U8, 1, (uint64_t[]){1}, &s, &e) && strstr(e.message, "broken header"));
    write_discard(w);
}

/* ---- .npy ---- */

static void *read_fifo(void *path) {
    static char data[4096];
    FILE *f = fopen(path, "rb");
    size_t n = f ? fread(data, 1, sizeof data, f) : 0;
    if (f) fclose(f);
    return n == 128 + 24 ? data : NULL;
}

static void test_npy(void) {
    float v[6] = {0, 1, 2, 3, 4, 5};
    uint64_t shape[] = {2, 3};
    struct span bytes = {(const unsigned char *)v, sizeof v};
    struct error e = {0};
    mkdir(scratch_path("npy"), 0755);
    scratch_text("npy/a.npy", "older");
    CHECK_MSG(write_npy(scratch_path("npy/a.npy"), DTYPE_F32, 2, shape, bytes, &e), "%s",
              e.message);
    CHECK(scratch_entries("npy") == 1);
    CHECK(scratch_python("a = np.load('npy/a.npy')\n"
                         "assert a.dtype == 'f4' and (a == np.arange(6).reshape(2, 3)).all()\n"));
    CHECK(!write_npy(scratch_path("npy/b.npy"), DTYPE_F32, 1, shape, bytes, &e));
    CHECK_MSG(strstr(e.message, "b.npy: the array was given 24 bytes"), "%s", e.message);
    CHECK(!write_npy(scratch_path("nowhere/b.npy"), DTYPE_F32, 2, shape, bytes, &e));
    CHECK_MSG(e.status == STATUS_FILE && strstr(e.message, "No such file"), "%s", e.message);
    CHECK(!write_npy(scratch_path("npy"), DTYPE_F32, 2, shape, bytes, &e));
    CHECK_MSG(strstr(e.message, "npy cannot be written: Is a directory"), "%s", e.message);
    CHECK(scratch_entries("npy") == 1);

    pthread_t reader;
    void *got = NULL;
    CHECK(mkfifo(scratch_path("pipe"), 0600) == 0);
    CHECK(pthread_create(&reader, NULL, read_fifo, (void *)scratch_path("pipe")) == 0);
    CHECK(write_npy(scratch_path("pipe"), DTYPE_F32, 2, shape, bytes, &e));
    CHECK(pthread_join(reader, &got) == 0 && got && memcmp((char *)got + 128, v, sizeof v) == 0);
}

/* --- what may be replaced ----------------------------------------------------------------------
 */

static void check_kept(const char *name, enum status status, const char *why) {
    struct error e = {0};
    CHECK_MSG(!write_may_replace(scratch_path(name), "layers.0", &e), "%s", name);
    CHECK_MSG(e.status == status && strstr(e.message, why), "%s: %s", name, e.message);
}

static void test_may_replace(void) {
    static const char *const others[] = {"text", "PK\3\5 and so on", "a note on layers.0"};
    struct rlimit files, none;
    struct error e = {0};
    write_all(scratch_path("own.npz"));
    CHECK(write_may_replace(scratch_path("own.npz"), "layers.0", &e));
    CHECK(!write_may_replace(scratch_path("own.npz"), "cache.json", &e));
    CHECK(write_may_replace(scratch_path("free.npz"), "layers.0", &e));
    scratch_text("kept", "");
    CHECK(write_may_replace(scratch_path("kept"), "layers.0", &e));
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        scratch_text("kept", others[i]);
        check_kept("kept", STATUS_ARGUMENT, "no file that may be replaced");
    }
    CHECK(mkdir(scratch_path("replaced"), 0755) == 0);
    check_kept("replaced", STATUS_ARGUMENT, "no file that may be replaced");

    CHECK(getrlimit(RLIMIT_NOFILE, &files) == 0);
    none = files;
    none.rlim_cur = 3;
    CHECK(setrlimit(RLIMIT_NOFILE, &none) == 0);
    check_kept("own.npz", STATUS_FILE, "own.npz cannot be read: Too many open files");
    CHECK(setrlimit(RLIMIT_NOFILE, &files) == 0);
}

int main(void) {
    scratch_open();
    check_run("write: read back", test_read_back);
    check_run("write: numpy reads it", test_numpy_reads);
    check_run("write: the same bytes every time", test_deterministic);
    check_run("write: alignment", test_alignment);
    check_run("write: produce fails", test_produce_fails);
    check_run("write: disk full", test_disk_full);
    check_run("write: paths", test_paths);
    check_run("write: arguments", test_arguments);
    check_run("write: sizes around 4 GiB", test_boundary);
    check_run("write: one array", test_npy);
    check_run("write: what may be replaced", test_may_replace);
    return check_done();
}
