/* The KV cache of a text in a file: a run that it fills goes on as one that has read the text, and
 * a file that is damaged anywhere fills none. */
#include "model/kv_file.h"

#include "base/map.h"
#include "tiny.h"

enum { TOKENS = 70, VOCAB = 203 };

static const char *const types[] = {"f16", "f32", "q8"};

static int ids[TOKENS + 1];
static struct model model;

static struct run open_run(const char *kv_type, size_t context) {
    struct run_options o = {.context = context, .batch = 32, .threads = 1};
    struct run r;
    struct error e;
    CHECK(kv_type_find(kv_type, &o.kv_type, &e) && run_open(&r, &model, &o, &e));
    return r;
}

static struct kv_file_identity identity_of(const struct run *r) {
    struct kv_file_identity id;
    kv_file_identify(&id, r, "a build");
    return id;
}

/* Writes the first n tokens to a file of that name; returns its path. */
static const char *keep(const char *kv_type, size_t n, const char *name) {
    const char *path = scratch_path(name);
    struct run r = open_run(kv_type, TINY_CONTEXT);
    struct kv_file_identity id = identity_of(&r);
    struct error e;
    CHECK(run_append(&r, ids, TOKENS, NULL, false, &e));
    CHECK(kv_file_write(&r, n, &id, path, &e));
    run_close(&r);
    return path;
}

/* The logits behind ids [n] when the first `held` of them are there. */
static void go_on(struct run *r, size_t held, size_t n, float *logits) {
    struct error e;
    CHECK(r->pos == held && run_append(r, ids + held, n - held, logits, false, &e));
}

static void want_logits(const char *kv_type, size_t n, float *logits) {
    struct run r = open_run(kv_type, TINY_CONTEXT);
    go_on(&r, 0, n, logits);
    run_close(&r);
}

/* Texts that are shorter and longer than the file's, contexts too, on both sides of a tile's end.
 */
static void test_restored(void) {
    static const size_t held[] = {1, 63, 64, 65, TOKENS};
    float want[VOCAB], got[VOCAB];
    for (size_t t = 0; t < 3; t++) {
        for (size_t i = 0; i < 5; i++) {
            const char *path = keep(types[t], held[i], "kv.npz");
            for (size_t n = 2; n <= TOKENS; n += n < 62 ? 20 : 1) {
                struct run r = open_run(types[t], n);
                struct kv_file_identity id = identity_of(&r);
                struct error e;
                size_t count;
                CHECK(kv_file_read(&r, ids, n, &id, path, &count, &e));
                CHECK(count == (n < held[i] ? n : held[i]) && r.pos == count);
                size_t kept = run_keep(&r, ids, n);
                CHECK(kept == (count < n ? count : n - 1));
                go_on(&r, kept, n, got);
                want_logits(types[t], n, want);
                CHECK(fixture_same(got, want, VOCAB));
                run_close(&r);
            }
        }
    }
}

static void test_the_same_bytes(void) {
    struct span one, other;
    struct error e;
    struct run r = open_run("f16", TINY_CONTEXT);
    struct kv_file_identity id = identity_of(&r);
    int others[TINY_CONTEXT] = {0};
    const char *path = scratch_path("used.npz");
    CHECK(run_append(&r, others, TINY_CONTEXT, NULL, false, &e));
    run_rewind(&r, 0);
    go_on(&r, 0, TOKENS, NULL);
    CHECK(kv_file_write(&r, 5, &id, path, &e));
    run_close(&r);
    CHECK(map_open(path, &one, &e) && map_open(keep("f16", 5, "fresh.npz"), &other, &e));
    CHECK(one.size == other.size && memcmp(one.data, other.data, one.size) == 0);
    map_close(&one);
    map_close(&other);
}

/* Reads a file of these bytes; whether it is used, and then rightly. */
static bool is_used(struct run *r, const struct kv_file_identity *id, const unsigned char *bytes,
                    size_t size, const float *want) {
    const char *path = scratch_path("damaged.npz");
    struct error e;
    size_t count = 0;
    float got[VOCAB];
    FILE *f = fopen(path, "wb");
    CHECK(f && fwrite(bytes, 1, size, f) == size && fclose(f) == 0);
    bool used = kv_file_read(r, ids, 4, id, path, &count, &e);
    CHECK(used || (r->pos == 0 && *e.message && strchr(e.message, '\n') != e.message));
    if (!used) return false;
    CHECK(count == 3);
    go_on(r, 3, 4, got);
    CHECK(fixture_same(got, want, VOCAB));
    return true;
}

static void test_damaged(void) {
    for (size_t t = 0; t < 3; t++) {
        struct span file;
        struct error e;
        float want[VOCAB];
        CHECK(map_open(keep(types[t], 3, "whole.npz"), &file, &e));
        struct run r = open_run(types[t], TINY_CONTEXT);
        struct kv_file_identity id = identity_of(&r);
        unsigned char *bytes = malloc(file.size);
        size_t used = 0, tried = 0;
        want_logits(types[t], 4, want);
        memcpy(bytes, file.data, file.size);
        CHECK(is_used(&r, &id, bytes, file.size, want));
        for (size_t size = 0; size < file.size; size += 64)
            CHECK(!is_used(&r, &id, bytes, size, want));
        for (size_t i = 0; i < file.size;
             i += i < 4000 || i + 4000 > file.size ? 7 : 211, tried++) {
            bytes[i] ^= (unsigned char)(1 << i % 8);
            used += is_used(&r, &id, bytes, file.size, want);
            bytes[i] = file.data[i];
        }
        /* Dates, versions and the like of the archive say nothing. */
        CHECK(used < tried / 2);
        free(bytes);
        run_close(&r);
        map_close(&file);
    }
}

static void test_of_something_else(void) {
    static const char *const differs[] = {"format",    "build",    "weights", "config",
                                          "tokenizer", "KV cache", "level"};
    const char *path = keep("f16", 5, "other.npz");
    struct run r = open_run("f16", TINY_CONTEXT);
    struct error e;
    size_t count;
    int others[2] = {ids[0] + 1, ids[1]};
    for (int i = 0; i < KV_FILE_FIELDS; i++) {
        struct kv_file_identity id = identity_of(&r);
        id.fields[i][0] ^= 1;
        CHECK(!kv_file_read(&r, ids, 5, &id, path, &count, &e) && r.pos == 0);
        CHECK(e.status == STATUS_MODEL && strstr(e.message, differs[i]));
    }
    struct kv_file_identity id = identity_of(&r);
    CHECK(!kv_file_read(&r, others, 2, &id, path, &count, &e) && strstr(e.message, "begins"));
    CHECK(!kv_file_read(&r, ids, 5, &id, scratch_path("none"), &count, &e));
    CHECK(!kv_file_read(&r, ids, 5, &id, model.store.path, &count, &e));
    CHECK(e.status == STATUS_ARGUMENT);
    CHECK(kv_file_read(&r, ids, 5, &id, path, &count, &e) && count == 5);
    CHECK(kv_file_write(&r, 5, &id, path, &e) && !kv_file_write(&r, 6, &id, path, &e));
    CHECK(!kv_file_write(&r, 0, &id, path, &e) && !kv_file_write(&r, 5, &id, model.store.path, &e));
    run_close(&r);
}

int main(void) {
    struct tiny t = tiny_default;
    scratch_open();
    t.window = 40;
    tiny_open(&model, &t, "model.npz", 9);
    for (int i = 0; i <= TOKENS; i++) ids[i] = (int)fixture_below(VOCAB - 1);
    check_run("restored", test_restored);
    check_run("the same bytes", test_the_same_bytes);
    check_run("damaged", test_damaged);
    check_run("of something else", test_of_something_else);
    model_close(&model);
    return check_done();
}
