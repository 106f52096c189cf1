/* Quantizing: what the file holds, what stays as it is, what is refused, and that nothing is left
 * behind by a run that ends early. */
#include <cjson/cJSON.h>

#include "model/quantize.h"
#include "num/affine.h"
#include "tiny.h"

static const struct quantize_options four = {.bits = 4, .group = 64, .threads = 2};

static void open_or_exit(struct model *m, const char *name) {
    struct error e;
    if (model_open(m, scratch_path(name), &e)) return;
    printf("%s\n", e.message);
    exit(1);
}

/* Quantizes the scratch file `from` to `to`. */
static struct quantize_report convert(const char *from, const char *to, struct quantize_options o) {
    struct quantize_report report;
    struct model m;
    struct error e;
    open_or_exit(&m, from);
    CHECK_MSG(quantize(&m, scratch_path(to), &o, &report, &e), "%s", e.message);
    model_close(&m);
    return report;
}

static void make_source(const char *name, enum dtype dtype, bool tied, size_t hidden) {
    struct tiny t = tiny_default;
    struct model m;
    t.dtype = dtype;
    t.tied = tied;
    t.hidden = hidden;
    tiny_open(&m, &t, name, 21);
    model_close(&m);
}

/* The rows of got are what affine_encode makes of those of from. */
static bool is_encoded(const struct mat *got, const struct mat *from, int bits, int group) {
    size_t cols = from->cols, scale_bytes = cols / (size_t)group * dtype_bytes(from->dtype);
    float row[1024];
    unsigned char codes[1024], scales[256], offsets[256];
    if (got->format != &format_affine || got->bits != bits || got->group != group) return false;
    for (size_t i = 0; i < from->rows; i++) {
        from->format->decode(from, i, row);
        affine_encode(row, cols, bits, group, from->dtype, codes, scales, offsets);
        const unsigned char *at[3];
        for (int p = 0; p < 3; p++) at[p] = got->plane[p] + i * got->stride[p];
        if (memcmp(at[0], codes, cols / 8 * (size_t)bits) != 0 ||
            memcmp(at[1], scales, scale_bytes) != 0 || memcmp(at[2], offsets, scale_bytes) != 0) {
            return false;
        }
    }
    return true;
}

static void check_layers(const struct model *m, const struct model *from, int bits, int group) {
    for (size_t i = 0; i < 2; i++) {
        const struct layer *got = &m->weights.layers[i], *was = &from->weights.layers[i];
        CHECK(is_encoded(&got->wq, &was->wq, bits, group));
        CHECK(is_encoded(&got->wk, &was->wk, bits, group));
        CHECK(is_encoded(&got->wv, &was->wv, bits, group));
        CHECK(is_encoded(&got->wo, &was->wo, bits, group));
        CHECK(is_encoded(&got->gate, &was->gate, bits, group));
        CHECK(is_encoded(&got->up, &was->up, bits, group));
        CHECK(is_encoded(&got->down, &was->down, bits, group));
        CHECK(fixture_same(got->attn_norm, was->attn_norm, 64));
        CHECK(fixture_same(got->ffn_norm, was->ffn_norm, 64));
    }
    CHECK(fixture_same(m->weights.norm, from->weights.norm, 64));
}

static void test_every_matrix(void) {
    static const int widths[] = {2, 3, 4, 5, 6, 8};
    for (int i = 0; i < 6; i++) {
        enum dtype dtype = i % 3 == 0 ? DTYPE_F32 : i % 3 == 1 ? DTYPE_F16 : DTYPE_BF16;
        struct quantize_options o = {.bits = widths[i], .group = i % 2 ? 32 : 64, .threads = 1 + i};
        struct model from, m;
        make_source("source.npz", dtype, false, 192);
        struct quantize_report report = convert("source.npz", "q.npz", o);
        open_or_exit(&from, "source.npz");
        open_or_exit(&m, "q.npz");
        check_layers(&m, &from, o.bits, o.group);
        CHECK(is_encoded(&m.weights.embed, &from.weights.embed, o.bits, o.group));
        CHECK(is_encoded(&m.weights.output, &from.weights.output, o.bits, o.group));
        CHECK(report.quantized == 16 && report.kept == 0);
        CHECK(report.bytes_out < report.bytes_in);
        CHECK(model_parameters(&m) == model_parameters(&from));
        model_close(&m);
        model_close(&from);
    }
}

/* The embedding at a width of its own, which an output tied to it shares. */
static void test_embedding(void) {
    struct quantize_options o = four;
    struct model from, m;
    o.embed_bits = 6;
    make_source("tied.npz", DTYPE_F16, true, 192);
    convert("tied.npz", "q.npz", o);
    open_or_exit(&from, "tied.npz");
    open_or_exit(&m, "q.npz");
    check_layers(&m, &from, 4, 64);
    CHECK(is_encoded(&m.weights.embed, &from.weights.embed, 6, 64));
    CHECK(m.weights.output.plane[0] == m.weights.embed.plane[0] && m.weights.output.bits == 6);
    struct span text = store_file(&m.store, "config.json");
    cJSON *root = cJSON_ParseWithLength((const char *)text.data, text.size);
    const cJSON *q = cJSON_GetObjectItem(root, "quantization");
    const cJSON *embed = cJSON_GetObjectItem(q, "model.embed_tokens");
    CHECK(cJSON_GetNumberValue(cJSON_GetObjectItem(q, "bits")) == 4);
    CHECK(cJSON_GetNumberValue(cJSON_GetObjectItem(q, "group_size")) == 64);
    CHECK(cJSON_GetNumberValue(cJSON_GetObjectItem(embed, "bits")) == 6);
    CHECK(cJSON_GetNumberValue(cJSON_GetObjectItem(embed, "group_size")) == 64);
    CHECK(cJSON_GetNumberValue(cJSON_GetObjectItem(root, "hidden_size")) == 64);
    cJSON_Delete(root);
    model_close(&m);
    model_close(&from);
}

/* down is 100 wide, which no group divides: it keeps its type, and the config says so. */
static void test_kept(void) {
    struct model from, m;
    make_source("odd.npz", DTYPE_BF16, false, 100);
    struct quantize_report report = convert("odd.npz", "q.npz", four);
    CHECK(report.quantized == 14 && report.kept == 2);
    open_or_exit(&from, "odd.npz");
    open_or_exit(&m, "q.npz");
    const struct mat *a = &m.weights.layers[1].down, *b = &from.weights.layers[1].down;
    CHECK(a->format == &format_bf16 && memcmp(a->plane[0], b->plane[0], 64 * 200) == 0);
    CHECK(m.weights.layers[1].up.format == &format_affine);
    struct span text = store_file(&m.store, "config.json");
    cJSON *root = cJSON_ParseWithLength((const char *)text.data, text.size);
    const cJSON *q = cJSON_GetObjectItem(root, "quantization");
    CHECK(cJSON_IsFalse(cJSON_GetObjectItem(q, "model.layers.1.mlp.down_proj")));
    CHECK(!cJSON_GetObjectItem(q, "model.layers.1.mlp.up_proj"));
    cJSON_Delete(root);
    model_close(&m);
    model_close(&from);
}

/* The same bytes whatever the threads, and quantizing what is quantized changes its width. */
static void test_again(void) {
    struct quantize_options o = four;
    unsigned char *first, *second;
    size_t size[2] = {0, 1};
    struct model m;
    make_source("source.npz", DTYPE_F16, false, 192);
    convert("source.npz", "a.npz", o);
    o.threads = 3;
    convert("source.npz", "b.npz", o);
    first = scratch_read("a.npz", &size[0]);
    second = scratch_read("b.npz", &size[1]);
    CHECK(size[0] == size[1] && memcmp(first, second, size[0]) == 0);
    free(first);
    free(second);
    o.bits = 2;
    convert("a.npz", "c.npz", o);
    open_or_exit(&m, "c.npz");
    CHECK(m.weights.layers[0].wq.bits == 2 && m.weights.embed.bits == 2);
    model_close(&m);
    o.group = 128; /* no matrix is wide enough for it: all stay at 4 bits */
    struct quantize_report report = convert("a.npz", "d.npz", o);
    CHECK(report.quantized == 0 && report.kept == 16);
    open_or_exit(&m, "d.npz");
    CHECK(m.weights.layers[0].wq.bits == 4 && m.weights.layers[0].wq.group == 64);
    model_close(&m);
}

/* With 32 bits every matrix becomes f32, whatever its width, and the config says nothing of it. */
static void test_decoded(void) {
    static const char *const sources[] = {"odd.npz", "q.npz"};
    struct quantize_options o = {.bits = 32, .group = 64, .threads = 2};
    make_source("odd.npz", DTYPE_BF16, false, 100);
    convert("odd.npz", "q.npz", four);
    for (int i = 0; i < 2; i++) {
        struct model from, m;
        struct quantize_report report = convert(sources[i], "d.npz", o);
        CHECK(report.quantized == 16 && report.kept == 0 && report.bytes_out > report.bytes_in);
        open_or_exit(&from, sources[i]);
        open_or_exit(&m, "d.npz");
        const struct mat *got[] = {&m.weights.embed, &m.weights.layers[0].wq,
                                   &m.weights.layers[1].down};
        const struct mat *was[] = {&from.weights.embed, &from.weights.layers[0].wq,
                                   &from.weights.layers[1].down};
        for (int k = 0; k < 3; k++) {
            static float a[203 * 100], b[203 * 100];
            size_t n = got[k]->rows * got[k]->cols;
            format_decode(got[k], 0, got[k]->rows, a);
            format_decode(was[k], 0, was[k]->rows, b);
            CHECK(got[k]->format == &format_f32 && n <= 203 * 100 && fixture_same(a, b, n));
        }
        struct span text = store_file(&m.store, "config.json");
        CHECK(!memmem(text.data, text.size, "quantization", 12));
        model_close(&m);
        model_close(&from);
    }
}

/* The embedding alone as it is. */
static void test_decoded_embedding(void) {
    struct quantize_options o = four;
    struct model m;
    o.embed_bits = 32;
    make_source("source.npz", DTYPE_F16, false, 192);
    struct quantize_report report = convert("source.npz", "q.npz", o);
    CHECK(report.quantized == 15 && report.kept == 1);
    open_or_exit(&m, "q.npz");
    CHECK(m.weights.embed.format == &format_f32 && m.weights.output.format == &format_affine);
    struct span text = store_file(&m.store, "config.json");
    cJSON *root = cJSON_ParseWithLength((const char *)text.data, text.size);
    const cJSON *q = cJSON_GetObjectItem(root, "quantization");
    CHECK(cJSON_IsFalse(cJSON_GetObjectItem(q, "model.embed_tokens")));
    cJSON_Delete(root);
    model_close(&m);
}

static size_t asked;

/* Stops at the sixth question. */
static bool stop_soon(void *arg, size_t done, size_t total) {
    CHECK(arg == &asked && done <= total);
    return ++asked < 6;
}

static void check_refused(struct quantize_options o, const char *to, enum status status,
                          const char *words) {
    struct quantize_report report;
    struct model m;
    struct error e;
    open_or_exit(&m, "source.npz");
    int before = scratch_entries(".");
    CHECK(!quantize(&m, scratch_path(to), &o, &report, &e) && e.status == status);
    CHECK_MSG(strstr(e.message, words), "'%s' lacks '%s'", e.message, words);
    CHECK(scratch_entries(".") == before);
    model_close(&m);
}

static void test_refused(void) {
    struct quantize_options o = four;
    make_source("source.npz", DTYPE_F16, false, 192);
    static const int no_width[] = {0, 1, 7, 9, -4, 1 << 30};
    for (int i = 0; i < 6; i++) {
        o.bits = no_width[i];
        check_refused(o, "new.npz", STATUS_ARGUMENT, "a width is 2, 3, 4, 5, 6 or 8");
        o.bits = 4;
        o.embed_bits = no_width[i];
        if (i > 0) check_refused(o, "new.npz", STATUS_ARGUMENT, "a width is 2, 3, 4, 5, 6 or 8");
        o.embed_bits = 0;
    }
    o.bits = 32;
    o.embed_bits = 8;
    check_refused(o, "new.npz", STATUS_ARGUMENT, "8 bits for the embedding alone");
    o.embed_bits = 0;
    o.group = 16;
    check_refused(o, "new.npz", STATUS_ARGUMENT, "group size 16");
    o.bits = 4;
    check_refused(o, "new.npz", STATUS_ARGUMENT, "group size 16");
    o.group = 64;
    check_refused(o, "no/such/folder/new.npz", STATUS_FILE, "no/such/folder");
    o.progress = stop_soon;
    o.arg = &asked;
    check_refused(o, "new.npz", STATUS_INTERRUPTED, "interrupted");
    CHECK(asked == 6);
}

int main(void) {
    scratch_open();
    check_run("every matrix", test_every_matrix);
    check_run("embedding", test_embedding);
    check_run("kept", test_kept);
    check_run("again", test_again);
    check_run("decoded", test_decoded);
    check_run("decoded embedding", test_decoded_embedding);
    check_run("refused", test_refused);
    return check_done();
}
