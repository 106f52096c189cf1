/* Models that are damaged or mean harm: each is refused with a reason or does no harm. */
#include <math.h>
#include <unistd.h>

#include "fixture.h"
#include "text/charsmap.h"
#include "text/spm.h"

/* --- Models made here ------------------------------------------------------------------------- */

struct message {
    unsigned char data[1 << 20];
    size_t size;
};

static struct message made, part; /* part is nested in made */

static void put(struct message *m, const void *data, size_t size) {
    if (size) memcpy(m->data + m->size, data, size);
    m->size += size;
}

static void put_varint(struct message *m, unsigned long long v) {
    for (; v > 127; v >>= 7) m->data[m->size++] = (unsigned char)(v | 128);
    m->data[m->size++] = (unsigned char)v;
}

static void put_bytes(struct message *m, unsigned number, const void *data, size_t size) {
    put_varint(m, number << 3 | 2);
    put_varint(m, size);
    put(m, data, size);
}

static void put_number(struct message *m, unsigned number, unsigned long long v) {
    put_varint(m, number << 3);
    put_varint(m, v);
}

enum { NORMAL = 1, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE };

static void add_piece(const void *text, size_t size, float score, int type) {
    part.size = 0;
    put_bytes(&part, 1, text, size);
    put_varint(&part, 2 << 3 | 5);
    put(&part, &score, sizeof score);
    put_number(&part, 3, (unsigned)type);
    put_bytes(&made, 1, part.data, part.size);
}

/* A vocabulary to go on from; type is 1 for unigram, 2 for BPE, 3 for words, 4 for characters. */
static void begin_model(int type) {
    made.size = part.size = 0;
    put_number(&part, 3, (unsigned)type);
    put_bytes(&made, 2, part.data, part.size);
    add_piece("<unk>", 5, 0, UNKNOWN);
    add_piece("<s>", 3, 0, CONTROL);
    add_piece("a", 1, -1, NORMAL);
    add_piece("▁a", 4, -2, NORMAL);
}

static bool try_bytes(struct span model, struct error *e) {
    struct tokens *t;
    memset(e, 0, sizeof *e);
    if (!tokens_open(&t, model, "bad.model", NULL, e)) {
        CHECK(!t && e->status == STATUS_FORMAT);
        CHECK_MSG(!strncmp(e->message, "bad.model ", 10) && strstr(e->message, ": "), "%s",
                  e->message);
        return false;
    }
    struct error why = {0};
    struct token_list list = {NULL, 0};
    static const char text[] =
        "a ab\0 <s>aa\xef\xac\x81 \xef\xb7\xbaz\xff aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    if (tokens_encode(t, text, sizeof text - 1, true, &list, &why)) {
        size_t size;
        for (size_t i = 0; i < list.count; i++) {
            CHECK(list.ids[i] >= 0 && list.ids[i] < tokens_count(t));
        }
        CHECK(!tokens_reach(t) || list.count * tokens_reach(t) >= sizeof text - 1);
        free(decode(t, list.ids, list.count, true, &size));
        free(decode(t, list.ids, list.count, false, &size));
    } else {
        CHECK(why.status == STATUS_ARGUMENT && !list.ids && !list.count);
    }
    free(list.ids);
    tokens_close(t);
    return true;
}

static bool try_made(struct error *e) {
    return try_bytes((struct span){made.data, made.size}, e);
}

static void check_refused(const char *reason) {
    struct error e;
    CHECK_MSG(!try_made(&e), "not refused: %s", reason);
    CHECK_MSG(strstr(e.message, reason), "'%s' does not say '%s'", e.message, reason);
}

static void check_accepted(void) {
    struct error e;
    CHECK_MSG(try_made(&e), "%s", e.message);
}

static void test_refused_models(void) {
    static char long_piece[1025];
    memset(long_piece, 'x', sizeof long_piece);
    struct error e;
    CHECK(!try_bytes((struct span){NULL, 0}, &e) && strstr(e.message, "empty"));
    begin_model(2);
    check_accepted();
    add_piece("", 0, 0, NORMAL);
    check_refused("empty");
    begin_model(1);
    add_piece(long_piece, sizeof long_piece, 0, NORMAL);
    check_refused("longer than 1024");
    begin_model(1);
    add_piece(long_piece, 1024, 0, NORMAL);
    check_accepted();
    begin_model(2);
    add_piece("a\0b", 3, 0, USER_DEFINED);
    check_refused("NUL");
    begin_model(2);
    add_piece("a", 1, 0, NORMAL);
    check_refused("already defined");
    begin_model(2);
    add_piece("<0x41>", 6, 0, BYTE);
    check_refused("byte");
    static const float scores[] = {NAN, INFINITY, -INFINITY}; /* unigram adds them up */
    for (int i = 0; i < 3; i++) {
        begin_model(i % 2 + 1);
        add_piece("a", 1, scores[i], NORMAL);
        check_refused("NaN or infinite");
    }
    made.size = 0;
    add_piece("a", 1, 0, NORMAL);
    check_refused("unk");
    made.size = 0;
    put_number(&made, 1, 7);
    check_refused("damaged");
}

static void test_nested_symbols(void) {
    char text[65];
    memset(text, 'b', sizeof text);
    begin_model(2);
    for (size_t n = 1; n <= 64; n++) add_piece(text, n, 0, USER_DEFINED);
    add_piece("c", 1, 0, USER_DEFINED); /* begins with none of them */
    check_accepted();
    add_piece(text, 65, 0, USER_DEFINED);
    check_refused("user defined");
}

/* Odd, but harmless. */
static void test_accepted_models(void) {
    for (int type = 0; type <= 5; type++) {
        begin_model(type);
        add_piece("a\0b", 3, -1, NORMAL);
        add_piece("\xff", 1, -1, NORMAL);
        add_piece("aa", 2, -1, UNUSED);
        add_piece("ab", 2, -1, 77);
        add_piece("b", 1, -0.0f, NORMAL);
        add_piece("z", 1, -3e38f, NORMAL);
        check_accepted();
    }
    begin_model(2);
    add_piece("b", 1, -1, CONTROL); /* also a letter of texts: the library may refuse these */
    check_accepted();
}

/* What a model may ask the library to print does not reach stderr. */
static void test_silence(void) {
    static const unsigned char sample[] = {10, 8, 10, 1, 'a', 18, 3, 'x', 27, 'y'};
    begin_model(1);
    put_bytes(&made, 4, sample, sizeof sample); /* a self-test that must fail */
    FILE *log = tmpfile();
    int before = dup(2);
    dup2(fileno(log), 2);
    struct error e;
    bool opened = try_made(&e);
    dup2(before, 2);
    close(before);
    CHECK(opened);
    fseek(log, 0, SEEK_END);
    CHECK(ftell(log) == 0);
    fclose(log);
}

static void test_ids_outside(void) {
    static const int ids[] = {-1, -2147483647 - 1, 4, 5, 100000000, 2147483647};
    char why[100];
    begin_model(2);
    struct spm *s = spm_open(made.data, made.size, why, sizeof why);
    CHECK(s && spm_count(s) == 4 && spm_bos(s) == 1 && spm_eos(s) == -1 && spm_unknown(s) == 0);
    for (size_t i = 0; s && i < sizeof ids / sizeof *ids; i++) {
        size_t size = 1;
        CHECK(*spm_piece(s, ids[i], &size) == 0 && size == 0);
        CHECK(spm_kind(s, ids[i]) == SPM_UNUSED);
    }
    spm_close(s);
    spm_close(NULL);
}

static void test_longest(void) {
    struct tokens *t;
    struct error e;
    begin_model(2);
    add_piece("<control>", 9, 0, CONTROL);
    CHECK(tokens_open(&t, (struct span){made.data, made.size}, "made", NULL, &e));
    CHECK(tokens_longest(t) == 9);
    tokens_close(t);
}

/* BPE whose pieces hold all of a text, if the normalizer leaves all spaces. */
static void begin_whole(unsigned single_spaces) {
    char name[8];
    begin_model(2);
    for (unsigned byte = 0; byte < 256; byte++) {
        snprintf(name, sizeof name, "<0x%02X>", byte);
        add_piece(name, 6, 0, BYTE);
    }
    part.size = 0;
    put_number(&part, 35, 1); /* byte_fallback */
    put_bytes(&made, 2, part.data, part.size);
    part.size = 0;
    put_number(&part, 4, single_spaces);
    put_bytes(&made, 3, part.data, part.size);
}

static void check_reach(size_t want) {
    struct tokens *t;
    struct error e;
    check_accepted();
    CHECK(tokens_open(&t, (struct span){made.data, made.size}, "made", NULL, &e));
    CHECK_MSG(tokens_reach(t) == want, "%zu, not %zu", tokens_reach(t), want);
    tokens_close(t);
}

/* None where a part of a text may have no token. */
static void test_reach(void) {
    begin_whole(false);
    check_reach(6);
    add_piece("[tool]:", 7, 0, USER_DEFINED);
    check_reach(7);
    add_piece("~", 1, 0, USER_DEFINED); /* a message may lose it to the template */
    check_reach(0);
    begin_whole(true);
    check_reach(0);
    begin_model(2); /* unknown characters share a token */
    check_reach(0);
}

static void test_unknown_surface(void) {
    begin_model(4);
    part.size = 0;
    put_bytes(&part, 44, "?\0!", 3); /* SentencePiece stops at the NUL */
    put_bytes(&made, 2, part.data, part.size);
    struct tokens *t;
    struct error e;
    CHECK(tokens_open(&t, (struct span){made.data, made.size}, "made", NULL, &e));
    int ids[] = {3, 0, 3};
    check_text(t, ids, 3, false, "a? a", 4);
    tokens_close(t);
    static char surface[1025];
    begin_model(4);
    part.size = 0;
    put_bytes(&part, 44, surface, sizeof surface);
    put_bytes(&made, 2, part.data, part.size);
    check_refused("unknown surface");
}

/* --- Normalization rules ---------------------------------------------------------------------- */

enum { UNITS = 512 };

static unsigned units[UNITS]; /* the root leads to 256 .. 511 */

static void add_rules(const char *targets, size_t size) {
    static struct message rules;
    rules.size = 0;
    unsigned bytes = sizeof units;
    put(&rules, &bytes, 4);
    put(&rules, units, sizeof units);
    put(&rules, targets, size);
    part.size = 0;
    put_bytes(&part, 2, rules.data, rules.size);
    put_bytes(&made, 3, part.data, part.size);
}

/* Unit at is reached by label and leads to the block at base. */
static unsigned make_unit(size_t at, size_t base, unsigned label, bool leaf) {
    return (unsigned)(at ^ base) << 10 | (unsigned)leaf << 8 | label;
}

/* One rule: from becomes what stands at value of the targets. */
static void begin_rules(unsigned char from, unsigned value) {
    begin_model(2);
    memset(units, 0, sizeof units);
    for (size_t i = 0; i < UNITS; i++) units[i] = (i ^ 0x80) & 0xff; /* no label fits its place */
    units[0] = make_unit(0, 256, 0, false);
    units[256 ^ from] = make_unit(256 ^ from, 1, from, true);
    units[1] = 0x80000000u | value;
}

static void test_rules(void) {
    begin_rules('b', 2);
    add_rules("x\0a", 4);
    struct tokens *t;
    struct error e;
    CHECK_MSG(tokens_open(&t, (struct span){made.data, made.size}, "made", NULL, &e), "%s",
              e.message);
    struct token_list list = encode(t, "b", 1, false);
    CHECK(list.count == 1 && list.ids[0] == 3); /* b became a */
    free(list.ids);
    tokens_close(t);

    begin_rules('b', 4);
    add_rules("x\0a", 4);
    check_refused("points outside");
    begin_rules('b', 0x7fffffff);
    add_rules("x\0a", 4);
    check_refused("points outside");
    begin_rules('b', 0);
    units[256 ^ 'b'] |= 1u << 9 | 0x1fffffu << 10;
    add_rules("x", 2);
    check_refused("trie is broken");
    begin_rules('b', 0);
    units[256 ^ 'b'] = make_unit(256 ^ 'b', 256, 'b', true); /* bb, bbb and so on are rules too */
    add_rules("x", 2);
    check_refused("has no end");
}

static void test_rules_without_bounds(void) {
    static char target[257];
    memset(target, 'x', 256);
    begin_rules('b', 1);
    add_rules(target, sizeof target);
    check_accepted();
    begin_rules('b', 0);
    add_rules(target, sizeof target);
    check_refused("255 bytes");
    begin_rules('b', 0);
    part.size = 0;
    put_bytes(&part, 2, "\0\4\0\0x", 5); /* 1024 bytes, it says */
    put_bytes(&made, 3, part.data, part.size);
    check_refused("size of its normalization trie");
}

/* A long chain of units in which each one is a rule: more than the library has room for. */
static void test_rules_in_each_other(void) {
    for (size_t length = 32; length <= 33; length++) {
        static unsigned chain[64 * 256 + 256];
        static struct message rules;
        for (size_t i = 0; i < sizeof chain / 4; i++) chain[i] = (i ^ 0x80) & 0xff;
        chain[0] = make_unit(0, 256, 0, false);
        for (size_t n = 1; n <= length; n++) {
            size_t at = 256 * n ^ 'b', base = 256 * (n + 1);
            chain[at] = make_unit(at, base, 'b', true);
            chain[base] = 0x80000000u;
        }
        unsigned bytes = sizeof chain;
        rules.size = 0;
        put(&rules, &bytes, 4);
        put(&rules, chain, sizeof chain);
        put(&rules, "x", 2);
        size_t growth = 3;
        const char *why = charsmap_check((struct span){rules.data, rules.size}, &growth);
        CHECK_MSG((length == 32) == !why, "%zu rules: %s", length, why ? why : "accepted");
    }
}

/* --- Damage ----------------------------------------------------------------------------------- */

static void test_truncated(void) {
    for (int m = 0; m < MODELS; m++) {
        struct span model = read_model(m);
        for (size_t size = 0; size < model.size; size++) {
            unsigned char *cut =
                malloc(size + 1); /* its own block, so that a sanitizer sees its end */
            if (size) memcpy(cut, model.data, size);
            struct error e;
            try_bytes((struct span){cut, size}, &e);
            free(cut);
        }
        free((void *)model.data);
    }
}

static void test_damaged(void) {
    unsigned random = 1;
    for (int m = 0; m < MODELS; m++) {
        struct span model = read_model(m);
        unsigned char *bytes = (unsigned char *)model.data;
        for (int n = 0; n < 3000; n++) {
            random = random * 1664525 + 1013904223;
            size_t at = (random >> 8) % model.size;
            unsigned char before = bytes[at];
            bytes[at] ^= (unsigned char)(1 + (random >> 4) % 255);
            struct error e;
            try_bytes(model, &e);
            bytes[at] = before;
        }
        free(bytes);
    }
}

int main(void) {
    check_run("refused models", test_refused_models);
    check_run("nested symbols", test_nested_symbols);
    check_run("accepted models", test_accepted_models);
    check_run("silence", test_silence);
    check_run("ids outside", test_ids_outside);
    check_run("longest", test_longest);
    check_run("reach of a token", test_reach);
    check_run("unknown surface", test_unknown_surface);
    check_run("rules", test_rules);
    check_run("rules without bounds", test_rules_without_bounds);
    check_run("rules in each other", test_rules_in_each_other);
    check_run("truncated models", test_truncated);
    check_run("damaged models", test_damaged);
    return check_done();
}
