/* npy.h: headers as numpy and MLX write them, and everything that is to be refused. */
#include "store/npy.h"

#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "scratch.h"

/* An array file with the header text and data_bytes of data, in memory of exactly its size, so that
 * a sanitizer sees any byte read beyond it. Version 2 has a longer length field. */
static struct span make(int version, const char *text, size_t data_bytes) {
    size_t n = strlen(text), prefix = version == 1 ? 10 : 12;
    unsigned char *p = calloc(1, prefix + n + data_bytes);
    memcpy(p, "\x93NUMPY", 6);
    p[6] = (unsigned char)version;
    p[8] = (unsigned char)(n & 255);
    p[9] = (unsigned char)(n >> 8);
    memcpy(p + prefix, text, n);
    return (struct span){p, prefix + n + data_bytes};
}

static bool parse(const char *text, size_t data_bytes, struct npy *out, struct error *e) {
    struct span file = make(1, text, data_bytes);
    bool ok = npy_parse(file, "t.npz: w", out, e);
    free((void *)file.data);
    return ok;
}

#define HEADER(descr, order, shape)                                                                \
    "{'descr': '" descr "', 'fortran_order': " order ", 'shape': " shape ", }\n"

static void test_accepted(void) {
    static const struct {
        const char *text;
        size_t data_bytes;
        enum dtype dtype;
        int dims;
        uint64_t shape[3];
    } cases[] = {
        {HEADER("<f4", "False", "(2, 3)"), 24, DTYPE_F32, 2, {2, 3}},
        {HEADER("<f2", "True", "(5,)"), 10, DTYPE_F16, 1, {5}},
        {HEADER("<V2", "True", "(1, 5, )"), 10, DTYPE_BF16, 2, {1, 5}},
        {HEADER("|V2", "True", "(5, 1)"), 10, DTYPE_BF16, 2, {5, 1}},
        {HEADER("|u1", "True", "()"), 1, DTYPE_U8, 0, {0}},
        {HEADER("<u4", "False", "(0,)"), 0, DTYPE_U32, 1, {0}},
        {HEADER("<f4", "False", "(0, 7)"), 0, DTYPE_F32, 2, {0, 7}},
        {HEADER("<i8", "False", "(1, 1, 1)"), 8, DTYPE_I64, 3, {1, 1, 1}},
        {HEADER("<f4", "False", "(2L, 1L)"), 8, DTYPE_F32, 2, {2, 1}},
        {"{\"shape\":(2,),\"fortran_order\":False,\"descr\":\"<f4\"}", 8, DTYPE_F32, 1, {2}},
        {" { 'shape' : ( 2 , 2 , ) , 'descr' : '<f4' , 'fortran_order' : False }      \n",
         16,
         DTYPE_F32,
         2,
         {2, 2}},
        /* as MLX writes it: no comma before the closing brace */
        {"{'descr': '<u4', 'fortran_order': False, 'shape': (2, 3, )}  \n",
         24,
         DTYPE_U32,
         2,
         {2, 3}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct npy a;
        struct error e = {0};
        CHECK_MSG(parse(cases[i].text, cases[i].data_bytes, &a, &e), "%s: %s", cases[i].text,
                  e.message);
        CHECK_MSG(a.dtype == cases[i].dtype && a.dims == cases[i].dims, "%s", cases[i].text);
        CHECK_MSG(memcmp(a.shape, cases[i].shape, (size_t)a.dims * 8) == 0, "%s", cases[i].text);
        CHECK(a.data_bytes == cases[i].data_bytes);
        CHECK(a.header_bytes == 10 + strlen(cases[i].text));
    }
}

static const struct {
    const char *text;
    size_t data_bytes;
    const char *why;
} refused[] = {
    {HEADER("<f4", "False", "(2, 3)"), 23,
     "holds 23 bytes of data where its shape and type need 24"},
    {HEADER("<f4", "False", "(2, 3)"), 25,
     "holds 25 bytes of data where its shape and type need 24"},
    {HEADER("<f4", "False", "()"), 0, "holds 0 bytes"},
    {HEADER("|O", "False", "(2,)"), 16, "pickled objects"},
    {HEADER("O", "False", "(2,)"), 16, "pickled objects"},
    {HEADER(">f4", "False", "(2,)"), 8, "big-endian"},
    {HEADER("<c8", "False", "(2,)"), 16, "type '<c8'"},
    {HEADER("<U4", "False", "(2,)"), 32, "type '<U4'"},
    {HEADER("|V4", "False", "(2,)"), 8, "type '|V4'"},
    {HEADER("", "False", "(2,)"), 8, "type ''"},
    {HEADER("<f4<f4<f4<f4<f4<f4", "False", "(2,)"), 8, "no short string as descr"},
    {HEADER("<f4", "True", "(2, 3)"), 24, "Fortran order"},
    {HEADER("<f4", "True", "(2, 1, 3)"), 24, "Fortran order"},
    {HEADER("<f4", "false", "(2, 3)"), 24, "neither True nor False"},
    {HEADER("<f4", "0", "(2, 3)"), 24, "neither True nor False"},
    {HEADER("<f4", "False", "(-1, 3)"), 0, "negative"},
    {HEADER("<f4", "False", "(-1,)"), 0, "negative"},
    {HEADER("<f4", "False", "(18446744073709551616,)"), 0, "beyond 64 bits"},
    {HEADER("<f4", "False", "(99999999999999999999999999,)"), 0, "beyond 64 bits"},
    {HEADER("<f4", "False", "(18446744073709551615,)"), 0, "more elements than memory"},
    {HEADER("<f4", "False", "(4611686018427387904,)"), 0, "more elements than memory"},
    {HEADER("|u1", "False", "(4294967296, 4294967296)"), 0, "more elements than memory"},
    {HEADER("|u1", "False", "(0, 4294967296, 4294967296)"), 0, "more elements than memory"},
    {HEADER("|u1", "False", "(1, 1, 1, 1, 1, 1, 1, 1, 1)"), 1, "more than 8 dimensions"},
    {HEADER("<f4", "False", "(2)"), 8, "not a tuple"},
    {HEADER("<f4", "False", "[2]"), 8, "not a tuple"},
    {HEADER("<f4", "False", "2"), 8, "not a tuple"},
    {HEADER("<f4", "False", "(,)"), 4, "not a number"},
    {HEADER("<f4", "False", "(2,,1)"), 8, "not a number"},
    {HEADER("<f4", "False", "(2 1)"), 8, "without ','"},
    {HEADER("<f4", "False", "(2.0, 1)"), 8, "without ','"},
    {HEADER("<f4", "False", "(0x2, 1)"), 8, "without ','"},
    {HEADER("<f4", "False", "(True, 1)"), 8, "not a number"},
    {HEADER("<f4", "False", "(2, 1"), 8, "not a number"},
    {"{'descr': '<f4', 'fortran_order': False, }", 4, "no descr, no fortran_order or no shape"},
    {"{'fortran_order': False, 'shape': (1,)}", 4, "no descr, no fortran_order or no shape"},
    {"{'descr': '<f4', 'descr': '<f4', 'fortran_order': False, 'shape': (1,)}", 4, "a key twice"},
    {"{'descr': '<f4', 'shape': (1,), 'fortran_order': False, 'x': 1}", 4, "a key that is none"},
    {"{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1,)}", 4, "structured"},
    {"{'descr': '<f4\", 'fortran_order': False, 'shape': (1,)}", 4, "no ','"},
    {"{'descr': '<f\\x34', 'fortran_order': False, 'shape': (1,)}", 4, "no short string"},
    {"{'descr' '<f4', 'fortran_order': False, 'shape': (1,)}", 4, "no ':'"},
    {"{'descr': '<f4' 'fortran_order': False, 'shape': (1,)}", 4, "no ','"},
    {"{'descr': '<f4', 'fortran_order': False, 'shape': (1,)} + 1", 4, "text after its end"},
    {"{'descr': '<f4', 'fortran_order': False, 'shape': (1,)", 4, "no ','"},
    {"", 4, "no '{'"},
    {"[]", 4, "no '{'"},
};

static void test_refused(void) {
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        struct npy a;
        struct error e = {0};
        CHECK_MSG(!parse(refused[i].text, refused[i].data_bytes, &a, &e), "accepted: %s",
                  refused[i].text);
        CHECK_MSG(e.status == STATUS_FORMAT && strstr(e.message, refused[i].why) != NULL, "%s: %s",
                  refused[i].text, e.message);
        CHECK_MSG(strncmp(e.message, "t.npz: w ", 9) == 0, "%s", e.message);
    }
}

/* The part of the file before the text: magic, version, length. */
static void test_prefix(void) {
    static const struct {
        size_t at;
        unsigned char value;
        const char *why;
    } cases[] = {
        {0, 'x', "not in npy format"}, {5, 'y', "not in npy format"},
        {6, 3, "version 3.0"},         {6, 0, "version 0.0"},
        {7, 1, "version 1.1"},         {9, 255, "bytes of npy header"},
    };
    struct npy a;
    struct error e = {0};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct span file = make(1, HEADER("<f4", "False", "(2,)"), 8);
        ((unsigned char *)file.data)[cases[i].at] = cases[i].value;
        CHECK(!npy_parse(file, "w", &a, &e));
        CHECK_MSG(strstr(e.message, cases[i].why) != NULL, "%s", e.message);
        free((void *)file.data);
    }
    struct span file = make(2, HEADER("<f4", "False", "(2,)"), 8);
    CHECK(npy_parse(file, "w", &a, &e) && a.header_bytes == file.size - 8);
    ((unsigned char *)file.data)[11] = 255; /* a header of 4 GB */
    CHECK(!npy_parse(file, "w", &a, &e));
    free((void *)file.data);

    char *padded = calloc(1, 60001);
    memset(padded, ' ', 60000);
    memcpy(padded, HEADER("<f4", "False", "(2,)"), strlen(HEADER("<f4", "False", "(2,)")));
    CHECK(parse(padded, 8, &a, &e));
    free(padded);
}

/* A file cut anywhere is refused, and no changed byte leads outside it. */
static void test_hostile(void) {
    struct npy a;
    struct error e;
    for (int version = 1; version <= 2; version++) {
        struct span file = make(version, HEADER("<f4", "False", "(2, 2)"), 16);
        for (size_t size = 0; size < file.size; size++) {
            unsigned char *cut = malloc(size);
            if (size) memcpy(cut, file.data, size);
            CHECK_MSG(!npy_parse((struct span){cut, size}, "w", &a, &e), "%zu bytes", size);
            free(cut);
        }
        free((void *)file.data);
    }
    struct span whole = make(1, HEADER("<f4", "False", "(2, 2)"), 16);
    unsigned char *p = (unsigned char *)whole.data;
    for (size_t at = 0; at < whole.size; at++) {
        unsigned char was = p[at];
        for (int value = 0; value < 256; value++) {
            p[at] = (unsigned char)value;
            if (npy_parse(whole, "w", &a, &e)) CHECK(a.header_bytes + a.data_bytes == whole.size);
        }
        p[at] = was;
    }
    free(p);
}

static void test_header(void) {
    static const struct {
        int dims;
        uint64_t shape[NPY_MAX_DIMS];
        const char *text;
    } cases[] = {
        {0, {0}, "{'descr': '<f2', 'fortran_order': False, 'shape': (), }"},
        {1, {7}, "{'descr': '<f2', 'fortran_order': False, 'shape': (7,), }"},
        {2, {4096, 512}, "{'descr': '<f2', 'fortran_order': False, 'shape': (4096, 512), }"},
        {8,
         {1, 2, 1, 2, 1, 2, 1, 2},
         "{'descr': '<f2', 'fortran_order': False, "
         "'shape': (1, 2, 1, 2, 1, 2, 1, 2), }"},
    };
    unsigned char out[NPY_MAX_HEADER];
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        for (uint64_t offset = 0; offset < 130; offset++) {
            size_t n = npy_header(out, DTYPE_F16, cases[i].dims, cases[i].shape, offset);
            CHECK((offset + n) % 64 == 0 && out[n - 1] == '\n');
            CHECK(memcmp(out + 10, cases[i].text, strlen(cases[i].text)) == 0);
            size_t data_bytes;
            CHECK(npy_bytes(DTYPE_F16, cases[i].dims, cases[i].shape, &data_bytes));
            unsigned char *file = calloc(1, n + data_bytes);
            memcpy(file, out, n);
            struct npy a;
            struct error e = {0};
            CHECK_MSG(npy_parse((struct span){file, n + data_bytes}, "w", &a, &e), "%s", e.message);
            CHECK(a.header_bytes == n && a.dims == cases[i].dims);
            free(file);
        }
    }
    /* MLX looks at fixed columns. */
    CHECK(memcmp(out + 10 + 11, "<f2", 3) == 0 && out[10 + 34] == 'F');
    uint64_t huge[NPY_MAX_DIMS];
    memset(huge, 255, sizeof huge);
    CHECK(npy_header(out, DTYPE_F16, NPY_MAX_DIMS, huge, 1) <= NPY_MAX_HEADER);
}

static void test_bytes(void) {
    size_t n;
    CHECK(npy_bytes(DTYPE_F64, 0, NULL, &n) && n == 8);
    CHECK(npy_bytes(DTYPE_F64, 2, (uint64_t[]){3, 5}, &n) && n == 120);
    CHECK(npy_bytes(DTYPE_U8, 2, (uint64_t[]){0, 1ull << 62}, &n) && n == 0);
    CHECK(npy_bytes(DTYPE_U8, 1, (uint64_t[]){PTRDIFF_MAX}, &n) && n == PTRDIFF_MAX);
    CHECK(!npy_bytes(DTYPE_U8, 1, (uint64_t[]){1ull << 63}, &n));
    CHECK(!npy_bytes(DTYPE_U16, 1, (uint64_t[]){1ull << 62}, &n));
    CHECK(!npy_bytes(DTYPE_U8, 3, (uint64_t[]){0, 1ull << 62, 2}, &n));
}

/* What numpy itself writes, in every type that nibble reads. */
static void test_numpy(void) {
    CHECK(scratch_python("for t in 'f4 f2 f8 u1 i1 u2 i2 u4 i4 u8 i8'.split():\n"
                         "    np.save(t, np.arange(15, dtype=t).reshape(3, 5))\n"
                         "np.save('bool', np.ones((2, 2), bool))\n"
                         "np.save('V2', np.zeros((2, 2), 'V2'))\n"
                         "np.save('object', np.array([1, 'x'], object))\n"
                         "np.save('fields', np.zeros(2, [('a', 'f4'), ('b', 'i4')]))\n"
                         "np.save('order', np.asfortranarray(np.zeros((2, 3))))\n"));
    static const struct {
        const char *file;
        enum dtype dtype;
        int rows, cols;
    } cases[] = {
        {"f4.npy", DTYPE_F32, 3, 5},       {"f2.npy", DTYPE_F16, 3, 5},
        {"f8.npy", DTYPE_F64, 3, 5},       {"u1.npy", DTYPE_U8, 3, 5},
        {"i1.npy", DTYPE_I8, 3, 5},        {"u2.npy", DTYPE_U16, 3, 5},
        {"i2.npy", DTYPE_I16, 3, 5},       {"u4.npy", DTYPE_U32, 3, 5},
        {"i4.npy", DTYPE_I32, 3, 5},       {"u8.npy", DTYPE_U64, 3, 5},
        {"i8.npy", DTYPE_I64, 3, 5},       {"bool.npy", DTYPE_BOOL, 2, 2},
        {"V2.npy", DTYPE_BF16, 2, 2},      {"object.npy", DTYPE_COUNT, 0, 0},
        {"fields.npy", DTYPE_COUNT, 0, 0}, {"order.npy", DTYPE_COUNT, 0, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct span file;
        struct npy a = {0};
        struct error e = {0};
        file.data = scratch_read(cases[i].file, &file.size);
        bool ok = file.data && npy_parse(file, cases[i].file, &a, &e);
        CHECK_MSG(ok == (cases[i].dtype != DTYPE_COUNT), "%s %s", cases[i].file, e.message);
        if (ok) {
            CHECK(a.dtype == cases[i].dtype && a.dims == 2);
            CHECK(a.shape[0] == (uint64_t)cases[i].rows && a.shape[1] == (uint64_t)cases[i].cols);
        }
        free((void *)file.data);
    }
}

int main(void) {
    scratch_open();
    check_run("npy: headers that are read", test_accepted);
    check_run("npy: headers that are refused", test_refused);
    check_run("npy: magic, version and length", test_prefix);
    check_run("npy: cut and changed bytes", test_hostile);
    check_run("npy: header written", test_header);
    check_run("npy: size of a shape", test_bytes);
    check_run("npy: files of numpy", test_numpy);
    return check_done();
}
