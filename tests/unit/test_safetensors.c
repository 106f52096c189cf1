/* safetensors.h: files written byte by byte, sound ones and every way of being unsound. */
#include "store/safetensors.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "check.h"
#include "scratch.h"

/* A file t.safetensors: the length, the header, then data bytes that count 0, 1, 2 ... */
static const char *write_file(uint64_t length, const char *header, size_t data_bytes) {
    size_t text = strlen(header), size = 8 + text + data_bytes;
    unsigned char *file = malloc(size);
    for (size_t i = 0; i < 8; i++) file[i] = (unsigned char)(length >> 8 * i);
    memcpy(file + 8, header, text);
    for (size_t i = 0; i < data_bytes; i++) file[8 + text + i] = (unsigned char)i;
    const char *path = scratch_write("t.safetensors", file, size);
    free(file);
    return path;
}

static const char *write_header(const char *header, size_t data_bytes) {
    return write_file(strlen(header), header, data_bytes);
}

/* Refused, with a sentence that names the file. */
static void check_refused(const char *path, enum status status, const char *why) {
    struct safetensors st;
    struct error e = {0};
    bool ok = safetensors_open(&st, path, &e);
    CHECK_MSG(!ok, "%s was opened, expected: %s", path, why);
    if (ok)
        safetensors_close(&st);
    else
        CHECK_MSG(e.status == status && strstr(e.message, why) && strstr(e.message, path),
                  "'%s' is not in: %s", why, e.message);
    CHECK(st.tensors == NULL && st.path == NULL && st.file.data == NULL && st.count == 0);
}

static void check_header(const char *header, size_t data_bytes, const char *why) {
    check_refused(write_header(header, data_bytes), STATUS_FORMAT, why);
}

static void open_good(struct safetensors *st, const char *path) {
    struct error e = {0};
    CHECK_MSG(safetensors_open(st, path, &e), "%s", e.message);
}

/* --- sound files -------------------------------------------------------------------------------
 */

static void test_tensors(void) {
    struct safetensors st;
    open_good(&st,
              write_header("{\"w\":{\"dtype\":\"F16\",\"shape\":[2,3],\"data_offsets\":[5,17]},"
                           "\"scalar\":{\"data_offsets\":[1,5],\"shape\":[],\"dtype\":\"F32\"},"
                           "\"__metadata__\":{\"format\":\"mlx\"},\"a\":{\"dtype\":\"U8\","
                           "\"shape\":[1],\"data_offsets\":[0,1],\"more\":[{}]},"
                           "\"void\":{\"dtype\":\"I64\",\"shape\":[4,0],"
                           "\"data_offsets\":[5,5]}}  \n\t ",
                           17));
    CHECK(st.count == 4);
    if (st.count != 4) return;
    static const char *const names[] = {"a", "scalar", "void", "w"};
    static const int dims[] = {1, 0, 2, 2}, first[] = {0, 1, 5, 5}, sizes[] = {1, 4, 0, 12};
    static const enum dtype types[] = {DTYPE_U8, DTYPE_F32, DTYPE_I64, DTYPE_F16};
    for (size_t i = 0; i < 4; i++) {
        const struct tensor *t = &st.tensors[i];
        CHECK_MSG(strcmp(t->name, names[i]) == 0, "%s", t->name);
        CHECK(t->dims == dims[i] && t->dtype == types[i] && t->bytes.size == (size_t)sizes[i]);
        CHECK(t->bytes.data >= st.file.data && t->bytes.data <= st.file.data + st.file.size);
        CHECK(t->bytes.size == 0 || *t->bytes.data == first[i]);
    }
    CHECK(st.tensors[3].shape[0] == 2 && st.tensors[3].shape[1] == 3);
    CHECK(st.tensors[2].shape[0] == 4 && st.tensors[2].shape[1] == 0);
    safetensors_close(&st);
    safetensors_close(&st); /* all zero now */
}

static void test_types(void) {
    static const struct {
        const char *name;
        enum dtype dtype;
    } types[DTYPE_COUNT] = {
        {"F32", DTYPE_F32},   {"F16", DTYPE_F16}, {"BF16", DTYPE_BF16}, {"F64", DTYPE_F64},
        {"U8", DTYPE_U8},     {"I8", DTYPE_I8},   {"U16", DTYPE_U16},   {"I16", DTYPE_I16},
        {"U32", DTYPE_U32},   {"I32", DTYPE_I32}, {"U64", DTYPE_U64},   {"I64", DTYPE_I64},
        {"BOOL", DTYPE_BOOL},
    };
    static const char *const others[] = {"F8_E4M3", "F8_E5M2", "F4", "C64", "f32", "", "F32 "};
    char header[200], why[60];
    for (size_t i = 0; i < DTYPE_COUNT; i++) {
        struct safetensors st;
        size_t bytes = 3 * dtype_bytes(types[i].dtype);
        snprintf(header, sizeof header,
                 "{\"x\":{\"dtype\":\"%s\",\"shape\":[3],\"data_offsets\":[0,%zu]}}", types[i].name,
                 bytes);
        open_good(&st, write_header(header, bytes));
        CHECK_MSG(st.count == 1 && st.tensors[0].dtype == types[i].dtype, "%s", types[i].name);
        safetensors_close(&st);
    }
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        snprintf(header, sizeof header,
                 "{\"x.y\":{\"dtype\":\"%s\",\"shape\":[3],\"data_offsets\":[0,3]}}", others[i]);
        snprintf(why, sizeof why, "x.y has elements of type '%s'", others[i]);
        check_header(header, 3, why);
    }
}

/* Every position in a word: no header is padded, as MLX leaves it. */
static void test_unaligned(void) {
    char header[200];
    for (int pad = 0; pad < 8; pad++) {
        struct safetensors st;
        snprintf(header, sizeof header,
                 "{\"x\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}%*s}", pad, "");
        open_good(&st, write_header(header, 8));
        uint32_t word;
        if (st.count) memcpy(&word, st.tensors[0].bytes.data + 4, 4);
        CHECK(st.count == 1 && word == 0x07060504);
        safetensors_close(&st);
    }
}

static void test_no_tensors(void) {
    struct safetensors st;
    open_good(&st, write_header("{}", 0));
    CHECK(st.count == 0);
    safetensors_close(&st);
    open_good(&st, write_header(" {\"__metadata__\":null}", 0));
    CHECK(st.count == 0);
    safetensors_close(&st);
}

/* --- unsound ones ------------------------------------------------------------------------------
 */

static void test_other_files(void) {
    static const struct {
        const char *text, *why;
    } cases[] = {
        {"", "is empty"},
        {"1234567", "is cut short: it has 7 bytes"},
        {"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "git lfs pull"},
        {"<!DOCTYPE html><html><body>404</body>", "web page"},
        {"PK\x03\x04 a zip archive after all", "is not a safetensors file"},
        {"{\"w\":{\"dtype\":\"F32\"}}", "is not a safetensors file"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        check_refused(scratch_text("t.safetensors", cases[i].text), STATUS_FORMAT, cases[i].why);
    }
    check_refused(scratch_path("nowhere"), STATUS_FILE, "cannot be opened");
    check_refused(scratch_folder, STATUS_FILE, "is not a regular file");
    CHECK(mkfifo(scratch_path("fifo"), 0600) == 0);
    check_refused(scratch_path("fifo"), STATUS_FILE, "is not a regular file");
}

static void test_header_length(void) {
    static const uint64_t huge[] = {100000001,      (uint64_t)1 << 32, INT64_MAX, (uint64_t)1 << 63,
                                    UINT64_MAX - 8, UINT64_MAX - 7,    UINT64_MAX};
    for (size_t i = 0; i < sizeof huge / sizeof *huge; i++) {
        check_refused(write_file(huge[i], "{}", 0), STATUS_FORMAT, "its header would have ");
    }
    check_refused(write_file(3, "{}", 0), STATUS_FORMAT, "it has 10 bytes, fewer than its header");
    check_refused(write_file(100000000, "{}", 0), STATUS_FORMAT, "fewer than its header");
    check_refused(write_file(0, "{}", 0), STATUS_FORMAT, "no JSON that can be used");
    check_refused(write_file(1, "{}", 0), STATUS_FORMAT, "no JSON that can be used");

    /* A sparse file that is as long as it says. */
    const char *path = write_file(100000001, "{}", 0);
    CHECK(truncate(path, 100000009) == 0);
    check_refused(path, STATUS_FORMAT, "its header would have 100000001 bytes");
}

#define ENTRY(body) "{\"a.b\":{" body "}}"
#define WITH(type, shape, offsets)                                                                 \
    ENTRY("\"dtype\":" type ",\"shape\":" shape ",\"data_offsets\":" offsets)

static void test_entries(void) {
    static const struct {
        const char *header, *why;
    } cases[] = {
        {"{\"a.b\":7}", "a.b is not described by a JSON object"},
        {"{\"a.b\":[]}", "a.b is not described by a JSON object"},
        {ENTRY(""), "a.b has no text as its dtype"},
        {ENTRY("\"dtype\":\"U8\",\"shape\":[8]"), "no list as its data_offsets"},
        {ENTRY("\"dtype\":\"U8\",\"data_offsets\":[0,8]"), "no list as its shape"},
        {ENTRY("\"shape\":[8],\"data_offsets\":[0,8]"), "no text as its dtype"},
        {ENTRY("\"dtype\":\"U8\",\"dtype\":\"I8\",\"shape\":[8],\"data_offsets\":[0,8]"), "twice"},
        {ENTRY("\"dtype\":\"U8\",\"shape\":[8],\"shape\":[8],\"data_offsets\":[0,8]"), "twice"},
        {WITH("5", "[8]", "[0,8]"), "no text as its dtype"},
        {WITH("\"U8\"", "8", "[0,8]"), "no list as its shape"},
        {WITH("\"U8\"", "{\"x\":8}", "[0,8]"), "no list as its shape"},
        {WITH("\"U8\"", "[-8]", "[0,8]"), "a dimension that is not a whole number"},
        {WITH("\"U8\"", "[8.5]", "[0,8]"), "a dimension that is not a whole number"},
        {WITH("\"U8\"", "[\"8\"]", "[0,8]"), "a dimension that is not a whole number"},
        {WITH("\"U8\"", "[null]", "[0,8]"), "a dimension that is not a whole number"},
        {WITH("\"U8\"", "[[8]]", "[0,8]"), "a dimension that is not a whole number"},
        {WITH("\"U8\"", "[9007199254740992]", "[0,8]"), "not a whole number below 2^53"},
        {WITH("\"U8\"", "[18446744073709551624]", "[0,8]"), "not a whole number below 2^53"},
        {WITH("\"U8\"", "[1e999]", "[0,8]"), "not a whole number below 2^53"},
        {WITH("\"U8\"", "[1,1,1,1,1,1,1,1,8]", "[0,8]"), "more than 8 dimensions"},
        {WITH("\"U8\"", "[8]", "8"), "no list as its data_offsets"},
        {WITH("\"U8\"", "[8]", "[]"), "data_offsets that are not two"},
        {WITH("\"U8\"", "[8]", "[8]"), "data_offsets that are not two"},
        {WITH("\"U8\"", "[8]", "[0,4,8]"), "data_offsets that are not two"},
        {WITH("\"U8\"", "[8]", "[-8,0]"), "data_offsets that are not two"},
        {WITH("\"U8\"", "[8]", "[0,8.25]"), "data_offsets that are not two"},
        {WITH("\"U8\"", "[8]", "[0,\"8\"]"), "data_offsets that are not two"},
        {WITH("\"U8\"", "[8]", "[18446744073709551608,18446744073709551616]"), "not two whole"},
        {WITH("\"U8\"", "[8]", "[18446744073709551600,8]"), "not two whole"},
        {WITH("\"U8\"", "[8]", "[8,0]"), "a.b ends before it begins"},
        {WITH("\"U8\"", "[9]", "[0,9]"), "a.b ends 9 bytes behind the header"},
        {WITH("\"U8\"", "[8]", "[4503599627370496,4503599627370504]"), "cut short or damaged"},
        {WITH("\"U8\"", "[7]", "[0,8]"),
         "a.b holds 8 bytes of data where its shape and type need 7"},
        {WITH("\"F32\"", "[8]", "[0,8]"), "type need 32"},
        {WITH("\"F32\"", "[]", "[0,8]"), "type need 4"},
        {WITH("\"U8\"", "[8,0]", "[0,8]"), "type need 0"},
        {WITH("\"U8\"", "[4294967296,4294967296]", "[0,0]"), "more elements than memory"},
        {WITH("\"F64\"", "[4503599627370496,1024,0]", "[0,0]"), "more elements than memory"},
        {WITH("\"U8\"", "[4503599627370496,4503599627370496,16]", "[0,0]"), "more elements than"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        check_header(cases[i].header, 8, cases[i].why);
    }
}

#define BYTES(name, begin, end, count)                                                             \
    "\"" name "\":{\"dtype\":\"U8\",\"shape\":[" count "],\"data_offsets\":[" begin "," end "]}"

static void test_layout(void) {
    check_header("{" BYTES("x", "0", "8", "8") "," BYTES("y", "4", "12", "8") "}", 12,
                 "y shares bytes with another tensor");
    check_header("{" BYTES("x", "0", "8", "8") "," BYTES("y", "0", "8", "8") "}", 8,
                 "shares bytes with another tensor");
    check_header("{" BYTES("x", "0", "8", "8") "," BYTES("y", "4", "4", "0") "}", 8,
                 "y shares bytes with another tensor");
    check_header("{" BYTES("x", "0", "4", "4") "," BYTES("y", "8", "12", "4") "}", 12,
                 "y follows bytes that no tensor has");
    check_header("{" BYTES("x", "1", "4", "3") "}", 4, "x follows bytes that no tensor has");
    check_header("{" BYTES("x", "0", "4", "4") "}", 5, "1 bytes behind its last tensor");
    check_header("{}", 3, "3 bytes behind its last tensor");
    check_header("{\"__metadata__\":{}}", 1, "1 bytes behind its last tensor");
    check_header("{" BYTES("x", "0", "4", "4") "," BYTES("x", "4", "8", "4") "}", 8,
                 "has 'x' twice");
    check_header("{" BYTES("x", "0", "0", "0") "," BYTES("x", "0", "0", "0") "}", 0,
                 "has 'x' twice");
    check_header("{" BYTES("x", "0", "4", "4") "," BYTES("\\u0078", "4", "8", "4") "}", 8,
                 "has 'x' twice");
}

static void test_names(void) {
    char name[1100], header[1300];
    struct safetensors st;
    check_header("{" BYTES("", "0", "1", "1") "}", 1, "a tensor whose name is empty");
    check_header("{" BYTES("a\\nb", "0", "1", "1") "}", 1, "not printable ('a?b')");
    check_header("{" BYTES("a\\u001b[31m", "0", "1", "1") "}", 1, "not printable");
    check_header("{" BYTES("a\x7f", "0", "1", "1") "}", 1, "not printable");
    check_header("{" BYTES("a\\u0000b", "0", "1", "1") "}", 1, "it has a NUL");
    check_header("{" BYTES("a\nb", "0", "1", "1") "}", 1, "it has control characters");
    check_header("{" BYTES("a\xff", "0", "1", "1") "}", 1, "it is not UTF-8");
    check_header("{" BYTES("a\xc0\x80", "0", "1", "1") "}", 1, "it is not UTF-8");
    check_header("{" BYTES("a\\ud800", "0", "1", "1") "}", 1, "no JSON that can be used");
    for (int length = 1024; length <= 1025; length++) {
        memset(name, 'n', sizeof name);
        name[length] = 0;
        snprintf(header, sizeof header,
                 "{\"%s\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}", name);
        if (length == 1025) {
            check_header(header, 1, "a tensor whose name is over 1024 bytes long ('nnn");
        } else {
            open_good(&st, write_header(header, 1));
            CHECK(st.count == 1 && strlen(st.tensors[0].name) == 1024);
            safetensors_close(&st);
        }
    }
    /* Quotes and backslashes that are escaped do not end a name; other alphabets are fine. */
    open_good(&st, write_header("{" BYTES("a\\\"\\\\u0000,\xc3\xa9", "0", "1", "1") "}", 1));
    CHECK(st.count == 1 && strcmp(st.tensors[0].name, "a\"\\u0000,\xc3\xa9") == 0);
    safetensors_close(&st);
    open_good(&st, write_header("{" BYTES("a\\\\u0000", "0", "1", "1") "}", 1));
    CHECK(st.count == 1 && strcmp(st.tensors[0].name, "a\\u0000") == 0);
    safetensors_close(&st);
}

static void test_json(void) {
    static const char *const cases[] = {
        "[]",          "7",         "\"text\"", "{",       "{}}",        "{} x",
        "{\"a\":}",    "{\"a\":1,", "nul",      "{'a':1}", "{\"a\":1e}", "{\"a\" 1}",
        "{\"a\":tru}", "{a:1}",     "{\"a",     "{\"a\\",  "{\"a\\u00",
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        check_header(cases[i], 0, "no JSON that can be used");
    }
    static const unsigned char nul[] = {4, 0, 0, 0, 0, 0, 0, 0, '{', '}', 0, 0};
    check_refused(scratch_write("t.safetensors", nul, sizeof nul), STATUS_FORMAT,
                  "it has control characters");
    check_header("{\"__metadata__\":[]}", 0, "a __metadata__ that is not an object of texts");
    check_header("{\"__metadata__\":\"pt\"}", 0, "a __metadata__ that is not an object of texts");
    check_header("{\"__metadata__\":{\"a\":1}}", 0, "a __metadata__ that is not an object of text");
}

static const char *write_repeated(const char *before, const char *what, size_t n,
                                  const char *after) {
    char *header = scratch_repeated(before, what, n, after);
    const char *path = write_header(header, 0);
    free(header);
    return path;
}

/* A few megabytes of header must not become gigabytes of values, nor a deep stack. */
static void test_large_headers(void) {
    check_refused(write_repeated("{\"a\":[0", ",0", 2000000, "]}"), STATUS_FORMAT,
                  "more values than any in use");
    check_refused(write_repeated("{\"a\":[{}", ",{}", 600000, "]}"), STATUS_FORMAT,
                  "more values than any in use");
    check_refused(write_repeated("{\"a\":[0", ",0", 1000000, "]}"), STATUS_FORMAT,
                  "a is not described by a JSON object");
    check_refused(write_repeated("{\"a\":", "[", 1000000, ""), STATUS_FORMAT,
                  "no JSON that can be used");
    check_refused(write_repeated("{\"a\":", "{\"a\":", 2000, "1}"), STATUS_FORMAT,
                  "no JSON that can be used");
    check_refused(write_repeated("{\"", ",[{", 1000000, "\":0}"), STATUS_FORMAT,
                  "a tensor whose name is over 1024 bytes");
    check_refused(write_repeated("{\"a\":", "9", 1000, "}"), STATUS_FORMAT, "not ");
}

/* --- damage ------------------------------------------------------------------------------------
 */

static const char sound[] = "{\"__metadata__\":{\"format\":\"pt\"}," BYTES(
    "x", "0", "4", "2,2") ","
                          "\"y.z\":{\"dtype\":\"BF16\",\"shape\":[3],\"data_offsets\":[4,10]}}";

static void test_cut_short(void) {
    size_t size = 0;
    struct safetensors st;
    open_good(&st, write_header(sound, 10));
    safetensors_close(&st);
    unsigned char *file = scratch_read("t.safetensors", &size);
    for (size_t n = 0; n < size; n++) {
        check_refused(scratch_write("t.safetensors", file, n), STATUS_FORMAT,
                      n < 8 + strlen(sound) ? (n ? "is cut short" : "is empty")
                                            : "cut short or damaged");
    }
    free(file);
}

/* Every byte of length and header set to a few others: refused, or still sound. */
static void test_flipped(void) {
    static const unsigned char others[] = {0,   1,   '\n', '"', '\\', ',',
                                           '0', '9', '[',  '{', 0x7f, 0xff};
    size_t size = 0, opened = 0;
    write_header(sound, 10);
    unsigned char *file = scratch_read("t.safetensors", &size);
    for (size_t i = 0; i < 8 + strlen(sound); i++) {
        unsigned char kept = file[i];
        for (size_t k = 0; k < sizeof others; k++) {
            struct safetensors st;
            struct error e = {0};
            file[i] = others[k];
            bool ok = safetensors_open(&st, scratch_write("t.safetensors", file, size), &e);
            CHECK_MSG(ok || (e.status == STATUS_FORMAT && strstr(e.message, "t.safetensors")),
                      "byte %zu as %d: %s", i, others[k], e.message);
            size_t sum = 0;
            for (size_t t = 0; ok && t < st.count; t++) sum += st.tensors[t].bytes.size;
            CHECK_MSG(!ok || sum == 10, "byte %zu as %d: tensors of %zu bytes", i, others[k], sum);
            opened += ok;
            if (ok) safetensors_close(&st);
        }
        file[i] = kept;
    }
    CHECK(opened > 12); /* other letters of names and of metadata */
    free(file);
}

/* --- the index ---------------------------------------------------------------------------------
 */

static void check_index(const char *text, const char *why) {
    struct safetensors_index index;
    struct error e = {0};
    const char *path = scratch_text("i.json", text);
    bool ok = safetensors_index_open(&index, path, &e);
    CHECK_MSG(!ok && e.status == STATUS_FORMAT && strstr(e.message, why) && strstr(e.message, path),
              "'%s' is not in: %s", why, e.message);
    CHECK(ok || (index.places == NULL && index.json == NULL && index.path == NULL));
    if (ok) safetensors_index_close(&index);
}

static void test_index_refused(void) {
    static const char *const names[] = {
        "../a.safetensors",     "/a.safetensors",    "b/a.safetensors", ".a.safetensors", "",
        "a.safetensors\\u0001", "a\\nb.safetensors", "a.npz",           "a.safetensor",   "..",
        "a.safetensors/",       "a b.safetensors",
    };
    char text[100];
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        snprintf(text, sizeof text, "{\"weight_map\":{\"w\":\"%s\"}}", names[i]);
        check_index(text, "puts w into '");
    }
    check_index("{\"weight_map\":{\"w\":7}}", "puts w into ''");
    check_index("{\"weight_map\":{\"w\":[\"a.safetensors\"]}}", "puts w into ''");
    check_index("{}", "has no weight_map");
    check_index("{\"weight_map\":{}}", "has no weight_map");
    check_index("{\"weight_map\":[\"a.safetensors\"]}", "has no weight_map");
    check_index("[]", "it is not a JSON object");
    check_index("{\"weight_map\":", "it is not valid JSON");
    check_index("", "is empty");
    check_index("{\"weight_map\":{\"a\\u0000b\":\"a.safetensors\"}}", "has a NUL");
    check_index("{\"weight_map\":{\"\xff\":\"a.safetensors\"}}", "is not UTF-8");
}

static void test_index(void) {
    struct safetensors_index index;
    struct safetensors shards[2];
    struct error e = {0};
    const char *path = scratch_text(
        "i.json", "{\"metadata\":{\"total_size\":7},\"weight_map\":{\"y\":\"b-2.safetensors\","
                  "\"x\":\"b-1.safetensors\",\"w\":\"b-2.safetensors\"}}\n");
    CHECK_MSG(safetensors_index_open(&index, path, &e), "%s", e.message);
    CHECK(index.count == 3 && strcmp(index.places[0].shard, "b-1.safetensors") == 0);
    CHECK(strcmp(index.places[1].tensor, "w") == 0 && strcmp(index.places[2].tensor, "y") == 0);
    open_good(&shards[0], write_header("{" BYTES("x", "0", "1", "1") "}", 1));
    open_good(&shards[1], write_header("{" BYTES("w", "0", "1", "1") "," BYTES(
                                           "y", "1", "2", "1") "," BYTES("z", "2", "3", "1") "}",
                                       3));
    CHECK_MSG(safetensors_index_check(&index, shards, &e), "%s", e.message);
    safetensors_close(&shards[1]);

    open_good(&shards[1],
              write_header("{" BYTES("w", "0", "1", "1") "," BYTES("x", "1", "2", "1") "}", 2));
    CHECK(!safetensors_index_check(&index, shards, &e) && e.status == STATUS_MODEL);
    CHECK_MSG(strstr(e.message, "puts y into b-2.safetensors, which does not hold it"), "%s",
              e.message);
    safetensors_close(&shards[1]);
    open_good(&shards[1], write_header("{}", 0));
    CHECK(!safetensors_index_check(&index, shards, &e) && strstr(e.message, "puts w into"));
    safetensors_close(&shards[1]);
    safetensors_close(&shards[0]);
    safetensors_index_close(&index);
    safetensors_index_close(&index); /* all zero now */
}

int main(void) {
    scratch_open();
    check_run("safetensors: tensors", test_tensors);
    check_run("safetensors: types", test_types);
    check_run("safetensors: data at any position", test_unaligned);
    check_run("safetensors: no tensors", test_no_tensors);
    check_run("safetensors: other files", test_other_files);
    check_run("safetensors: the header's length", test_header_length);
    check_run("safetensors: entries of the header", test_entries);
    check_run("safetensors: overlaps, holes, names twice", test_layout);
    check_run("safetensors: names", test_names);
    check_run("safetensors: what is not JSON", test_json);
    check_run("safetensors: large headers", test_large_headers);
    check_run("safetensors: cut short at every byte", test_cut_short);
    check_run("safetensors: every byte of the header another", test_flipped);
    check_run("safetensors: indexes that are refused", test_index_refused);
    check_run("safetensors: an index and its shards", test_index);
    return check_done();
}
