/* Files of a KV cache: restored into a small run, which then goes on. A file that is used holds
 * what the run has; one that is not leaves the run empty. */
#include "model/kv_file.h"

#include "../model/tiny.h"
#include "arrays.h"

/* What make_corpus.py writes the seeds for. CONTEXT is less than its longest text. */
enum { CONTEXT = 66, VOCAB = 32, TYPES = 3 };

static const char *const types[TYPES] = {"f16", "f32", "q8"};
static const char build[] = "a build";

static const struct tiny shape = {.dim = 16,
                                  .layers = 2,
                                  .heads = 2,
                                  .kv_heads = 2,
                                  .head_dim = 8,
                                  .hidden = 32,
                                  .vocab = VOCAB};

static struct run runs[TYPES];
static struct kv_file_identity identities[TYPES];
static int ids[CONTEXT];

/* Hashes of the model would make seeds of no use whenever it changes. */
static struct kv_file_identity identity_of(const struct run *r) {
    struct kv_file_identity id;
    kv_file_identify(&id, r, build);
    for (int i = 2; i < 5; i++) snprintf(id.fields[i], KV_FILE_FIELD_BYTES, "%016x", i);
    return id;
}

static void open_runs(void) {
    static struct model model;
    struct error e;
    if (!*scratch_folder) scratch_open();
    tiny_open(&model, &shape, "model.npz", 3);
    for (int i = 0; i < CONTEXT; i++) ids[i] = 7 * i % VOCAB;
    for (int i = 0; i < TYPES; i++) {
        struct run_options o = {.context = CONTEXT, .batch = 32, .threads = 1, .level = "scalar"};
        if (!kv_type_find(types[i], &o.kv_type, &e) || !run_open(&runs[i], &model, &o, &e)) abort();
        identities[i] = identity_of(&runs[i]);
    }
}

/* The type that the file speaks of, so that most can be used. */
static int choose(const uint8_t *data, size_t size) {
    int type = TYPES - 1;
    for (; type; type--) {
        if (memmem(data, size, types[type], strlen(types[type]))) break;
    }
    return type;
}

/* --- what must be so -------------------------------------------------------------------------- */

static const unsigned char *bytes_of(const struct store *s, size_t layer, const char *plane,
                                     size_t least) {
    char name[64];
    snprintf(name, sizeof name, "layers.%zu.%s", layer, plane);
    const struct array *a = store_find(s, name);
    if (!a || a->bytes.size < least) abort();
    return a->bytes.data;
}

/* The first n positions of a layer, of the `held` in the file. */
static void check_layer(const struct store *s, const struct cache *c, size_t layer, size_t n,
                        size_t held) {
    size_t row = c->value_dim * dtype_bytes(c->dtype), tiles = (held + CACHE_TILE - 1) / CACHE_TILE;
    size_t tile = c->key_dim * CACHE_TILE * dtype_bytes(c->dtype);
    const unsigned char *keys = bytes_of(s, layer, "keys", c->heads * tiles * tile);
    const unsigned char *values = bytes_of(s, layer, "values", c->heads * held * row);
    for (size_t h = 0; h < c->heads; h++) {
        if (memcmp(cache_values(c, h, 0), values + h * held * row, n * row) != 0) abort();
        for (size_t i = 0; i * CACHE_TILE < n; i++) {
            if (memcmp(cache_keys(c, h, i), keys + (h * tiles + i) * tile, tile) != 0) abort();
        }
    }
}

static void check_used(const struct run *r, const char *path, size_t count) {
    struct store s;
    struct error e;
    if (!count || count > CONTEXT || r->pos != count) abort();
    if (!store_open(&s, path, &e)) abort();
    const struct array *a = store_find(&s, "ids");
    size_t held = a->bytes.size / sizeof *ids;
    if (held < count || memcmp(a->bytes.data, ids, count * sizeof *ids) != 0) abort();
    for (size_t i = 0; i < r->model->spec.layers; i++)
        check_layer(&s, &r->kv.layers[i], i, count, held);
    store_close(&s);
}

/* --- the target ------------------------------------------------------------------------------- */

static void go_on(struct run *r) {
    float logits[VOCAB];
    struct error e;
    size_t kept = run_keep(r, ids, CONTEXT), more = CONTEXT - kept;
    if (!run_append(r, ids + kept, more < 2 ? more : 2, logits, false, &e)) abort();
}

/* Writes over the file, if it may be replaced, and reads that. */
static void write_back(struct run *r, const struct kv_file_identity *id, const char *path,
                       bool replaceable) {
    struct error e = {0};
    size_t n = r->pos, count = 0;
    bool ok = kv_file_write(r, n, id, path, &e);
    fuzz_check(ok, &e);
    if (ok != replaceable) abort();
    if (ok && (!kv_file_read(r, ids, CONTEXT, id, path, &count, &e) || count != n)) abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (!runs[0].model) open_runs();
    int type = choose(data, size);
    struct run *r = &runs[type];
    const struct kv_file_identity *id = &identities[type];
    struct error e = {0};
    size_t count = 0;
    const char *path = fuzz_file("kv.npz", data, size);
    bool ok = kv_file_read(r, ids, CONTEXT, id, path, &count, &e);
    fuzz_check(ok, &e);
    if (ok) check_used(r, path, count);
    if (!ok && r->pos) abort();
    go_on(r);
    if (archive_crc(data, size) % 8 == 0) write_back(r, id, path, e.status != STATUS_ARGUMENT);
    return 0;
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t cap, unsigned seed) {
    mutate_state = seed;
    if (!size || mutate_below(8)) return arrays_mutate(data, size, cap);
    archive_break(data, size);
    return size;
}
