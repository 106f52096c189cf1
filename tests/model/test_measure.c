/* The section "measuring" of nibble.h, and the numbers of a model and a context that a benchmark
 * divides by. How fast anything is cannot be tested; that it is measured, and counted right, can.
 */
#include "nibble.h"
#include "tiny.h"

static const char *const kernels[] = {
#define KERNEL(name, result, params) #name,
#include "kern/kern.def"
#undef KERNEL
};

enum { KERNELS = sizeof kernels / sizeof *kernels, MOST_TIMES = 400 };

/* --- kernels ---------------------------------------------------------------------------------- */

struct time {
    char kernel[32], level[16], format[40];
    double bytes, ops, ns;
};

static struct times {
    struct time all[MOST_TIMES];
    size_t count, end; /* see says no to so many; 0: never */
} times;

static bool see(void *arg, const nibble_kernel_time *t) {
    struct times *list = arg;
    if (list->count == MOST_TIMES) return false;
    struct time *copy = &list->all[list->count++];
    snprintf(copy->kernel, sizeof copy->kernel, "%s", t->kernel);
    snprintf(copy->level, sizeof copy->level, "%s", t->level);
    snprintf(copy->format, sizeof copy->format, "%s", t->format);
    copy->bytes = t->bytes;
    copy->ops = t->ops;
    copy->ns = t->ns;
    return list->count != list->end;
}

/* The row, of any format if that is NULL; NULL if there is none. */
static const struct time *find(const char *kernel, const char *level, const char *format) {
    for (size_t i = 0; i < times.count; i++) {
        const struct time *t = &times.all[i];
        if (strcmp(t->kernel, kernel) == 0 && strcmp(t->level, level) == 0 &&
            (!format || strcmp(t->format, format) == 0))
            return t;
    }
    return NULL;
}

static void check_formats(const char *kernel, const char *level) {
    static const char *const formats[] = {
        "2 bits, group 64",  "3 bits, group 64", "4 bits, group 32", "4 bits, group 64",
        "4 bits, group 128", "5 bits, group 64", "6 bits, group 64", "8 bits, group 64"};
    for (size_t i = 0; i < 8; i++) {
        CHECK_MSG(find(kernel, level, formats[i]), "no row of %s at level %s with %s", kernel,
                  level, formats[i]);
    }
}

static void check_counts(const char *kernel, const char *format, double bytes, double ops) {
    const struct time *t = find(kernel, "scalar", format);
    CHECK_MSG(t && t->bytes == bytes && t->ops == ops, "%s: %.0f bytes, %.0f ops", kernel,
              t ? t->bytes : 0, t ? t->ops : 0);
}

/* Scalar has all kernels; every other level has products of affine weights of its own, and no row
 * of what it takes from the level below. */
static void test_kernels(void) {
    nibble_error e;
    times = (struct times){0};
    CHECK(nibble_measure_kernels(NULL, see, &times, &e));
    CHECK(times.count < MOST_TIMES);
    for (size_t i = 0; i < times.count; i++) {
        const struct time *t = &times.all[i];
        bool in_registers = strstr(t->kernel, "peak_int8") || strstr(t->kernel, "peak_f32");
        CHECK_MSG(t->ns > 0 && t->ops > 0 && (t->bytes > 0) != in_registers,
                  "%s at level %s: %g bytes, %g ops, %g ns", t->kernel, t->level, t->bytes, t->ops,
                  t->ns);
        CHECK_MSG(find(t->kernel, t->level, t->format) == t, "%s at level %s twice", t->kernel,
                  t->level);
    }
    for (size_t i = 0; i < KERNELS; i++) {
        CHECK_MSG(find(kernels[i], "scalar", NULL), "no row of %s", kernels[i]);
    }
    int next = 0;
    for (const char *level; (level = fixture_next_level(&next)) != NULL;) {
        check_formats("affine_rows", level);
        check_formats("affine_strip", level);
        check_formats("affine_pack", level);
        CHECK(!find("dot_f32", level, NULL) == (strcmp(level, "avxvnni") == 0));
    }
    check_counts("load_f16", "f16", 8192 * (4 + 2), 8192);
    check_counts("silu_mul", "f32", 8192 * 3 * 4, 8192);
    check_counts("dots_f16", "f16", 64 * 1024 * 2 + 48 * 1024 * 4 + 48 * 64 * 4, 64 * 1024 * 48);
    check_counts("sums_f32", "f32", 64 * 1024 * 4 + 2 * 48 * 1024 * 4 + 48 * 64 * 4,
                 64 * 1024 * 48);
    check_counts("affine_rows", "4 bits, group 64",
                 256 * (1024 + 32 * 2 * 2) + (2048 + 32 * 4 * 2) + 256 * 4, 256 * 2048);
    check_counts("affine_strip", "8 bits, group 64",
                 32 * (2048 + 32 * 2 * 2) + 64 * (2048 + 32 * 4 * 2) + 64 * 32 * 4, 32 * 2048 * 64);
}

static void test_end(void) {
    nibble_error e;
    times = (struct times){.end = 3};
    CHECK(nibble_measure_kernels(NULL, see, &times, &e) && times.count == 3);
    times = (struct times){.end = 1};
    CHECK(nibble_measure_kernels("scalar", see, &times, &e) && times.count == 1);
}

static void test_one_level(void) {
    nibble_error e = {0};
    int next = 0;
    for (const char *level; (level = fixture_next_level(&next)) != NULL;) {
        times = (struct times){.end = 3};
        CHECK(nibble_measure_kernels(level, see, &times, &e) && times.count == 3);
        for (size_t i = 0; i < times.count; i++) CHECK(strcmp(times.all[i].level, level) == 0);
    }
    times = (struct times){0};
    CHECK(!nibble_measure_kernels("mmx", see, &times, &e) && times.count == 0);
    CHECK(e.status == NIBBLE_ARGUMENT && strstr(e.message, "mmx"));
}

/* --- peaks ------------------------------------------------------------------------------------ */

/* Wide limits, which a wrong unit crosses. */
static void check_peaks(size_t memory, int threads, const char *level) {
    nibble_error e;
    nibble_peaks p = {0};
    CHECK_MSG(nibble_measure_peaks(memory, threads, level, &p, &e), "%s", e.message);
    CHECK_MSG(p.read_bytes > 1e7 && p.read_bytes < 1e14, "%g bytes a second", p.read_bytes);
    CHECK_MSG(p.int8_ops > 1e7 && p.int8_ops < 1e15, "%g multiply-adds a second", p.int8_ops);
    CHECK_MSG(p.f32_ops > 1e7 && p.f32_ops < 1e15, "%g multiply-adds a second", p.f32_ops);
}

static void check_refused(int threads, const char *level, const char *word) {
    nibble_error e = {0};
    nibble_peaks p;
    CHECK(!nibble_measure_peaks(1 << 20, threads, level, &p, &e));
    CHECK_MSG(e.status == NIBBLE_ARGUMENT && strstr(e.message, word), "%s", e.message);
}

static void test_peaks(void) {
    check_peaks(0, 1, "scalar");
    check_peaks(1 << 20, 2, NULL);
    check_peaks(5000001, 0, NULL);
    check_peaks((2 << 20) + 1, 3, NULL);
    check_refused(-1, NULL, "threads");
    check_refused(1000, NULL, "threads");
    check_refused(1, "mmx", "mmx");
}

/* --- what a model costs ----------------------------------------------------------------------- */

/* Of tiny_default: q and o [64, 64], k and v [32, 64], three of [192, 64]; output [203, 64]. */
enum { LAST = 64 * 64 + 3 * 192 * 64, LAYER = 64 * 64 + 2 * 32 * 64 + LAST, OUTPUT = 203 * 64 };

static const char *write_tiny(struct tiny t, const char *name) {
    static struct tiny_file file;
    tiny_make(&file, &t, 11);
    const char *path = tiny_write(&file, name);
    tiny_drop(&file);
    return path;
}

static nibble_model *open_model(const char *path) {
    nibble_error e;
    nibble_model *m = nibble_model_open(path, &e);
    if (m) return m;
    printf("%s\n", e.message);
    exit(1);
}

/* Quantized to 4 bits first, if a group is given. */
static nibble_model_info info_of(struct tiny t, int group) {
    nibble_model *m = open_model(write_tiny(t, "plain.npz"));
    nibble_model_info info;
    nibble_error e;
    if (group) {
        nibble_quantization q = {.bits = 4, .group = group, .threads = 1};
        nibble_quantized done;
        CHECK_MSG(nibble_quantize(m, scratch_path("small.npz"), &q, &done, &e), "%s", e.message);
        nibble_model_close(m);
        m = open_model(scratch_path("small.npz"));
    }
    nibble_model_describe(m, &info);
    nibble_model_close(m);
    return info;
}

static void check_ops(nibble_ops ops, size_t int8, size_t f32) {
    CHECK_MSG(ops.int8 == int8 && ops.f32 == f32, "%zu and %zu, not %zu and %zu", ops.int8, ops.f32,
              int8, f32);
}

static void test_ops(void) {
    struct tiny t = tiny_default;
    nibble_model_info info = info_of(t, 0);
    check_ops(info.layer_ops, 0, 2 * LAYER);
    check_ops(info.last_ops, 0, LAST);
    check_ops(info.output_ops, 0, OUTPUT);
    info = info_of(t, 64);
    check_ops(info.layer_ops, 2 * LAYER, 0);
    check_ops(info.last_ops, LAST, 0);
    check_ops(info.output_ops, OUTPUT, 0);

    t.tied = true;
    t.dtype = DTYPE_F16;
    info = info_of(t, 0);
    check_ops(info.layer_ops, 0, 2 * LAYER);
    check_ops(info.output_ops, 0, OUTPUT);

    t.hidden = 256; /* of groups of 128 only the matrix with 256 columns is made */
    info = info_of(t, 128);
    check_ops(info.layer_ops, 2 * 256 * 64, 2 * (2 * 64 * 64 + 2 * 32 * 64 + 2 * 256 * 64));
    check_ops(info.output_ops, 0, OUTPUT);
}

static void test_hash(void) {
    nibble_model_info a = info_of(tiny_default, 0), b = info_of(tiny_default, 0);
    nibble_model_info c = info_of(tiny_default, 64);
    CHECK(a.hash && a.hash == b.hash && c.hash && c.hash != a.hash);
}

static void test_window(void) {
    struct tiny t = tiny_default;
    CHECK(info_of(t, 0).window == 0);
    t.window = 9;
    CHECK(info_of(t, 0).window == 9 && info_of(t, 64).window == 9);
}

/* Two layers, keys and values of two heads of 16. */
static void test_kv(void) {
    static const char *const types[] = {"f16", "f32"};
    nibble_model *m = open_model(write_tiny(tiny_default, "plain.npz"));
    for (int i = 0; i < 2; i++) {
        nibble_context_options o = nibble_context_defaults();
        nibble_context_info info;
        nibble_error e;
        o.threads = 1;
        o.kv_type = types[i];
        nibble_context *c = nibble_context_open(m, &o, &e);
        CHECK(c);
        if (!c) continue;
        nibble_context_describe(c, &info);
        CHECK_MSG(info.kv_bytes == (size_t)(2 * 2 * 2 * 16 * (i ? 4 : 2)), "%zu", info.kv_bytes);
        nibble_context_close(c);
    }
    nibble_model_close(m);
}

int main(void) {
    scratch_open();
    check_run("every kernel is timed", test_kernels);
    check_run("timing ends when it is told to", test_end);
    check_run("timing one level", test_one_level);
    check_run("peaks", test_peaks);
    check_run("multiply-adds of a token", test_ops);
    check_run("the hash of a model", test_hash);
    check_run("the window of a model", test_window);
    check_run("a token's cache", test_kv);
    return check_done();
}
