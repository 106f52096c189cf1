/* Configs: reading JSON, the table of numbers, families; what each refuses, and in which words. */
#include <math.h>
#include <string.h>

#include "check.h"
#include "model/arch.h"
#include "model/spec.h"

static struct config open_text(const char *text) {
    struct config c;
    struct error e;
    struct span span = {(const unsigned char *)text, strlen(text)};
    CHECK_MSG(config_open(&c, span, "m/config.json", &e), "%s: %s", text, e.message);
    return c;
}

static void check_words(const struct error *e, enum status status, const char *words) {
    CHECK_MSG(e->status == status && strstr(e->message, words), "status %d, '%s' lacks '%s'",
              e->status, e->message, words);
    CHECK_MSG(strstr(e->message, "m/config.json"), "'%s' names no file", e->message);
}

/* --- values ----------------------------------------------------------------------------------- */

static void test_not_an_object(void) {
    static const char *const texts[] = {"", "{", "{\"a\": }", "{\"a\" 1}", "nul", "{'a': 1}"};
    struct config c;
    struct error e;
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        struct span text = {(const unsigned char *)texts[i], strlen(texts[i])};
        CHECK(!config_open(&c, text, "m/config.json", &e) && !c.root);
        check_words(&e, STATUS_FORMAT, "not valid JSON");
    }
    static const char *const others[] = {"[]", "7", "\"text\"", "null", "[{\"a\": 1}]"};
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        struct span text = {(const unsigned char *)others[i], strlen(others[i])};
        CHECK(!config_open(&c, text, "m/config.json", &e) && !c.root);
        check_words(&e, STATUS_FORMAT, "not a JSON object");
    }
    static char deep[4000];
    memset(deep, '[', sizeof deep - 1);
    struct span text = {(const unsigned char *)deep, sizeof deep - 1};
    CHECK(!config_open(&c, text, "m/config.json", &e));
    CHECK(!config_open(&c, (struct span){0}, "m/config.json", &e));
}

static void test_dotted_paths(void) {
    struct config c = open_text("{\"a\": {\"b\": {\"c\": 5, \"n\": null}, \"x\": 1}, \"z\": null,"
                                " \"A\": 9, \"list\": [{\"b\": 2}], \"a.x\": 7}");
    static const struct {
        const char *names, *found; /* the name that is there, or NULL */
        double value;
    } cases[] = {
        {"a.b.c", "a.b.c", 5},
        {"a.x", "a.x", 1},
        {"q a.b.c", "a.b.c", 5},
        {"z a.x A", "a.x", 1},
        {"a.b.n A", "A", 9},
        {"a.x.y A", "A", 9},
        {"A.b", NULL, 0},
        {"a.b.c.d", NULL, 0},
        {"list.b", NULL, 0},
        {"a.X", NULL, 0},
        {"", NULL, 0},
        {"q r s", NULL, 0},
        {"z", NULL, 0},
        {"a..b", NULL, 0},
        {"a.0123456789012345678901234567890123456789012345678901234567890123456789 A", "A", 9}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *name = NULL, *found = cases[i].found;
        double value = 77;
        struct error e;
        bool there = config_find(&c, cases[i].names, &name) != NULL;
        CHECK_MSG(there == (found != NULL), "'%s'", cases[i].names);
        CHECK_MSG(!there || !strncmp(name, found, strlen(found)), "'%s' is %s", cases[i].names,
                  name);
        CHECK(!there || config_width(name) == (int)strlen(found));
        CHECK(config_number(&c, cases[i].names, 0, 10, true, &value, &e));
        CHECK_MSG(value == (found ? cases[i].value : 77), "'%s' is %g", cases[i].names, value);
    }
    config_close(&c);
    config_close(&c);
}

/* {"v": TEXT} read as a number in [-5, 100]. */
static void check_number(const char *text, bool whole, double want, const char *words) {
    char json[256];
    snprintf(json, sizeof json, "{\"v\": %s}", text);
    struct config c = open_text(json);
    struct error e;
    double v = 77;
    bool ok = config_number(&c, "v", -5, 100, whole, &v, &e);
    CHECK_MSG(ok == !words && v == (ok ? want : 77), "%s gave %g", text, v);
    if (!ok && words) check_words(&e, STATUS_MODEL, words);
    config_close(&c);
}

static void test_numbers(void) {
    check_number("5", true, 5, NULL);
    check_number("-5", true, -5, NULL);
    check_number("1e2", true, 100, NULL);
    check_number("0.25", false, 0.25, NULL);
    check_number("null", true, 77, NULL);
    check_number("0.5", true, 0, "v is 0.5, but must be a whole number");
    check_number("101", true, 0, "v is 101, but must be from -5 to 100");
    check_number("-5.5", false, 0, "v is -5.5, but must be from -5 to 100");
    check_number("1e999", true, 0, "v is inf, but must be from");
    check_number("-1e999", false, 0, "v is -inf, but must be from");
    check_number("\"5\"", true, 0, "v is not a number");
    check_number("true", true, 0, "v is not a number");
    check_number("[5]", true, 0, "v is not a number");
    check_number("{}", false, 0, "v is not a number");
}

static void test_flags(void) {
    struct config c =
        open_text("{\"t\": true, \"f\": false, \"n\": null, \"one\": 1, \"s\": \"true\"}");
    struct error e;
    int v = 77;
    CHECK(config_flag(&c, "n absent", &v, &e) && v == 77);
    CHECK(config_flag(&c, "t", &v, &e) && v == 1);
    CHECK(config_flag(&c, "n f t", &v, &e) && v == 0);
    v = 77;
    CHECK(!config_flag(&c, "one", &v, &e) && v == 77);
    check_words(&e, STATUS_MODEL, "one is neither true nor false");
    CHECK(!config_flag(&c, "absent s", &v, &e) && v == 77);
    check_words(&e, STATUS_MODEL, ": s is neither");
    config_close(&c);
}

static void test_choices(void) {
    static const char *const words[] = {"red", "blue", NULL};
    struct config c =
        open_text("{\"a\": {\"b\": \"blue\"}, \"g\": \"green\", \"u\": \"Red\", \"n\": 3}");
    struct error e;
    int v = 77;
    CHECK(config_choice(&c, "absent", words, &v, &e) && v == 77);
    CHECK(config_choice(&c, "absent a.b", words, &v, &e) && v == 1);
    v = 77;
    CHECK(!config_choice(&c, "g", words, &v, &e) && v == 77);
    check_words(&e, STATUS_MODEL, "g 'green' is not supported; nibble runs red, blue");
    CHECK(!config_choice(&c, "u", words, &v, &e) && strstr(e.message, "'Red'"));
    CHECK(!config_choice(&c, "n", words, &v, &e) && strstr(e.message, "not a string"));
    CHECK(config_text(&c, "absent g") && strcmp(config_text(&c, "absent g"), "green") == 0);
    CHECK(!config_text(&c, "n") && !config_text(&c, "absent"));
    config_close(&c);
}

/* {"v": TEXT} read as at most four ids. */
static void check_ids(const char *text, int count, const char *words) {
    char json[256];
    snprintf(json, sizeof json, "{\"v\": %s}", text);
    struct config c = open_text(json);
    struct error e;
    int ids[5] = {-7, -7, -7, -7, -7}, n = 0;
    bool ok = config_ids(&c, "v", ids, 4, &n, &e);
    CHECK_MSG(ok == !words && ids[4] == -7, "%s", text);
    CHECK_MSG(!ok || n == count, "%s: %d ids", text, n);
    for (int i = 0; ok && i < n; i++) CHECK_MSG(ids[i] == 10 * (i + 1), "%s: %d", text, ids[i]);
    if (!ok && words) check_words(&e, STATUS_MODEL, words);
    config_close(&c);
}

static void test_ids(void) {
    check_ids("10", 1, NULL);
    check_ids("[10, 20, 30]", 3, NULL);
    check_ids("[10, 20, 30, 40]", 4, NULL);
    check_ids("[]", 0, NULL);
    check_ids("null", 0, NULL);
    check_ids("[10, 20, 30, 40, 50]", 0, "v lists over 4 ids");
    check_ids("[10, -1]", 0, "no token id");
    check_ids("[10, 20.5]", 0, "no token id");
    check_ids("[10, \"20\"]", 0, "no token id");
    check_ids("[10, null]", 0, "no token id");
    check_ids("[[10]]", 0, "no token id");
    check_ids("-1", 0, "no token id");
    check_ids("1e10", 0, "no token id");
    check_ids("true", 0, "no token id");
    check_ids("{\"a\": 10}", 0, "no token id");
}

/* --- the table -------------------------------------------------------------------------------- */

#define SHAPE                                                                                      \
    "\"hidden_size\": 64, \"num_hidden_layers\": 2, \"num_attention_heads\": 4, "                  \
    "\"rms_norm_eps\": 1e-5"

static bool read_spec(struct spec *s, const char *text, struct error *e) {
    struct config c = open_text(text);
    *s = (struct spec){0};
    static const struct spec none;
    bool ok = spec_read(s, &c, &none, e) && spec_settle(s, &c, e);
    config_close(&c);
    return ok;
}

static void check_spec_refused(const char *text, const char *words) {
    struct spec s;
    struct error e = {0};
    CHECK_MSG(!read_spec(&s, text, &e), "%s", text);
    check_words(&e, STATUS_MODEL, words);
}

static void test_neutral_values(void) {
    struct spec s;
    struct error e;
    CHECK(read_spec(&s, "{" SHAPE "}", &e));
    CHECK(s.dim == 64 && s.layers == 2 && s.heads == 4 && s.kv_heads == 4 && s.head_dim == 16);
    CHECK(s.hidden == 0 && s.vocab == 0 && s.context == 0 && s.window == 0 && s.tied == -1);
    CHECK(s.norm_eps == 1e-5 && s.rope_theta == 10000 && s.rope_kind == SPEC_ROPE_DEFAULT);
    CHECK(s.rope_traditional == -1 && s.rope_truncate == -1 && s.rope_original_context == 0);
}

static void test_both_spellings(void) {
    struct spec s;
    struct error e;
    CHECK(
        read_spec(&s,
                  "{" SHAPE ", \"num_key_value_heads\": 2, \"head_dim\": 24, \"vocab_size\": 300,"
                  " \"intermediate_size\": 100, \"max_position_embeddings\": 512,"
                  " \"sliding_window\": 9, \"tie_word_embeddings\": true, \"hidden_act\": \"silu\","
                  " \"rope_parameters\": {\"rope_type\": \"llama3\", \"rope_theta\": 5e5,"
                  " \"factor\": 8, \"low_freq_factor\": 1, \"high_freq_factor\": 4,"
                  " \"original_max_position_embeddings\": 64}}",
                  &e));
    CHECK(s.kv_heads == 2 && s.head_dim == 24 && s.vocab == 300 && s.hidden == 100);
    CHECK(s.context == 512 && s.window == 9 && s.tied == 1 && s.rope_kind == SPEC_ROPE_LLAMA3);
    CHECK(s.rope_theta == 5e5 && s.rope_factor == 8 && s.rope_original_context == 64);
    CHECK(s.rope_low_freq_factor == 1 && s.rope_high_freq_factor == 4);
    CHECK(read_spec(&s,
                    "{" SHAPE ", \"max_position_embeddings\": 512, \"sliding_window\": null,"
                    " \"rope_theta\": 7, \"rope_scaling\": {\"type\": \"yarn\", \"factor\": 2.5,"
                    " \"beta_fast\": 16, \"beta_slow\": 2, \"attention_factor\": 0.5,"
                    " \"mscale\": 0.7, \"mscale_all_dim\": 0.8, \"truncate\": false}}",
                    &e));
    CHECK(s.rope_kind == SPEC_ROPE_YARN && s.rope_factor == 2.5 && s.rope_theta == 7);
    CHECK(s.rope_beta_fast == 16 && s.rope_beta_slow == 2 && s.rope_attention_factor == 0.5);
    CHECK(s.rope_mscale == 0.7 && s.rope_mscale_all_dim == 0.8 && s.rope_truncate == 0);
    CHECK(s.rope_original_context == 512 && s.window == 0);
    CHECK(read_spec(&s,
                    "{\"dim\": 64, \"n_layers\": 2, \"n_heads\": 4, \"n_kv_heads\": 1,"
                    " \"norm_eps\": 1e-6, \"vocab_size\": -1, \"max_seq_len\": 99}",
                    &e));
    CHECK(s.dim == 64 && s.layers == 2 && s.heads == 4 && s.kv_heads == 1 && s.vocab == 0);
    CHECK(s.norm_eps == 1e-6 && s.context == 99);
}

static void test_numbers_that_do_not_fit(void) {
    check_spec_refused("{}", "does not say hidden_size, which the model needs");
    check_spec_refused("{\"hidden_size\": 64}", "does not say num_hidden_layers");
    check_spec_refused("{\"hidden_size\": 64, \"n_layers\": 2}", "num_attention_heads");
    check_spec_refused("{\"dim\": 64, \"n_layers\": 2, \"n_heads\": 4}", "rms_norm_eps");
    check_spec_refused("{" SHAPE ", \"num_key_value_heads\": 3}",
                       "4 attention heads cannot share 3");
    check_spec_refused("{" SHAPE ", \"num_key_value_heads\": 0}", "num_key_value_heads is 0");
    check_spec_refused("{" SHAPE ", \"head_dim\": 15}", "must be even");
    check_spec_refused("{" SHAPE ", \"head_dim\": -16}", "head_dim is -16");
    check_spec_refused("{" SHAPE ", \"vocab_size\": 1e9}", "vocab_size is 1000000000");
    check_spec_refused("{" SHAPE ", \"sliding_window\": -1}", "sliding_window is -1");
    check_spec_refused("{" SHAPE ", \"hidden_act\": \"quick_gelu\"}",
                       "'quick_gelu' is not supported; nibble runs silu, gelu,");
    check_spec_refused("{" SHAPE ", \"tie_word_embeddings\": 1}", "tie_word_embeddings");
    check_spec_refused("{\"hidden_size\": 66, \"num_hidden_layers\": 2, \"num_attention_heads\": 4,"
                       " \"rms_norm_eps\": 1e-5}",
                       "66 dimensions do not divide into 4 heads");
    check_spec_refused("{\"hidden_size\": 64.5}",
                       "hidden_size is 64.5, but must be a whole number");
    check_spec_refused("{\"hidden_size\": 0}", "hidden_size is 0");
    check_spec_refused("{\"hidden_size\": 1e300}", "hidden_size is 1e+300");
}

static void test_rope_that_does_not_fit(void) {
#define ROPE(text) "{" SHAPE ", \"rope_scaling\": {" text "}}"
#define WITH_CONTEXT(text)                                                                         \
    "{" SHAPE ", \"max_position_embeddings\": 99, \"rope_scaling\": {" text "}}"
    check_spec_refused(ROPE("\"type\": \"dynamic\""), "'dynamic' is not supported");
    check_spec_refused(ROPE("\"rope_type\": 5"), "rope_scaling.rope_type");
    check_spec_refused(ROPE("\"type\": \"linear\""), "'linear' needs a factor");
    check_spec_refused(ROPE("\"type\": \"linear\", \"factor\": 0.5"), "factor is 0.5");
    check_spec_refused(ROPE("\"type\": \"yarn\", \"factor\": 2"),
                       "'yarn' needs original_max_position_embeddings");
    check_spec_refused(WITH_CONTEXT("\"type\": \"llama3\", \"factor\": 2"), "low_freq_factor");
    check_spec_refused(WITH_CONTEXT("\"type\": \"llama3\", \"factor\": 2, \"low_freq_factor\": 4,"
                                    " \"high_freq_factor\": 4"),
                       "a larger high_freq_factor");
    check_spec_refused(WITH_CONTEXT("\"type\": \"yarn\", \"factor\": 2, \"beta_fast\": \"x\""),
                       "rope_scaling.beta_fast is not a number");
}

static int printed;

static void note_row(void *arg, const char *name, const char *value, bool neutral) {
    const char *const *want = arg;
    static const char *const off[] = {"tied", "rope_truncate", "window", "rope_mscale",
                                      "residual_scale"};
    for (size_t i = 0; i < sizeof off / sizeof *off; i++) {
        if (strcmp(name, off[i]) == 0) CHECK_MSG(neutral, "%s, %s, is not neutral", name, value);
    }
    bool is_off = strcmp(value, "0") == 0 || strcmp(value, "1") == 0 ||
                  strcmp(value, "false") == 0 || strcmp(value, "not given") == 0;
    if (neutral) CHECK_MSG(is_off, "%s, %s, is neutral", name, value);
    for (int i = 0; want[i]; i += 2) {
        if (strcmp(name, want[i]) != 0) continue;
        CHECK_MSG(strcmp(value, want[i + 1]) == 0, "%s is printed as %s", name, value);
        printed++;
    }
}

static void test_printing(void) {
    static const char *const want[] = {
        "dim",           "64",    "norm_eps",  "1e-05",  "tied",        "not given",
        "rope_truncate", "false", "rope_kind", "linear", "rope_factor", "2.5",
        "activation",    "silu",  NULL};
    struct spec s;
    struct error e;
    CHECK(read_spec(&s,
                    "{" SHAPE ", \"rope_scaling\": {\"type\": \"linear\", \"factor\": 2.5,"
                    " \"truncate\": false}}",
                    &e));
    spec_each(&s, note_row, (void *)want);
    CHECK(printed == 7);
}

/* --- families --------------------------------------------------------------------------------- */

static void check_arch(const char *text, const char *type, const char *words) {
    const struct arch *arch = NULL;
    struct config c = open_text(text);
    struct error e;
    bool ok = arch_find(&arch, &c, &e);
    CHECK_MSG(ok == (type != NULL), "%s", text);
    if (ok && type) CHECK_MSG(strcmp(arch->model_type, type) == 0 && arch->title[0], "%s", text);
    if (!ok && words) check_words(&e, STATUS_MODEL, words);
    config_close(&c);
}

static void test_families(void) {
    check_arch("{\"model_type\": \"llama\"}", "llama", NULL);
    check_arch("{\"model_type\": \"mistral\", \"dim\": 5}", "mistral", NULL);
    check_arch("{\"dim\": 64}", "llama", NULL); /* Meta's params.json */
    check_arch("{\"model_type\": \"mamba\"}", NULL,
               "model_type 'mamba' is not supported; nibble runs llama, mistral");
    check_arch("{\"model_type\": \"Llama\"}", NULL, "'Llama'");
    check_arch("{\"hidden_size\": 64}", NULL, "does not say model_type");
    check_arch("{\"model_type\": 5}", NULL, "does not say model_type");
}

int main(void) {
    check_run("not an object", test_not_an_object);
    check_run("dotted paths", test_dotted_paths);
    check_run("numbers", test_numbers);
    check_run("flags", test_flags);
    check_run("choices", test_choices);
    check_run("ids", test_ids);
    check_run("neutral values", test_neutral_values);
    check_run("both spellings", test_both_spellings);
    check_run("numbers that do not fit", test_numbers_that_do_not_fit);
    check_run("rope that does not fit", test_rope_that_does_not_fit);
    check_run("printing", test_printing);
    check_run("families", test_families);
    return check_done();
}
