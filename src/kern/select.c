#include <stdio.h>
#include <string.h>

#include "base/cpu.h"
#include "kern/kern.h"
#include "kern/stream.h"

/* The Makefile defines KERN_BUILT as the levels that it compiles besides scalar, as
 * BUILT(avx2) BUILT(avx512): those of other machines have no table to link. */
static const struct kern *const tables[KERN_LEVELS] = {
#define BUILT(id) [KERN_LEVEL_##id] = &kern_##id,
    BUILT(scalar) KERN_BUILT
#undef BUILT
};

static const struct {
    const char *name;
    uint32_t needs;
} levels[KERN_LEVELS] = {
#define LEVEL(id, features) {#id, features},
#include "kern/levels.def"
#undef LEVEL
};

/* Lines are asked for twice, for the second cache waits for more of them than the first; only Zen 5
 * reads faster when they are asked for once and "far" is the next line (without that it is slower
 * again). (Sapphire Rapids, Zen 5) */
static const struct streams usual = {{3072, 768}, {3072, 768}, false};
static const struct streams zen5 = {{64, 3072}, {64, 3584}, true};

_Atomic(const struct streams *) kern_streams = &usual;

static const struct streams *streams_of(const struct cpu *cpu) {
    return cpu->amd_family > 0x19 ? &zen5 : &usual;
}

static bool runs(enum kern_level level, uint32_t features) {
    return tables[level] && (levels[level].needs & ~features) == 0;
}

static void overlay(struct kern *kern, const struct kern *table) {
#define KERNEL(name, result, params)                                                               \
    if (table->name) kern->name = table->name;
#include "kern/kern.def"
#undef KERNEL
}

static enum kern_level find_best(uint32_t features) {
    enum kern_level level = KERN_LEVELS - 1;
    while (!runs(level, features)) level--;
    return level;
}

/* The level of that name, or KERN_LEVELS. */
static enum kern_level find(const char *name) {
    enum kern_level level = 0;
    while (level < KERN_LEVELS && strcmp(name, levels[level].name) != 0) level++;
    return level;
}

static bool refuse(const char *name, enum kern_level level, uint32_t features, struct error *e) {
    char list[256] = "";
    for (enum kern_level i = 0; i < KERN_LEVELS; i++) {
        size_t used = strlen(list);
        if (!runs(i, features)) continue;
        snprintf(list + used, sizeof list - used, "%s%s", used ? ", " : "", levels[i].name);
    }
    const char *why = level == KERN_LEVELS ? "no SIMD level has that name"
                      : !tables[level]     ? "this build is without it"
                                           : "this CPU lacks instructions that it needs";
    return fail(e, STATUS_ARGUMENT, "level '%s' cannot be used: %s; choose from %s", name, why,
                list);
}

bool kern_select_for(uint32_t features, struct kern *kern, const char *ceiling, const char **chosen,
                     struct error *e) {
    enum kern_level top = ceiling ? find(ceiling) : find_best(features);
    if (top == KERN_LEVELS || !runs(top, features)) return refuse(ceiling, top, features, e);
    for (enum kern_level level = 0; level <= top; level++) {
        if (runs(level, features)) overlay(kern, tables[level]);
    }
    *chosen = levels[top].name;
    return true;
}

bool kern_select(struct kern *kern, const char *ceiling, const char **chosen, struct error *e) {
    struct cpu cpu;
    cpu_probe(&cpu);
    atomic_store(&kern_streams, streams_of(&cpu));
    return kern_select_for(cpu.features, kern, ceiling, chosen, e);
}

const char *kern_level_name(enum kern_level level) {
    return levels[level].name;
}

bool kern_level_built(enum kern_level level) {
    return tables[level] != NULL;
}

bool kern_level_available(enum kern_level level) {
    struct cpu cpu;
    cpu_probe(&cpu);
    return runs(level, cpu.features);
}
