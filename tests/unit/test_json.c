/* src/base/json: what it lets pass and what it says of the rest. */
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "check.h"
#include "scratch.h"

static const struct json_limits limits = {.bytes = 4 << 20, .values = 1000};

static cJSON *parse_bytes(const char *text, size_t size, struct error *e) {
    *e = (struct error){0};
    return json_parse((struct span){(const unsigned char *)text, size}, limits, "f.json", e);
}

/* why NULL: parsed. */
static void check_bytes(const char *text, size_t size, const char *why) {
    struct error e;
    cJSON *root = parse_bytes(text, size, &e);
    CHECK_MSG(!root == !!why, "%.60s: %s", text, e.message);
    if (why) {
        CHECK_MSG(e.status == STATUS_FORMAT && strstr(e.message, why) &&
                      strncmp(e.message, "f.json ", 7) == 0,
                  "%.60s: %s", text, e.message);
    }
    cJSON_Delete(root);
}

static void check_text(const char *text, const char *why) {
    check_bytes(text, strlen(text), why);
}

static void test_objects(void) {
    check_text("{}", NULL);
    check_text(" \t\r\n{ \"a\" : [1, {}] } \t\r\n", NULL);
    static const char *const broken[] = {
        "",     " ",    "{",   "{\"a\":}", "{\"a\":1,", "{'a':1}",  "{a:1}",
        "{} x", "{}{}", "{}}", "{\"a\\",   "nul",       "{\"a\"1}", "{\"a\\ud800\":1}"};
    for (size_t i = 0; i < sizeof broken / sizeof *broken; i++) {
        check_text(broken[i], "not valid JSON");
    }
    static const char *const others[] = {"[]", "7", "\"text\"", "null", "true", "[{\"a\":1}]"};
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        check_text(others[i], "not a JSON object");
    }
}

static void test_characters(void) {
    check_text("{\"\xc3\xa9\":\"\xf0\x9f\x98\x80\"}", NULL);
    check_text("{\"a\xff\":1}", "not UTF-8");
    check_text("{\"a\xc0\x80\":1}", "not UTF-8");
    check_text("{\"a\":\"\xed\xa0\x80\"}", "not UTF-8");
    check_text("{\"a\xc3\"}", "not UTF-8");
    check_text("{\"a\n\":1}", "control characters");
    check_text("{\"a\":\"\t\"}", "control characters");
    check_text("{\x01}", "control characters");
    check_text("{}\x0b", "control characters");
    check_bytes("{}\0", 3, "control characters");
    check_bytes("{\"a\0\":1}", 8, "control characters");
    check_text("{\"a\\u0000\":1}", "a NUL in a string");
    check_text("{\"a\":\"\\\\\\u0000\"}", "a NUL in a string");
    check_text("{\"a\":\"\\\\u0000 \\\" \\n\"}", NULL); /* a backslash and u0000 */
}

static void test_twice(void) {
    check_text("{\"a\":1,\"a\":1}", "f.json has 'a' twice");
    check_text("{\"a\":1,\"\\u0061\":2}", "f.json has 'a' twice");
    check_text("{\"b\":[[{\"c\":1,\"d\":2,\"c\":3}]]}", "f.json has 'c' twice");
    check_text("{\"\":1,\"\":2}", "f.json has '' twice");
    check_text("{\"a\":{\"a\":{\"a\":1}},\"A\":[{\"a\":1},{\"a\":2}]}", NULL);
    char *key = scratch_repeated("{\"", "k", 500, "\":"),
         *text = scratch_repeated(key, "1,", 1, key + 1);
    char *whole = scratch_repeated(text, "2", 1, "}");
    check_text(whole, "kkk' twice");
    free(key);
    free(text);
    free(whole);
}

static void check_repeated(const char *before, const char *what, size_t n, const char *after,
                           const char *why) {
    char *text = scratch_repeated(before, what, n, after);
    check_text(text, why);
    free(text);
}

static void test_limits(void) {
    check_repeated("{\"a\":[0", ",0", 998, "]}", NULL); /* two brackets and 998 commas */
    check_repeated("{\"a\":[0", ",0", 999, "]}", "more values");
    check_repeated("{\"a\":[{}", ",{}", 600, "]}", "more values");
    check_repeated("{\"", ",[{", 100000, "\":\",[{\"}", NULL); /* in strings */
    check_repeated("{}", " ", (4 << 20) - 2, "", NULL);
    check_repeated("{}", " ", (4 << 20) - 1, "", "larger than 4 MiB");
    check_repeated("{\"a\":", "[", 990, "", "not valid JSON");
    struct json_limits many = {.bytes = 16 << 20, .values = 4 << 20};
    char *deep = scratch_repeated("{\"a\":", "[", 3 << 20, ""); /* deeper than any stack */
    struct span text = {(const unsigned char *)deep, strlen(deep)};
    struct error e = {0};
    CHECK(!json_parse(text, many, "f.json", &e) && strstr(e.message, "not valid JSON"));
    free(deep);
}

int main(void) {
    check_run("json: one object and nothing behind it", test_objects);
    check_run("json: UTF-8 without control characters", test_characters);
    check_run("json: no key twice in an object", test_twice);
    check_run("json: sizes", test_limits);
    return check_done();
}
