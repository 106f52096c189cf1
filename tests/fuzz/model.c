/* A whole model in one file: opened, asked, run for a few tokens, quantized. */
#include "arrays.h"
#include "nibble.h"

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
    int ids[6];
    size_t count = 0, sum = 0;
    o.kv_type = kinds[choice % 3];
    o.level = choice & 4 ? "scalar" : NULL;
    for (; count < 6; count++) ids[count] = (int)(count * 5 % info->vocab);
    nibble_context *c = nibble_context_open(m, &o, &e);
    check(c, &e);
    if (!c) return;
    nibble_generation g = {
        .sampling = nibble_sampling_defaults(), .max_tokens = 4, .arg = &sum, .on_text = use_text};
    nibble_generated done;
    g.sampling.seed = choice;
    check(nibble_generate(c, &g, ids, count, &done, &e), &e);
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

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t cap, unsigned seed) {
    mutate_state = seed;
    return arrays_mutate(data, size, cap);
}
