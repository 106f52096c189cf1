/* Where tensors lie: the parts of fused ones, stacks of experts, MXFP4 in both layouts, and what
 * does not fit. The rows that a part should have are written out here once more. */
#include "fixture.h"
#include "model/tensors.h"
#include "num/mxfp4.h"

#define CHECK_STR(text, want) CHECK_MSG(strcmp(text, want) == 0, "'%s', not '%s'", text, want)

enum { COLS = 6, LARGEST = 64 };

/* 4 heads share 2 keys: 8 dimensions of which latent attention turns 3, 5 of a value, 7 latent. */
static const struct spec shape = {
    .heads = 4,
    .kv_heads = 2,
    .head_dim = 8,
    .value_dim = 5,
    .nope_dim = 5,
    .rope_dim = 3,
    .kv_rank = 7,
};

/* --- a store of a few arrays, in memory ------------------------------------------------------- */

static struct array arrays[8];
static struct store store;
static struct tensors tensors;
static struct spec spec;

static int by_name(const void *a, const void *b) {
    return strcmp(((const struct array *)a)->name, ((const struct array *)b)->name);
}

static struct array *find(const char *name) {
    for (size_t i = 0; i < store.count; i++) {
        if (strcmp(arrays[i].name, name) == 0) return &arrays[i];
    }
    printf("no array %s\n", name);
    exit(1);
}

/* An array of zeros; shape ends with 0. Gives its bytes. */
static unsigned char *add(const char *name, enum dtype dtype, const size_t *dims) {
    struct array a = {.name = name, .dtype = dtype};
    size_t bytes = dtype_bytes(dtype);
    for (; dims[a.dims]; a.dims++) {
        a.shape[a.dims] = dims[a.dims];
        bytes *= dims[a.dims];
    }
    unsigned char *data = calloc(bytes, 1);
    a.bytes = (struct span){data, bytes};
    arrays[store.count++] = a;
    qsort(arrays, store.count, sizeof *arrays, by_name);
    return data;
}

#define ADD(name, dtype, ...) add(name, dtype, (size_t[]){__VA_ARGS__, 0})

/* Values 0, 1, 2 .. */
#define ADD_COUNTED(name, ...) count_up((float *)(void *)ADD(name, DTYPE_F32, __VA_ARGS__), name)

static void count_up(float *x, const char *name) {
    size_t n = find(name)->bytes.size / sizeof *x;
    for (size_t i = 0; i < n; i++) x[i] = (float)i;
}

static void start(void) {
    for (size_t i = 0; i < store.count; i++) free((void *)arrays[i].bytes.data);
    store = (struct store){.arrays = arrays, .path = (char *)"m"};
    spec = shape;
    ADD("model.embed_tokens.weight", DTYPE_F32, 1, 1);
    CHECK(tensors_open(&tensors, &store, &spec, "embed_tokens tok_embeddings"));
}

static bool find_matrix(struct mat *m, const struct tensors_slot *slot, size_t item) {
    struct tensors_place place;
    tensors_find(&place, &tensors, slot, 3, item);
    return place.array && tensors_matrix(m, &place, slot);
}

/* --- parts ------------------------------------------------------------------------------------ */

/* Row r of the part is row `of(r)` of a tensor of `total` rows. */
struct part {
    const char *name;
    size_t rows, total;
    size_t (*of)(size_t r);
};

static size_t row_first(size_t r) {
    return r;
}
static size_t row_k(size_t r) {
    return 32 + r;
}
static size_t row_v(size_t r) {
    return 48 + r;
}
/* a group: 16 rows of queries, 8 of keys, 8 of values */
static size_t row_gq(size_t r) {
    return r / 16 * 32 + r % 16;
}
static size_t row_gk(size_t r) {
    return r / 8 * 32 + 16 + r % 8;
}
static size_t row_gv(size_t r) {
    return r / 8 * 32 + 24 + r % 8;
}
static size_t row_turning(size_t r) {
    return 7 + r;
}
/* a head: 5 rows of keys, 5 of values */
static size_t row_nope(size_t r) {
    return r / 5 * 10 + r % 5;
}
static size_t row_values(size_t r) {
    return r / 5 * 10 + 5 + r % 5;
}
static size_t row_up(size_t r) {
    return 11 + r;
}
static size_t row_even(size_t r) {
    return 2 * r;
}
static size_t row_odd(size_t r) {
    return 2 * r + 1;
}

static const struct part parts[] = {
    {"q", 32, 64, row_first},     {"k", 16, 64, row_k},
    {"v", 16, 64, row_v},         {"gq", 32, 64, row_gq},
    {"gk", 16, 64, row_gk},       {"gv", 16, 64, row_gv},
    {"latent", 7, 10, row_first}, {"turning", 3, 10, row_turning},
    {"nope", 20, 40, row_nope},   {"values", 20, 40, row_values},
    {"gate", 11, 22, row_first},  {"up", 11, 22, row_up},
    {"even", 11, 22, row_even},   {"odd", 11, 22, row_odd},
};
enum { PARTS = sizeof parts / sizeof *parts };

/* Values of a tensor that counts up; a column apart where it is stored transposed. */
static void check_values(const struct mat *m, const struct part *p, size_t base, bool transposed) {
    float x[LARGEST * COLS];
    size_t wrong = 0;
    CHECK(m->rows == p->rows && m->cols == COLS);
    format_decode(m, 0, m->rows, x);
    for (size_t i = 0; i < m->rows * COLS; i++) {
        size_t row = p->of(i / COLS), col = i % COLS;
        size_t at = transposed ? col * p->total + row : row * COLS + col;
        wrong += x[i] != (float)(base + at);
    }
    CHECK_MSG(!wrong, "@%s%s: %zu values are wrong", p->name, transposed ? " transposed" : "",
              wrong);
}

static void test_parts_of_matrices(void) {
    for (int i = 0; i < PARTS; i++) {
        for (int transposed = 0; transposed < 2; transposed++) {
            char names[64];
            struct mat m;
            snprintf(names, sizeof names, "absent other%s@%s", transposed ? "^" : "",
                     parts[i].name);
            struct tensors_slot slot = {names, true, true, false, parts[i].rows, COLS, 1};
            start();
            spec.transposed = transposed;
            if (transposed)
                ADD_COUNTED("model.layers.3.other.weight", COLS, parts[i].total);
            else
                ADD_COUNTED("model.layers.3.other.weight", parts[i].total, COLS);
            CHECK_MSG(find_matrix(&m, &slot, 0), "%s", names);
            check_values(&m, &parts[i], 0, transposed);
            find("model.layers.3.other.weight")->shape[transposed]++; /* nor one row more */
            CHECK_MSG(!find_matrix(&m, &slot, 0), "%s", names);
            find("model.layers.3.other.weight")->shape[transposed] -= 2;
            CHECK_MSG(!find_matrix(&m, &slot, 0), "%s", names);
        }
    }
}

static void test_parts_of_vectors(void) {
    for (int i = 0; i < PARTS; i++) {
        char names[64];
        float x[LARGEST] = {0};
        struct tensors_place place;
        snprintf(names, sizeof names, "absent.bias other.bias@%s", parts[i].name);
        struct tensors_slot slot = {names, false, true, false, 1, parts[i].rows, 1};
        start();
        ADD_COUNTED("model.layers.3.other.bias", parts[i].total);
        tensors_find(&place, &tensors, &slot, 3, 0);
        CHECK(place.array && !place.whole && tensors_vector(x, &place, &slot));
        for (size_t r = 0; r < parts[i].rows; r++) {
            CHECK_MSG(x[r] == (float)parts[i].of(r), "@%s: %zu is %g", parts[i].name, r, x[r]);
        }
        find("model.layers.3.other.bias")->shape[0]++;
        CHECK(!tensors_vector(NULL, &place, &slot));
    }
}

/* One key/value head and as many as heads: groups of all rows, and of three heads. */
static void test_groups_of_other_heads(void) {
    static const struct {
        size_t kv_heads, total, k, v;
    } cases[] = {{1, 48, 32, 40}, {4, 96, 8, 16}};
    for (int i = 0; i < 2; i++) {
        struct mat k, v;
        float x[COLS];
        size_t rows = cases[i].kv_heads * 8;
        struct tensors_slot slot = {"other@gk", true, true, false, rows, COLS, 1};
        start();
        spec.kv_heads = cases[i].kv_heads;
        ADD_COUNTED("model.layers.3.other.weight", cases[i].total, COLS);
        CHECK(find_matrix(&k, &slot, 0));
        slot.names = "other@gv";
        CHECK(find_matrix(&v, &slot, 0));
        for (size_t r = 0; r < rows; r++) {
            size_t group = r / 8 * (cases[i].total / cases[i].kv_heads) + r % 8;
            format_decode(&k, r, 1, x);
            CHECK(x[0] == (float)((group + cases[i].k) * COLS));
            format_decode(&v, r, 1, x);
            CHECK(x[0] == (float)((group + cases[i].v) * COLS));
        }
    }
}

/* The words of a slot are tried in order; a transposed one only where the model is. */
static void test_words(void) {
    struct tensors_slot slot = {"first second^@up third@up", true, true, false, 11, COLS, 1};
    struct tensors_place place;
    start();
    tensors_find(&place, &tensors, &slot, 3, 0);
    CHECK(!place.array);
    CHECK_STR(place.name, "model.layers.3.first");
    ADD_COUNTED("model.layers.3.third.weight", 22, COLS);
    tensors_find(&place, &tensors, &slot, 3, 0);
    CHECK(place.array && place.part.first == 11 && !place.whole);
    CHECK_STR(place.name, "model.layers.3.third");
    ADD_COUNTED("model.layers.3.second.weight", COLS, 22);
    tensors_find(&place, &tensors, &slot, 3, 0);
    CHECK_STR(place.name, "model.layers.3.third");
    spec.transposed = 1;
    tensors_find(&place, &tensors, &slot, 3, 0);
    CHECK(place.transposed);
    CHECK_STR(place.name, "model.layers.3.second");
    ADD_COUNTED("model.layers.3.first.weight", 11, COLS);
    tensors_find(&place, &tensors, &slot, 3, 0);
    CHECK(place.whole && !place.transposed);
    char name[TENSORS_NAME_BYTES];
    slot.names = "experts.#.w1 w1";
    tensors_name(name, &tensors, &slot, 12, 345);
    CHECK_STR(name, "model.layers.12.experts.345.w1");
}

/* --- stacks ----------------------------------------------------------------------------------- */

static void test_stacked(void) {
    static const struct part all = {"", 10, 10, row_first};
    static const struct part even = {"even", 10, 20, row_even}, odd = {"odd", 10, 20, row_odd};
    struct tensors_slot slot = {
        "each.#.w stack.w both^@even both^@odd", true, true, true, 10, COLS, 4};
    struct mat m;
    start(); /* as mlx-lm has them */
    ADD_COUNTED("model.layers.3.stack.w.weight", 4, 10, COLS);
    for (size_t i = 0; i < 4; i++) {
        CHECK(find_matrix(&m, &slot, i));
        check_values(&m, &all, i * 10 * COLS, false);
    }
    start(); /* as gpt-oss does */
    ADD_COUNTED("model.layers.3.both", 4, COLS, 20);
    for (size_t i = 0; i < 4; i++) {
        slot.names = "both^@even";
        CHECK(find_matrix(&m, &slot, i));
        check_values(&m, &even, i * 20 * COLS, true);
        slot.names = "both^@odd";
        CHECK(find_matrix(&m, &slot, i));
        check_values(&m, &odd, i * 20 * COLS, true);
    }
    start(); /* one each */
    slot.names = "each.#.w stack.w";
    ADD_COUNTED("model.layers.3.each.0.w.weight", 10, COLS);
    CHECK(find_matrix(&m, &slot, 0) && !find_matrix(&m, &slot, 1));
    check_values(&m, &all, 0, false);
}

/* A matrix that is of no expert is in no stack, and one of a single expert is. */
static void test_stack_of_one(void) {
    struct tensors_slot slot = {"stack.w", true, true, true, 10, COLS, 1};
    struct mat m;
    start();
    ADD_COUNTED("model.layers.3.stack.w.weight", 1, 10, COLS);
    CHECK(find_matrix(&m, &slot, 0) && m.rows == 10);
    slot.of_experts = false;
    CHECK(!find_matrix(&m, &slot, 0));
}

static void test_stacks_that_do_not_fit(void) {
    static const size_t wrong[][4] = {{5, 10, COLS}, {3, 10, COLS}, {4, 11, COLS},
                                      {4, 9, COLS},  {4, 10, 7},    {4, 10, 5},
                                      {4, COLS, 10}, {40, COLS},    {4, 10 * COLS}};
    struct tensors_slot slot = {"stack.w", true, true, true, 10, COLS, 4};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        struct mat m;
        start();
        add("model.layers.3.stack.w.weight", DTYPE_F32, wrong[i]);
        CHECK_MSG(!find_matrix(&m, &slot, 0), "case %zu", i);
    }
    start();
    ADD("model.layers.3.stack.w.weight", DTYPE_I32, 4, 10, COLS);
    struct mat m;
    CHECK(!find_matrix(&m, &slot, 0));
}

/* Vectors: a row for each, in a stack, in tensors of their own, or every other number of it. */
static void test_rows_of_vectors(void) {
    struct tensors_place place;
    struct tensors_slot slot = {"stack.bias each.#.bias", false, true, false, 1, 5, 3};
    float x[5];
    start();
    ADD_COUNTED("model.layers.3.stack.bias", 3, 5);
    for (size_t i = 0; i < 3; i++) {
        tensors_find(&place, &tensors, &slot, 3, i);
        CHECK(place.whole && tensors_vector(x, &place, &slot) && x[4] == (float)(i * 5 + 4));
    }
    find("model.layers.3.stack.bias")->shape[0] = 4;
    CHECK(!tensors_vector(NULL, &place, &slot));
    slot.names = "both_bias@odd";
    ADD_COUNTED("model.layers.3.both_bias", 3, 10);
    tensors_find(&place, &tensors, &slot, 3, 2);
    CHECK(tensors_vector(x, &place, &slot) && x[0] == 21 && x[4] == 29);
    slot.names = "each.#.bias";
    ADD_COUNTED("model.layers.3.each.1.bias", 5);
    tensors_find(&place, &tensors, &slot, 3, 1);
    CHECK(!place.whole && tensors_vector(x, &place, &slot) && x[4] == 4);
    tensors_find(&place, &tensors, &slot, 3, 2);
    CHECK(!place.array);
}

/* --- MXFP4 ------------------------------------------------------------------------------------ */

/* OCP Microscaling Formats 1.0, 5.3.3: a sign, two bits of exponent with a bias of 1, one bit of
 * mantissa; and 5.4.1: a scale is a power of two with a bias of 127, and 255 is NaN. */
static float element(int code, int scale) {
    int exponent = code >> 1 & 3, mantissa = code & 1;
    double size = exponent ? (1 + mantissa / 2.0) * (1 << (exponent - 1)) : mantissa / 2.0;
    double value = (code & 8 ? -size : size) * pow(2, scale - 127);
    return scale == 255 ? NAN : (float)value;
}

/* Row r, column c of expert e. */
static int code_of(size_t e, size_t r, size_t c) {
    return (int)((e * 5 + r * 3 + c * 7 + c / 16) % 16);
}

static int scale_of(size_t e, size_t r, size_t group) {
    return (int)((e * 101 + r * 23 + group * 67 + 120) % 256);
}

enum { EXPERTS = 3, ROWS = 12, WIDE = 96, GROUPS = WIDE / MXFP4_GROUP };

/* As gpt-oss: bytes [rows, groups, 16]; or as MLX: words [rows, cols / 8]. Rows of 2 * ROWS. */
static void add_mxfp4(bool words, const char *codes_name, const char *scales_name) {
    unsigned char *codes =
        words ? ADD(codes_name, DTYPE_U32, EXPERTS, 2 * ROWS, WIDE / 8)
              : ADD(codes_name, DTYPE_U8, EXPERTS, 2 * ROWS, GROUPS, MXFP4_GROUP / 2);
    unsigned char *scales = ADD(scales_name, DTYPE_U8, EXPERTS, 2 * ROWS, GROUPS);
    for (size_t i = 0; i < EXPERTS * 2 * ROWS * WIDE; i++) {
        size_t e = i / WIDE / (2 * ROWS), r = i / WIDE % (2 * ROWS), c = i % WIDE;
        codes[i / 2] |= (unsigned char)(code_of(e, r, c) << (c % 2 ? 4 : 0));
        scales[i / MXFP4_GROUP] = (unsigned char)scale_of(e, r, c / MXFP4_GROUP);
    }
}

/* Rows first, first + apart .. of expert e. */
static void check_mxfp4(const struct mat *m, size_t e, size_t first, size_t apart) {
    static float x[2 * ROWS * WIDE];
    size_t wrong = 0;
    CHECK(m->format == &format_mxfp4 && m->cols == WIDE);
    format_decode(m, 0, m->rows, x);
    for (size_t i = 0; i < m->rows * WIDE; i++) {
        size_t r = first + i / WIDE * apart, c = i % WIDE;
        float want = element(code_of(e, r, c), scale_of(e, r, c / MXFP4_GROUP));
        if (isnan(want) ? !isnan(x[i]) : memcmp(&x[i], &want, sizeof want) != 0) wrong++;
    }
    CHECK_MSG(!wrong, "%zu values are wrong", wrong);
}

static void test_mxfp4_stacks(void) {
    struct tensors_slot slot = {"both^@odd", true, true, true, ROWS, WIDE, EXPERTS};
    struct mat m;
    start();
    add_mxfp4(false, "model.layers.3.both_blocks", "model.layers.3.both_scales");
    for (size_t e = 0; e < EXPERTS; e++) {
        CHECK(find_matrix(&m, &slot, e) && m.rows == ROWS);
        check_mxfp4(&m, e, 1, 2);
    }
    start();
    slot.names = "stack.w";
    slot.rows = 2 * ROWS;
    add_mxfp4(true, "model.layers.3.stack.w.weight", "model.layers.3.stack.w.scales");
    for (size_t e = 0; e < EXPERTS; e++) {
        CHECK(find_matrix(&m, &slot, e) && m.rows == 2 * ROWS);
        check_mxfp4(&m, e, 0, 1);
    }
}

/* Every code with every scale. */
static void test_mxfp4_values(void) {
    unsigned char codes[16];
    for (int i = 0; i < 16; i++) codes[i] = (unsigned char)(i % 8 * 2 | (i % 8 * 2 + 1) << 4);
    for (int s = 0; s < 256; s++) {
        unsigned char scale = (unsigned char)s;
        struct mat m = mxfp4_mat(1, 32, codes, &scale);
        float x[32];
        format_decode(&m, 0, 1, x);
        for (int i = 0; i < 32; i++) {
            float want = element(i % 16, s);
            bool same = isnan(want) ? isnan(x[i]) : memcmp(&x[i], &want, sizeof want) == 0;
            CHECK_MSG(same, "code %d, scale %d: %g, not %g", i % 16, s, x[i], want);
        }
    }
    struct mat m = mxfp4_mat(7, 64, codes, codes);
    CHECK(format_bytes(&m) == 7 * (32 + 2) && format_row_bytes(&m) == 34 && m.bits == 4);
}

static void test_mxfp4_that_does_not_fit(void) {
    static const struct {
        const char *name; /* of what is changed */
        int dim, by;
        enum dtype dtype;
    } changes[] = {
        {"both_blocks", 0, 1, DTYPE_U8},  {"both_blocks", 0, -1, DTYPE_U8},
        {"both_blocks", 1, 1, DTYPE_U8},  {"both_blocks", 1, -1, DTYPE_U8},
        {"both_blocks", 2, 1, DTYPE_U8},  {"both_blocks", 2, -1, DTYPE_U8},
        {"both_blocks", 3, 16, DTYPE_U8}, {"both_blocks", 3, -1, DTYPE_U8},
        {"both_blocks", 0, 0, DTYPE_U32}, {"both_blocks", 0, 0, DTYPE_F32},
        {"both_scales", 0, 1, DTYPE_U8},  {"both_scales", 1, -1, DTYPE_U8},
        {"both_scales", 2, 1, DTYPE_U8},  {"both_scales", 2, -1, DTYPE_U8},
        {"both_scales", 0, 0, DTYPE_F16}, {"both_scales", 0, 0, DTYPE_F32},
        {"both_scales", 0, 0, DTYPE_I8},
    };
    struct tensors_slot slot = {"both^@even", true, true, true, ROWS, WIDE, EXPERTS};
    struct mat m;
    for (size_t i = 0; i < sizeof changes / sizeof *changes; i++) {
        char name[64];
        snprintf(name, sizeof name, "model.layers.3.%s", changes[i].name);
        start();
        add_mxfp4(false, "model.layers.3.both_blocks", "model.layers.3.both_scales");
        CHECK(find_matrix(&m, &slot, 0));
        find(name)->shape[changes[i].dim] += (uint64_t)changes[i].by;
        find(name)->dtype = changes[i].dtype;
        CHECK_MSG(!find_matrix(&m, &slot, 0), "change %zu", i);
    }
    start();
    add_mxfp4(false, "model.layers.3.both_blocks", "model.layers.3.both_scale");
    CHECK(!find_matrix(&m, &slot, 0)); /* no scales */
    start();
    slot.cols = 80; /* two groups and a half */
    ADD("model.layers.3.both_blocks", DTYPE_U8, EXPERTS, 2 * ROWS, 2, MXFP4_GROUP / 2);
    ADD("model.layers.3.both_scales", DTYPE_U8, EXPERTS, 2 * ROWS, 2);
    CHECK(!find_matrix(&m, &slot, 0));
}

/* --- parts of a matrix ------------------------------------------------------------------------ */

/* Row r of every format_part() is where its comment says, in every plane. */
static void test_format_part(void) {
    static const size_t cases[][4] = {/* first, rows, block, apart */
                                      {0, 9, 0, 0}, {5, 9, 0, 0}, {3, 6, 2, 7}, {4, 12, 6, 14},
                                      {0, 7, 1, 2}, {1, 7, 1, 2}, {2, 3, 1, 9}, {8, 5, 5, 0}};
    static const unsigned char planes[MAT_PLANES][1024];
    struct mat m = {.rows = 40, .cols = 8, .format = &format_f32};
    for (int p = 0; p < 2; p++) {
        m.plane[p] = planes[p];
        m.stride[p] = m.row_bytes[p] = (size_t)(p ? 2 : 8);
    }
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const size_t *c = cases[i], block = c[2] ? c[2] : c[1];
        struct mat part = format_part(&m, c[0], c[1], c[2], c[3]);
        CHECK(part.rows == c[1] && part.cols == 8 && !part.plane[2]);
        for (size_t r = 0; r < part.rows; r++) {
            size_t n, row = c[0] + r / block * c[3] + r % block;
            struct mat at = format_rows(&part, r, &n);
            CHECK_MSG(at.plane[0] == planes[0] + 8 * row && at.plane[1] == planes[1] + 2 * row,
                      "case %zu, row %zu", i, r);
        }
    }
}

int main(void) {
    check_run("parts of matrices", test_parts_of_matrices);
    check_run("parts of vectors", test_parts_of_vectors);
    check_run("groups of other heads", test_groups_of_other_heads);
    check_run("words", test_words);
    check_run("stacked", test_stacked);
    check_run("a stack of one", test_stack_of_one);
    check_run("stacks that do not fit", test_stacks_that_do_not_fit);
    check_run("rows of vectors", test_rows_of_vectors);
    check_run("MXFP4 stacks", test_mxfp4_stacks);
    check_run("MXFP4 values", test_mxfp4_values);
    check_run("MXFP4 that does not fit", test_mxfp4_that_does_not_fit);
    check_run("parts of a matrix", test_format_part);
    return check_done();
}
