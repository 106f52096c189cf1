/* Text on its way out, over every way of cutting it into pieces. */
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "check.h"
#include "gen/stream.h"

enum { LONGEST = 64, MOST_STOPS = 3 };

/* What was emitted. */
struct out {
    char text[4 * LONGEST];
    size_t size;
};

static void note(void *arg, const char *text, size_t size) {
    struct out *o = arg;
    CHECK(size > 0 && o->size + size <= sizeof o->text);
    memcpy(o->text + o->size, text, size);
    o->size += size;
}

struct fixture {
    struct stream stream;
    struct arena arena;
    struct out out;
};

static void open_stream(struct fixture *f, const char *const *stops, size_t longest_piece) {
    struct arena count = {0};
    struct error e;
    size_t n = 0;
    while (stops[n]) n++;
    *f = (struct fixture){0};
    stream_open(&f->stream, &count, stops, n, longest_piece, note, &f->out);
    CHECK(arena_open(&f->arena, count.used, &e));
    stream_open(&f->stream, &f->arena, stops, n, longest_piece, note, &f->out);
}

static bool begins_with(const char *text, size_t size, const char *stop) {
    return strlen(stop) <= size && memcmp(text, stop, strlen(stop)) == 0;
}

/* Where the first stop string in text begins; size if there is none. */
static size_t first_stop(const char *text, size_t size, const char *const *stops) {
    for (size_t at = 0; at < size; at++) {
        for (size_t i = 0; stops[i]; i++) {
            if (begins_with(text + at, size - at, stops[i])) return at;
        }
    }
    return size;
}

/* How much of text, in which no stop string is, can no longer become part of one. */
static size_t settled(const char *text, size_t size, const char *const *stops) {
    for (size_t at = 0; at < size; at++) {
        for (size_t i = 0; stops[i]; i++) {
            size_t tail = size - at;
            if (tail < strlen(stops[i]) && memcmp(text + at, stops[i], tail) == 0) return at;
        }
    }
    return size;
}

/* Whether a character of text, a byte that belongs to none counting as one, ends before `at`. */
static bool is_between_characters(const char *text, size_t size, size_t at) {
    size_t end = 0;
    while (end < at) {
        size_t length = utf8_sequence(text + end, size - end);
        end += length ? length : 1;
    }
    return end == at;
}

/* Feeds text with a cut after each byte i whose bit i is set in cuts. What is out must be, after
 * every piece, all that is settled and made of whole characters; in the end, what stands before
 * the first stop string, or everything. */
static void check_cut(const char *text, size_t size, const char *const *stops, unsigned cuts) {
    struct fixture f;
    bool stopped = false;
    size_t stop = size;
    open_stream(&f, stops, size);
    for (size_t from = 0, to = 1; to <= size && !stopped; to++) {
        if (to < size && !(cuts >> (to - 1) & 1)) continue;
        stopped = stream_add(&f.stream, text + from, to - from);
        from = to;
        stop = first_stop(text, to, stops);
        CHECK_MSG(stopped == (stop < to), "'%s', cuts %x: stop at %zu of %zu", text, cuts, stop,
                  to);
        if (stopped) break;
        size_t want = utf8_complete(text, settled(text, to, stops));
        CHECK_MSG(f.out.size == want, "'%s', cuts %x: %zu of %zu are out, not %zu", text, cuts,
                  f.out.size, to, want);
        CHECK_MSG(is_between_characters(text, size, f.out.size), "'%s', cuts %x: split", text,
                  cuts);
    }
    if (!stopped) stop = size;
    stream_flush(&f.stream);
    stream_flush(&f.stream);
    CHECK_MSG(f.out.size == stop && memcmp(f.out.text, text, stop) == 0,
              "'%s', cuts %x: %zu bytes came out, not %zu", text, cuts, f.out.size, stop);
    arena_close(&f.arena);
}

/* Every text of up to `longest` letters of the alphabet, every cut. */
static void check_all(const char *alphabet, size_t longest, const char *const *stops) {
    size_t letters = strlen(alphabet), texts = 1;
    for (size_t size = 1; size <= longest; size++) {
        texts *= letters;
        for (size_t number = 0; number < texts; number++) {
            char text[LONGEST] = {0};
            for (size_t i = 0, rest = number; i < size; i++, rest /= letters) {
                text[i] = alphabet[rest % letters];
            }
            for (unsigned cuts = 0; cuts < 1u << (size - 1) && check_ok; cuts++) {
                check_cut(text, size, stops, cuts);
            }
        }
    }
}

static void test_stop_strings(void) {
    static const char *const sets[][MOST_STOPS + 1] = {
        {NULL},         {"a"},           {"ab"},          {"aab"},        {"abab"},
        {"aabaa"},      {"ab", "ba"},    {"aa", "abb"},   {"bab", "aab"}, {"abb", "baa", "bbb"},
        {"aab", "abb"}, {"abab", "bba"}, {"aaaa", "bbbb"}};
    for (size_t i = 0; i < sizeof sets / sizeof *sets; i++) check_all("ab", 8, sets[i]);
    static const char *const words[] = {"abc", "cab", NULL};
    check_all("abc", 6, words);
}

/* One stop string within another: the shorter may come up first, when its last byte arrives. */
static void test_stop_within_a_stop(void) {
    static const char *const sets[][MOST_STOPS + 1] = {
        {"abab", "ba"}, {"aab", "a"}, {"bab", "bbabb"}, {"aabb", "ab", "b"}};
    for (size_t i = 0; i < sizeof sets / sizeof *sets; i++) check_all("ab", 7, sets[i]);
}

/* Bytes of one, two, three and four byte characters, and of none. */
static void test_characters(void) {
    static const char *const none[] = {NULL}, *const euro[] = {"\xe2\x82\xac", NULL};
    static const char *const mixed[] = {"x\xc3\xa4", "\xe2\x82\xacx", NULL};
    check_all("x\xe2\x82\xac\xc3\xa4", 5, none);
    check_all("\xf0\x9f\x98\x80\xff", 5, none);
    check_all("x\xe2\x82\xac\xc3", 5, euro);
    check_all("x\xe2\x82\xac\xc3\xa4", 4, mixed);
}

/* What no byte can complete passes at once; what one could waits for it or for the flush. */
static void test_incomplete_bytes(void) {
    static const char *const none[] = {NULL};
    static const struct {
        const char *text;
        size_t out; /* before the flush */
    } cases[] = {{"\xff", 1},         {"\xc0", 1},         {"\x80\x80", 2},     {"a\xe2\x82", 1},
                 {"\xe2\x82\x41", 3}, {"\xf0\x9f\x98", 0}, {"\xf8\x88\x80", 3}, {"\xe2\xe2", 1},
                 {"\xed\xa0", 2},     {"\xf4\x90", 2},     {"\xc3", 0}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct fixture f;
        size_t size = strlen(cases[i].text);
        open_stream(&f, none, size);
        CHECK(!stream_add(&f.stream, cases[i].text, size));
        CHECK_MSG(f.out.size == cases[i].out, "case %zu: %zu bytes", i, f.out.size);
        stream_flush(&f.stream);
        CHECK(f.out.size == size && memcmp(f.out.text, cases[i].text, size) == 0);
        arena_close(&f.arena);
    }
}

/* The buffer is as large as it has to be: pieces as long as promised, each after text of which as
 * much as possible is held back. */
static void test_longest_pieces(void) {
    static const char *const stops[] = {"0123456789abcdefX", "xy\xe2\x82\xacX", NULL};
    static const char *const texts[] = {"0123456789abcdef", "zzxy\xe2\x82\xaczzzzzzzzz",
                                        "xy\xe2\x82\xacxy\xe2\x82\xacxy\xe2\x82",
                                        "\xf0\x9f\x98\xf0\x9f\x98\xf0\x9f\x98"};
    enum { TEXTS = sizeof texts / sizeof *texts, PIECE = 16 };
    for (int code = 0; code < TEXTS * TEXTS * TEXTS; code++) {
        char all[4 * LONGEST] = "";
        struct fixture f;
        open_stream(&f, stops, PIECE);
        for (int i = 0, rest = code; i < 3; i++, rest /= TEXTS) {
            const char *text = texts[rest % TEXTS];
            CHECK(!stream_add(&f.stream, text, strlen(text)));
            strcat(all, text);
        }
        stream_flush(&f.stream);
        CHECK_MSG(f.out.size == strlen(all) && memcmp(f.out.text, all, f.out.size) == 0,
                  "texts %d: %zu bytes of %zu", code, f.out.size, strlen(all));
        arena_close(&f.arena);
    }
}

static void test_empty_pieces(void) {
    static const char *const stops[] = {"ab", NULL};
    struct fixture f;
    open_stream(&f, stops, 1);
    CHECK(!stream_add(&f.stream, "", 0) && !stream_add(&f.stream, "a", 1));
    CHECK(!stream_add(&f.stream, "", 0) && f.out.size == 0);
    CHECK(stream_add(&f.stream, "b", 1) && f.out.size == 0);
    arena_close(&f.arena);
}

int main(void) {
    check_run("stop strings", test_stop_strings);
    check_run("a stop within a stop", test_stop_within_a_stop);
    check_run("characters", test_characters);
    check_run("incomplete bytes", test_incomplete_bytes);
    check_run("longest pieces", test_longest_pieces);
    check_run("empty pieces", test_empty_pieces);
    return check_done();
}
