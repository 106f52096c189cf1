/* A whole model in one file: opened, asked, run for a few tokens, quantized. */
#include <math.h>

#include "archive.h"
#include "nibble.h"
#include "protobuf.h"

enum { CONTEXT = 12, BATCH = 4 };

static void check(bool ok, const nibble_error *e) {
    if (!ok && (e->status == NIBBLE_OK || !*e->message)) abort();
}

static void ignore_number(void *arg, const char *name, const char *value, bool neutral) {
    (void)arg, (void)name, (void)value, (void)neutral;
}

static void ignore_tensor(void *arg, const nibble_tensor *t) {
    *(size_t *)arg += t->rows * t->cols;
}

static void use_text(void *arg, const char *text, size_t size) {
    fuzz_read((struct span){(const unsigned char *)text, size});
    *(size_t *)arg += size;
}

static void run(const nibble_model *m, const nibble_model_info *info, unsigned choice) {
    static const char *const kinds[] = {NULL, "f32", "q8"};
    nibble_error e = {0};
    nibble_context_options o = {.context = CONTEXT, .batch = BATCH, .threads = 1};
    int ids[6], count = 0;
    size_t sum = 0;
    o.kv_type = kinds[choice % 3];
    o.level = choice & 4 ? "scalar" : NULL;
    for (int i = 0; i < 6; i++) ids[count++] = (int)(i * 5 % info->vocab);
    nibble_context *c = nibble_context_open(m, &o, &e);
    check(c, &e);
    if (!c) return;
    nibble_generation g = {
        .sampling = nibble_sampling_defaults(), .max_tokens = 4, .arg = &sum, .on_text = use_text};
    nibble_generated done;
    g.sampling.seed = choice;
    check(nibble_generate(c, &g, ids, (size_t)count, &done, &e), &e);
    nibble_context_close(c);
}

static void ask(const nibble_model *m, unsigned choice) {
    nibble_model_info info;
    nibble_error e = {0};
    nibble_quantized done;
    nibble_quantization q = {.bits = 4, .group = 32, .threads = 1};
    size_t sum = 0;
    nibble_model_describe(m, &info);
    nibble_model_numbers(m, ignore_number, NULL);
    nibble_model_tensors(m, ignore_tensor, &sum);
    if (sum > 1 << 22) return; /* the size of a table, not of a file: it is only slow */
    run(m, &info, choice);
    if (choice % 8 == 0) check(nibble_check_numbers(m, 1, NULL, NULL, &e), &e);
    if (choice % 16 == 1) check(nibble_quantize(m, scratch_path("q.npz"), &q, &done, &e), &e);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    nibble_error e = {0};
    nibble_model *m = nibble_model_open(fuzz_file("m.npz", data, size), &e);
    check(m, &e);
    if (m) ask(m, archive_crc(data, size));
    nibble_model_close(m);
    return 0;
}

/* --- changing --------------------------------------------------------------------------------- */

/* Where the bytes behind an npy header begin; 0 if there is none. */
static size_t npy_data(const struct archive_member *m) {
    if (m->size < 12 || memcmp(m->data, "\x93NUMPY\1", 7) != 0) return 0;
    size_t begin = 10 + archive_get(m->data + 8, 2);
    return begin <= m->size ? begin : 0;
}

/* A file kept as an array: its bytes changed, and the header that counts them. */
static void change_file(struct archive_member *m, uint8_t *to, size_t begin, bool json) {
    static uint8_t file[ARCHIVE_CAP];
    char text[120];
    size_t size = m->size - begin;
    memcpy(file, m->data + begin, size);
    size = json ? mutate_json(file, size, sizeof file / 2)
                : protobuf_mutate(file, size, sizeof file / 2, 2);
    int length = snprintf(text, sizeof text,
                          "{'descr': '|u1', 'fortran_order': False, 'shape': (%zu,), }", size);
    while ((length + 11) % 64) text[length++] = ' ';
    text[length++] = '\n';
    memcpy(to, "\x93NUMPY\1\0", 8);
    to[8] = (uint8_t)length;
    to[9] = 0;
    memcpy(to + 10, text, (size_t)length);
    memcpy(to + 10 + length, file, size);
    m->size = 10 + (size_t)length + size;
    m->data = to;
}

static void change_values(uint8_t *data, size_t size) {
    static const float edges[] = {0, -0.0f, 1e-45f, 1e38f, -1e38f, 1, INFINITY, -INFINITY, NAN};
    float value = edges[mutate_below(sizeof edges / sizeof *edges)];
    size_t count = mutate_below(8) ? 1 : size / 4, at = mutate_below(size);
    for (size_t i = 0; i < count && at + 4 <= size; i++, at += 4) memcpy(data + at, &value, 4);
}

/* Of an array: its header, a number in it above all, or values. */
static void change_array(struct archive_member *m, uint8_t *to, size_t begin) {
    memcpy(to, m->data, m->size);
    m->data = to;
    if (begin && begin < m->size && mutate_below(2)) {
        change_values(to + begin, m->size - begin);
        return;
    }
    size_t at = mutate_below(begin ? begin : m->size);
    for (size_t i = 0; i < begin; i++, at = (at + 1) % begin) {
        if (to[at] < '0' || to[at] > '9') continue;
        to[at] = (uint8_t)('0' + mutate_below(10));
        return;
    }
}

static void change_member(struct archive_member *m, uint8_t *to) {
    size_t begin = npy_data(m);
    bool json = strstr(m->name, ".json"), model = strstr(m->name, "tokenizer.model");
    if (m->size > ARCHIVE_CAP / 4) return;
    if (begin && (json || model))
        change_file(m, to, begin, json);
    else if (m->size)
        change_array(m, to, begin);
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t cap, unsigned seed) {
    static struct archive a;
    static uint8_t out[ARCHIVE_CAP], member[ARCHIVE_CAP];
    mutate_state = seed;
    archive_read(&a, data, size);
    if (!a.count || mutate_below(32) == 0) return LLVMFuzzerMutate(data, size, cap);
    struct archive_member *m = &a.members[mutate_below(a.count)], *other;
    for (size_t i = 0; i < a.count && mutate_below(2); i++) { /* files more often than arrays */
        if (strstr(a.members[i].name, ".json") || strstr(a.members[i].name, ".model"))
            m = &a.members[i];
    }
    other = &a.members[mutate_below(a.count)];
    switch (mutate_below(16)) {
    case 0: *m = a.members[--a.count]; break;
    case 1: /* another array's content */
        m->data = other->data;
        m->size = other->size;
        break;
    case 2: /* or its name */ memcpy(m->name, other->name, sizeof m->name); break;
    default: change_member(m, member);
    }
    size_t written = archive_write(&a, out, cap < sizeof out ? cap : sizeof out);
    if (!written) return size;
    memcpy(data, out, written);
    return written;
}
