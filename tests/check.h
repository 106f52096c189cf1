/* The harness of the C tests: a test is a function; it passes if no CHECK in it failed.
 *
 *     static void test_thing(void) { CHECK(1 + 1 == 2); }
 *     int main(void) { check_run("thing", test_thing); return check_done(); }
 *
 * A failed CHECK prints where it stands and goes on. check_done prints the closing line 'N passed,
 * N failed' that tests/run.py adds up, and returns the exit status. */
#ifndef NIBBLE_TESTS_CHECK_H
#define NIBBLE_TESTS_CHECK_H

#include <stdbool.h>
#include <stdio.h>

static int check_passed, check_failed;
static bool check_ok;

#define CHECK(condition) CHECK_MSG(condition, "%s", #condition)
#define CHECK_MSG(condition, ...)                                                                  \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            check_ok = false;                                                                      \
            printf("%s:%d: ", __FILE__, __LINE__);                                                 \
            printf(__VA_ARGS__);                                                                   \
            printf("\n");                                                                          \
        }                                                                                          \
    } while (0)

static inline void check_run(const char *name, void (*test)(void)) {
    check_ok = true;
    test();
    check_passed += check_ok;
    check_failed += !check_ok;
    if (!check_ok) printf("FAIL %s\n", name);
    fflush(stdout);
}

static inline int check_done(void) {
    printf("%d passed, %d failed\n", check_passed, check_failed);
    return check_failed != 0;
}

#endif
