/* kern_select: which level a name, a CPU and a build lead to, and what is refused. */
#include <string.h>

#include "base/cpu.h"
#include "check.h"
#include "kern/kern.h"

static const uint32_t needs[KERN_LEVELS] = {
#define LEVEL(id, features) [KERN_LEVEL_##id] = features,
#include "kern/levels.def"
#undef LEVEL
};

static bool is_complete(const struct kern *kern) {
    bool complete = true;
#define KERNEL(name, result, params) complete = complete && kern->name;
#include "kern/kern.def"
#undef KERNEL
    return complete;
}

static bool is_plain(const struct kern *kern) {
    bool plain = true;
#define KERNEL(name, result, params) plain = plain && kern->name == kern_scalar.name;
#include "kern/kern.def"
#undef KERNEL
    return plain;
}

/* One sentence that names the level and lists what can be chosen. */
static void check_refused(const struct error *e, const char *name, uint32_t features) {
    char quoted[64];
    snprintf(quoted, sizeof quoted, "'%s'", name);
    const char *list = strstr(e->message, "choose from ");
    CHECK(e->status == STATUS_ARGUMENT);
    CHECK(strstr(e->message, quoted) && !strchr(e->message, '\n'));
    CHECK_MSG(list, "no list of levels: %s", e->message);
    for (enum kern_level l = 0; list && l < KERN_LEVELS; l++) {
        bool usable = kern_level_built(l) && (needs[l] & ~features) == 0;
        CHECK_MSG(!strstr(list, kern_level_name(l)) == !usable, "%s: %s", kern_level_name(l),
                  e->message);
    }
}

static void test_best(void) {
    struct kern kern = {0};
    struct error e;
    const char *chosen = NULL;
    enum kern_level best = KERN_LEVELS - 1;
    while (!kern_level_available(best)) best--;
    CHECK(kern_select(&kern, NULL, &chosen, &e));
    CHECK(chosen && strcmp(chosen, kern_level_name(best)) == 0);
    CHECK(is_complete(&kern));
    CHECK(best == KERN_LEVEL_scalar || !is_plain(&kern));
}

static void test_ceiling(void) {
    for (enum kern_level l = 0; l < KERN_LEVELS; l++) {
        struct kern kern = {0};
        struct error e;
        const char *chosen = NULL;
        if (!kern_level_available(l)) continue;
        CHECK(kern_select(&kern, kern_level_name(l), &chosen, &e));
        CHECK(chosen && strcmp(chosen, kern_level_name(l)) == 0);
        CHECK(is_complete(&kern));
        CHECK(is_plain(&kern) == (l == KERN_LEVEL_scalar));
    }
}

static void test_unknown_name(void) {
    static const char *const names[] = {"avx1024", "", "Scalar", "avx", "scalar "};
    struct cpu cpu;
    cpu_probe(&cpu);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        struct kern kern;
        struct error e;
        const char *chosen;
        CHECK(!kern_select(&kern, names[i], &chosen, &e));
        check_refused(&e, names[i], cpu.features);
    }
}

/* A CPU with exactly what a level needs gets that level; one with less is refused it. */
static void test_other_cpus(void) {
    for (enum kern_level l = 0; l < KERN_LEVELS; l++) {
        struct kern kern = {0};
        struct error e;
        const char *chosen = NULL, *name = kern_level_name(l);
        if (!kern_level_built(l)) continue;
        CHECK(kern_select_for(needs[l], &kern, NULL, &chosen, &e) && strcmp(chosen, name) == 0);
        CHECK(is_complete(&kern));
        for (uint32_t bit = 1; bit; bit <<= 1) {
            uint32_t features = needs[l] & ~bit;
            if (!(needs[l] & bit)) continue;
            CHECK(!kern_select_for(features, &kern, name, &chosen, &e));
            check_refused(&e, name, features);
            CHECK(kern_select_for(features, &kern, NULL, &chosen, &e) && strcmp(chosen, name) != 0);
        }
    }
}

/* A level of levels.def that this binary is without is refused on every CPU. */
static void test_not_built(void) {
    for (enum kern_level l = 0; l < KERN_LEVELS; l++) {
        struct kern kern;
        struct error e;
        const char *chosen;
        if (kern_level_built(l)) continue;
        CHECK(!kern_level_available(l));
        CHECK(!kern_select_for(UINT32_MAX, &kern, kern_level_name(l), &chosen, &e));
        check_refused(&e, kern_level_name(l), UINT32_MAX);
        CHECK(kern_select_for(UINT32_MAX, &kern, NULL, &chosen, &e));
    }
}

static void test_levels_of_this_build(void) {
    CHECK(kern_level_built(KERN_LEVEL_scalar) && kern_level_available(KERN_LEVEL_scalar));
#ifdef __x86_64__
    CHECK(kern_level_built(KERN_LEVEL_avx2) && kern_level_built(KERN_LEVEL_avx512));
#endif
}

int main(void) {
    check_run("the best level", test_best);
    check_run("a ceiling by name", test_ceiling);
    check_run("an unknown name", test_unknown_name);
    check_run("other CPUs", test_other_cpus);
    check_run("levels that are not built", test_not_built);
    check_run("levels that are built", test_levels_of_this_build);
    return check_done();
}
