/* Models whose tensors and config do not agree, and the numbers that a sound one gives. */
#include "num/affine.h"
#include "tiny.h"

static struct tiny_file file; /* the model under test; each test begins with start() */

static void start(void) {
    tiny_drop(&file);
    tiny_make(&file, &tiny_default, 4);
}

static bool open_file(struct model *m, struct error *e) {
    return model_open(m, tiny_write(&file, "model.npz"), e);
}

/* Opens and closes. */
static void check_opens(void) {
    struct model m;
    struct error e;
    bool ok = open_file(&m, &e);
    CHECK_MSG(ok, "%s", e.message);
    if (ok) model_close(&m);
}

static void check_refused(enum status status, const char *words) {
    struct model m;
    struct error e = {0};
    CHECK_MSG(!open_file(&m, &e), "not refused: %s", words);
    CHECK_MSG(e.status == status && strstr(e.message, words), "'%s' lacks '%s'", e.message, words);
    CHECK_MSG(strstr(e.message, "model.npz"), "'%s' names no file", e.message);
    CHECK(!m.arena.base && !m.store.path); /* nothing is left open */
}

/* Replaces `from` in the config. */
static void edit_config(const char *from, const char *to) {
    char *at = strstr(file.config, from), rest[sizeof file.config];
    if (!at) {
        printf("no %s in the config\n", from);
        exit(1);
    }
    snprintf(rest, sizeof rest, "%s", at + strlen(from));
    size_t room = sizeof file.config - (size_t)(at - file.config);
    snprintf(at, room, "%s%s", to, rest);
}

#define Q "model.layers.1.self_attn.q_proj"

/* --- plain tensors ---------------------------------------------------------------------------- */

static void test_sound(void) {
    struct model m;
    struct error e;
    start();
    CHECK(open_file(&m, &e) && m.weights.names == WEIGHTS_HUGGING_FACE);
    CHECK(m.ropes[ROTARY_GLOBAL].layout == ROPE_HALF && m.ropes[ROTARY_GLOBAL].dim == 16 &&
          m.spec.tied == 0);
    size_t layer = 64 * 64 + 2 * 32 * 64 + 64 * 64 + 3 * 64 * 192 + 2 * 64;
    size_t values = 2 * 203 * 64 + 64 + 2 * layer;
    CHECK(model_parameters(&m) == values);
    CHECK(model_bytes_per_token(&m) == 4 * (values - 202 * 64)); /* one row of the embedding */
    CHECK(m.bos == -1 && m.end_count == 0);
    model_close(&m);
    tiny_remove(&file, "lm_head.weight"); /* the config does not say: tied */
    CHECK(open_file(&m, &e) && m.spec.tied == 1);
    CHECK(m.weights.output.plane[0] == m.weights.embed.plane[0]);
    CHECK(model_parameters(&m) == values - 203 * 64);
    CHECK(model_bytes_per_token(&m) == 4 * (values - 203 * 64));
    model_close(&m);
}

/* Meta's names mean pairs side by side, unless the config says otherwise. */
static void test_meta_names(void) {
    struct tiny t = tiny_default;
    struct model m;
    struct error e;
    t.meta = true;
    tiny_drop(&file);
    tiny_make(&file, &t, 4);
    CHECK(open_file(&m, &e) && m.weights.names == WEIGHTS_META);
    CHECK(m.ropes[ROTARY_GLOBAL].layout == ROPE_INTERLEAVED);
    model_close(&m);
    edit_config("{", "{\"rope_traditional\": false, ");
    CHECK(open_file(&m, &e) && m.ropes[ROTARY_GLOBAL].layout == ROPE_HALF);
    model_close(&m);
    start();
    edit_config("{", "{\"rope_traditional\": true, ");
    CHECK(open_file(&m, &e) && m.ropes[ROTARY_GLOBAL].layout == ROPE_INTERLEAVED);
    model_close(&m);
    edit_config("\"vocab_size\": 203", "\"vocab_size\": -1");
    edit_config("\"intermediate_size\": 192, ", "");
    CHECK(open_file(&m, &e) && m.spec.vocab == 203 && m.spec.hidden == 192);
    model_close(&m);
}

static void test_missing(void) {
    start();
    tiny_remove(&file, Q ".weight");
    check_refused(STATUS_MODEL, "\n  " Q ".weight: expected [64, 64], it is missing");
    tiny_remove(&file, "model.norm.weight");
    check_refused(STATUS_MODEL, "\n  model.norm.weight: expected [64], it is missing");
    check_refused(STATUS_MODEL, Q ".weight");
    tiny_remove(&file, "model.embed_tokens.weight");
    check_refused(STATUS_MODEL, "neither model.embed_tokens.weight nor tok_embeddings.weight");
    start();
    tiny_remove(&file, "lm_head.weight");
    edit_config("{", "{\"tie_word_embeddings\": false, ");
    check_refused(STATUS_MODEL, "lm_head.weight: expected [203, 64], it is missing");
    start();
    edit_config("\"num_hidden_layers\": 2", "\"num_hidden_layers\": 5"); /* 27 are missing */
    check_refused(STATUS_MODEL, "model.layers.2.input_layernorm.weight: expected [64], it is");
    check_refused(STATUS_MODEL, "\n  and 7 more");
}

static void test_misshapen(void) {
    start();
    struct tiny_array *a = tiny_find(&file, Q ".weight");
    a->shape[0] = 32;
    a->shape[1] = 128;
    check_refused(STATUS_MODEL, Q ".weight: expected [64, 64], found f32 [32, 128]");
    a->dims = 1;
    a->shape[0] = 64 * 64;
    check_refused(STATUS_MODEL, "found f32 [4096]");
    a->dims = 3;
    a->shape[0] = a->shape[1] = 64;
    a->shape[2] = 1;
    check_refused(STATUS_MODEL, "found f32 [64, 64, 1]");
    a->dims = 2;
    a->dtype = DTYPE_I32;
    check_refused(STATUS_MODEL, "found i32 [64, 64]");
    a->dtype = DTYPE_F32;
    check_opens();
    a = tiny_find(&file, "model.norm.weight");
    a->dims = 2;
    a->shape[1] = 1;
    check_refused(STATUS_MODEL, "model.norm.weight: expected [64], found f32 [64, 1]");
    start();
    edit_config("\"vocab_size\": 203", "\"vocab_size\": 204");
    check_refused(STATUS_MODEL,
                  "model.embed_tokens.weight: expected [204, 64], found f32 [203, 64]");
    start();
    edit_config("\"num_key_value_heads\": 2", "\"num_key_value_heads\": 4");
    check_refused(STATUS_MODEL, "k_proj.weight: expected [64, 64], found f32 [32, 64]");
}

static void test_no_place(void) {
    start();
    tiny_add(&file, "model.layers.0.self_attn.q_proj.bias", DTYPE_F32, 0, 64);
    tiny_add(&file, "extra", DTYPE_F32, 2, 2);
    check_refused(STATUS_MODEL, "no place for:\n  extra\n  model.layers.0.self_attn.q_proj.bias");
    start();
    tiny_add(&file, "model.layers.0.self_attn.rotary_emb.inv_freq", DTYPE_F32, 0, 8);
    tiny_add(&file, "rope.freqs", DTYPE_F32, 0, 8);
    check_opens();
    edit_config("\"num_hidden_layers\": 2", "\"num_hidden_layers\": 1"); /* 9 are too many */
    check_refused(STATUS_MODEL, "\n  model.layers.1.self_attn.v_proj.weight");
    start();
    edit_config("{", "{\"tie_word_embeddings\": true, "); /* then lm_head is only not used */
    check_opens();
}

/* --- quantized tensors ------------------------------------------------------------------------ */

/* Gives q_proj of layer 1 the planes of 4 bits by 32. */
static void quantize_q(void) {
    start();
    tiny_remove(&file, Q ".weight");
    tiny_add(&file, Q ".weight", DTYPE_U32, 64, 8);
    tiny_add(&file, Q ".scales", DTYPE_F16, 64, 2);
    tiny_add(&file, Q ".biases", DTYPE_F16, 64, 2);
}

static void test_affine(void) {
    struct model m;
    struct error e;
    quantize_q();
    CHECK(open_file(&m, &e));
    const struct mat *q = &m.weights.layers[1].wq;
    CHECK(q->format == &format_affine && q->bits == 4 && q->group == 32 && q->dtype == DTYPE_F16);
    CHECK(m.weights.layers[0].wq.format == &format_f32);
    model_close(&m);
    quantize_q();
    tiny_find(&file, Q ".weight")->shape[1] = 16; /* 8 bits */
    tiny_find(&file, Q ".weight")->shape[0] = 32;
    check_refused(STATUS_MODEL, "found u32 [32, 16] with scales f16 [64, 2]");
}

static void change_plane(const char *name, enum dtype dtype, size_t rows, size_t cols) {
    quantize_q();
    tiny_remove(&file, name);
    tiny_add(&file, name, dtype, rows, cols);
}

static void test_affine_that_does_not_fit(void) {
    change_plane(Q ".scales", DTYPE_F16, 64, 1); /* group 64 against offsets of 32 */
    check_refused(STATUS_MODEL, "expected [64, 64], found u32 [64, 8] with scales f16 [64, 1]");
    change_plane(Q ".scales", DTYPE_F16, 64, 3);
    check_refused(STATUS_MODEL, "scales f16 [64, 3]");
    change_plane(Q ".scales", DTYPE_F16, 63, 2);
    check_refused(STATUS_MODEL, "scales f16 [63, 2]");
    change_plane(Q ".scales", DTYPE_F16, 64, 0);
    check_refused(STATUS_MODEL, "scales f16 [64, 0]");
    change_plane(Q ".scales", DTYPE_BF16, 64, 2); /* offsets stay f16 */
    check_refused(STATUS_MODEL, "scales bf16 [64, 2]");
    change_plane(Q ".scales", DTYPE_U8, 64, 2);
    check_refused(STATUS_MODEL, "scales u8 [64, 2]");
    change_plane(Q ".biases", DTYPE_F16, 0, 128);
    check_refused(STATUS_MODEL, "found u32 [64, 8]");
    change_plane(Q ".weight", DTYPE_U32, 64, 14); /* 7 bits */
    check_refused(STATUS_MODEL, "found u32 [64, 14]");
    change_plane(Q ".weight", DTYPE_U32, 64, 2); /* 1 bit */
    check_refused(STATUS_MODEL, "found u32 [64, 2]");
    change_plane(Q ".weight", DTYPE_U32, 64, 9); /* 4.5 bits */
    check_refused(STATUS_MODEL, "found u32 [64, 9]");
    change_plane(Q ".weight", DTYPE_I32, 64, 8);
    check_refused(STATUS_MODEL, "found i32 [64, 8]");
    change_plane(Q ".weight", DTYPE_F32, 64, 64); /* plain, and yet with scales */
    check_refused(STATUS_MODEL, "found f32 [64, 64] with scales");
    quantize_q();
    tiny_remove(&file, Q ".biases");
    check_refused(STATUS_MODEL, "found u32 [64, 8] with scales");
    quantize_q();
    tiny_remove(&file, Q ".scales");
    check_refused(STATUS_MODEL, "found u32 [64, 8]");
    change_plane("model.norm.weight", DTYPE_U32, 0, 64);
    check_refused(STATUS_MODEL, "model.norm.weight: expected [64], found u32 [64]");
}

/* --- the config of a model -------------------------------------------------------------------- */

static void test_tokens_of_the_config(void) {
    struct model m;
    struct error e;
    start();
    edit_config("{", "{\"bos_token_id\": 1, \"eos_token_id\": [2, 202, 2], ");
    CHECK(open_file(&m, &e) && m.bos == 1 && m.end_count == 2);
    CHECK(m.ends[0] == 2 && m.ends[1] == 202);
    model_close(&m);
    edit_config("202", "203");
    check_refused(STATUS_MODEL, "end token 203 lies outside the vocabulary of 203");
    start();
    edit_config("{", "{\"bos_token_id\": 203, ");
    check_refused(STATUS_MODEL, "bos_token_id 203 lies outside the vocabulary of 203");
    start();
    edit_config("{", "{\"bos_token_id\": -1, ");
    check_refused(STATUS_MODEL, "bos_token_id is -1");
    start();
    edit_config("{", "{\"eos_token_id\": [1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17], ");
    check_refused(STATUS_MODEL, "eos_token_id lists over 16 ids");
}

static void test_no_config(void) {
    struct model m;
    struct error e;
    start();
    file.config[0] = 0;
    check_refused(STATUS_MODEL, "has no config.json and no params.json");
    snprintf(file.config, sizeof file.config, "[]");
    check_refused(STATUS_FORMAT, "model.npz (config.json) is no JSON that can be used");
    start();
    edit_config("mistral", "gpt5");
    check_refused(STATUS_MODEL, "model_type 'gpt5' is not supported");
    start();
    edit_config(", \"max_position_embeddings\": 128", "");
    CHECK(open_file(&m, &e) && m.spec.context == 4096);
    model_close(&m);
}

/* Nothing is allocated for what a config claims before the tensors are there. */
static void test_huge_numbers(void) {
    start();
    edit_config("\"num_hidden_layers\": 2", "\"num_hidden_layers\": 4096");
    check_refused(STATUS_MODEL, "and 36826 more"); /* 9 * 4094 are missing, 20 are named */
    start();
    edit_config("\"hidden_size\": 64", "\"hidden_size\": 1048576");
    edit_config("\"num_attention_heads\": 4", "\"num_attention_heads\": 4096");
    edit_config("\"head_dim\": 16", "\"head_dim\": 16384");
    edit_config("\"intermediate_size\": 192", "\"intermediate_size\": 16777216");
    edit_config("\"vocab_size\": 203", "\"vocab_size\": 16777216");
    check_refused(STATUS_MODEL, "expected [16777216, 1048576], found f32 [203, 64]");
}

int main(void) {
    scratch_open();
    check_run("sound", test_sound);
    check_run("Meta's names", test_meta_names);
    check_run("missing", test_missing);
    check_run("misshapen", test_misshapen);
    check_run("no place", test_no_place);
    check_run("affine", test_affine);
    check_run("affine that does not fit", test_affine_that_does_not_fit);
    check_run("tokens of the config", test_tokens_of_the_config);
    check_run("no config", test_no_config);
    check_run("huge numbers", test_huge_numbers);
    tiny_drop(&file);
    return check_done();
}
