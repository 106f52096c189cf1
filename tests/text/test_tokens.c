/* Tokenizing and detokenizing, against what SentencePiece itself did: cases.jsonl, see README. */
#include <cjson/cJSON.h>
#include <limits.h>

#include "fixture.h"

static bool same_ids(const int *a, size_t n, const int *b, size_t m) {
    return n == m && (n == 0 || memcmp(a, b, n * sizeof *a) == 0);
}

static int id_of(const struct tokens *t, const char *piece) {
    struct token_list list = encode(t, piece, strlen(piece), true);
    int id = list.count == 1 ? list.ids[0] : -1;
    CHECK_MSG(id >= 0, "%s is no piece", piece);
    free(list.ids);
    return id;
}

/* --- What SentencePiece did ------------------------------------------------------------------- */

struct one_case {
    const char *kind;
    int model;
    char *text; /* malloc'd */
    size_t size;
    int *ids; /* malloc'd */
    size_t count;
};

static unsigned hex_digit(char c) {
    return (unsigned)(c <= '9' ? c - '0' : c - 'a' + 10);
}

static void read_text(const cJSON *json, struct one_case *c) {
    const char *plain = cJSON_GetStringValue(cJSON_GetObjectItem(json, "text"));
    const char *hex = cJSON_GetStringValue(cJSON_GetObjectItem(json, "hex"));
    c->size = plain ? strlen(plain) : strlen(hex) / 2;
    c->text = malloc(c->size + 1);
    for (size_t i = 0; i < c->size; i++) {
        c->text[i] =
            plain ? plain[i] : (char)(hex_digit(hex[2 * i]) << 4 | hex_digit(hex[2 * i + 1]));
    }
}

static struct one_case read_case(const char *line) {
    struct one_case c = {NULL, -1, NULL, 0, NULL, 0};
    cJSON *json = cJSON_Parse(line);
    static const char *const kinds[] = {"encode", "special", "decode"};
    for (size_t k = 0; k < 3; k++) {
        const char *name = cJSON_GetStringValue(cJSON_GetObjectItem(json, kinds[k]));
        if (!name) continue;
        c.kind = kinds[k];
        for (int m = 0; m < MODELS; m++) {
            if (!strcmp(name, models[m])) c.model = m;
        }
    }
    const cJSON *ids = cJSON_GetObjectItem(json, "ids"), *id;
    c.ids = malloc(((size_t)cJSON_GetArraySize(ids) + 1) * sizeof *c.ids);
    cJSON_ArrayForEach(id, ids) c.ids[c.count++] = id->valueint;
    read_text(json, &c);
    CHECK_MSG(c.kind && c.model >= 0, "%s", line);
    if (!c.kind || c.model < 0) exit(1);
    cJSON_Delete(json);
    return c;
}

static void check_encoded(const struct tokens *t, const struct one_case *c, bool special) {
    struct token_list list = encode(t, c->text, c->size, special);
    CHECK_MSG(same_ids(list.ids, list.count, c->ids, c->count), "%s with %s: '%.*s': other ids",
              c->kind, models[c->model], (int)c->size, c->text);
    CHECK(!tokens_reach(t) || list.count * tokens_reach(t) >= c->size);
    free(list.ids);
}

static void test_cases(void) {
    struct tokens *t[MODELS];
    int counts[3] = {0};
    for (int m = 0; m < MODELS; m++) t[m] = open_model(m);
    struct span file = read_beside("cases.jsonl");
    for (char *line = strtok((char *)file.data, "\n"); line; line = strtok(NULL, "\n")) {
        struct one_case c = read_case(line);
        if (*c.kind == 'd') {
            check_text(t[c.model], c.ids, c.count, false, c.text, c.size);
        } else {
            check_encoded(t[c.model], &c, *c.kind == 's');
        }
        counts[*c.kind == 'd' ? 0 : *c.kind == 's' ? 1 : 2]++;
        free(c.text);
        free(c.ids);
    }
    CHECK(counts[0] >= 300 && counts[1] >= 20 && counts[2] >= 200);
    free((void *)file.data);
    for (int m = 0; m < MODELS; m++) tokens_close(t[m]);
}

/* --- Encoding --------------------------------------------------------------------------------- */

static void test_vocabulary(void) {
    static const int counts[MODELS] = {400, 250, 400, 60};
    for (int m = 0; m < MODELS; m++) {
        struct tokens *t = open_model(m);
        CHECK(tokens_count(t) == counts[m]);
        CHECK(tokens_bos(t) == 1 && tokens_eos(t) == 2);
        CHECK(!tokens_is_control(t, 0) && tokens_is_control(t, 1) && tokens_is_control(t, 2));
        CHECK(!tokens_is_control(t, -1) && !tokens_is_control(t, counts[m]));
        CHECK(tokens_is_control(t, 3) == (m == UNIGRAM_RULES || m == BPE_SYMBOLS));
        CHECK(!tokens_is_control(t, counts[m] - 1));
        tokens_close(t);
    }
    tokens_close(NULL);
}

/* Of those that drop nothing it is the longest piece, as it is spelled. */
static void test_reach(void) {
    for (int m = 0; m < MODELS; m++) {
        struct tokens *t = open_model(m);
        size_t size, longest = 0;
        for (int id = 0; id < tokens_count(t); id++) {
            tokens_name(t, id, &size);
            if (size > longest) longest = size;
        }
        bool drops = m == UNIGRAM_RULES || m == CHAR_SPACES;
        CHECK_MSG(tokens_reach(t) == (drops ? 0 : longest), "%s: %zu", models[m], tokens_reach(t));
        tokens_close(t);
    }
}

static void test_list_grows(void) {
    struct tokens *t = open_model(BPE_BYTES);
    struct token_list list = {malloc(sizeof(int)), 1};
    struct error e;
    list.ids[0] = tokens_bos(t);
    CHECK(tokens_encode(t, "the", 3, false, &list, &e));
    size_t before = list.count;
    CHECK(before > 1 && list.ids[0] == 1);
    CHECK(tokens_encode(t, NULL, 0, true, &list, &e) && list.count == before);
    CHECK(tokens_encode(t, "</s>", 4, true, &list, &e) && list.count == before + 1);
    CHECK(list.ids[before] == 2);
    CHECK(
        !tokens_encode(t, "x", (size_t)1 << 31, false, &list, &e)); /* refused before it is read */
    CHECK(e.status == STATUS_ARGUMENT && strstr(e.message, "too long") && list.count == before + 1);
    free(list.ids);
    tokens_close(t);
}

/* Long texts: every text comes back, and special tokens are found in about linear time. */
static void test_long_texts(void) {
    static const char *const units[] = {"a",      " ", "the cat ", "</s", "<s>", "\xe4\xbb\x8a",
                                        "[end]le"};
    enum { SIZE = 100000 };
    struct tokens *t = open_model(BPE_SYMBOLS);
    char *text = malloc(SIZE);
    for (size_t u = 0; u < sizeof units / sizeof *units; u++) {
        size_t n = strlen(units[u]), size = SIZE / n * n;
        for (size_t i = 0; i < size; i++) text[i] = units[u][i % n];
        for (int special = 0; special < 2; special++) {
            struct token_list list = encode(t, text, size, special);
            check_text(t, list.ids, list.count, true, text, size);
            CHECK(list.count * tokens_reach(t) >= size);
            CHECK(u != 4 || !special || list.count == size / n);
            free(list.ids);
        }
    }
    free(text);
    tokens_close(t);
}

/* --- Decoding --------------------------------------------------------------------------------- */

static void test_control(void) {
    struct tokens *t = open_model(BPE_BYTES);
    int the = id_of(t, "the"), ids[] = {1, the, 2, the, 0};
    check_text(t, ids, 5, false, "the the \xe2\x81\x87 ", 12);
    check_text(t, ids, 5, true, "<s> the</s> the<unk>", 20);
    tokens_close(t);
    t = open_model(BPE_SYMBOLS);
    int others[] = {id_of(t, "▁ctl"), id_of(t, "<tool>"), id_of(t, "▁the▁"), 0};
    check_text(t, others, 4, false, "<tool> the  (?) ", 16);
    check_text(t, others, 4, true, "▁ctl<tool> the <unk>", 22);
    tokens_close(t);
}

static void test_text_is_cut(void) {
    struct tokens *t = open_model(BPE_BYTES);
    char out[64];
    int the = id_of(t, "the");
    struct detokenizer d = {t, true};
    memset(out, '-', sizeof out);
    CHECK(tokens_text(&d, the, false, out, 2) == 4 && memcmp(out, " t--", 4) == 0);
    CHECK(tokens_text(&d, the, false, NULL, 0) == 4);
    CHECK(tokens_text(&d, 1, true, out, 1) == 3 && memcmp(out, "<t-", 3) == 0);
    static const int outside[] = {-1, INT_MIN, INT_MAX, 400};
    for (int i = 0; i < 4; i++) CHECK(tokens_text(&d, outside[i], true, out, sizeof out) == 0);
    tokens_close(t);
}

/* Bytes are passed on as they are: what they add up to is not known yet. */
static void test_bytes(void) {
    struct tokens *t = open_model(BPE_BYTES);
    for (int byte = 0; byte < 256; byte++) {
        struct detokenizer d = {t, false};
        char out[8] = "";
        int id = 3 + byte; /* the trainer puts them behind <unk>, <s> and </s> */
        CHECK(tokens_text(&d, id, false, out, 8) == 1 && (unsigned char)out[0] == byte);
        CHECK(d.started);
    }
    tokens_close(t);
}

int main(void) {
    check_run("SentencePiece's own cases", test_cases);
    check_run("vocabulary", test_vocabulary);
    check_run("reach of a token", test_reach);
    check_run("list grows", test_list_grows);
    check_run("long texts", test_long_texts);
    check_run("control tokens", test_control);
    check_run("text is cut", test_text_is_cut);
    check_run("bytes", test_bytes);
    return check_done();
}
