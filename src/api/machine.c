/* include/nibble.h: the machine and this build. */
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/cpu.h"
#include "base/memory.h"
#include "base/utf8.h"
#include "kern/kern.h"
#include "model/config.h"
#include "nibble.h"
#include "ops/blas.h"
#include "store/npz.h"
#include "text/regex.h"
#include "text/unicode.h"
#include "version.h"

#ifdef __clang__
#define COMPILER "clang"
#else
#define COMPILER "gcc"
#endif

static void list_levels(char *out, size_t size, bool (*has)(enum kern_level)) {
    *out = 0;
    for (int level = 0; level < KERN_LEVELS; level++) {
        if (!has((enum kern_level)level)) continue;
        size_t used = strlen(out);
        snprintf(out + used, size - used, "%s%s", used ? " " : "",
                 kern_level_name((enum kern_level)level));
    }
}

void nibble_machine_probe(nibble_machine *m) {
    struct cpu cpu;
    cpu_probe(&cpu);
    *m = (nibble_machine){.logical = cpu.logical,
                          .physical = cpu.physical,
                          .threads = cpu.threads,
                          .memory_available = memory_available()};
    snprintf(m->cpu, sizeof m->cpu, "%s", cpu.name);
    snprintf(m->reason, sizeof m->reason, "%s", cpu.reason);
    list_levels(m->levels, sizeof m->levels, kern_level_available);
}

size_t nibble_memory_private(void) {
    return memory_private();
}

size_t nibble_memory_peak(void) {
    return memory_peak();
}

uint64_t nibble_clock(void) {
    return clock_ns();
}

const char *nibble_version(void) {
    return NIBBLE_VERSION;
}

const char *nibble_commit(void) {
    return NIBBLE_COMMIT;
}

void nibble_build(char *out, size_t size) {
    snprintf(out, size,
             "nibble %s (commit %s)\n"
             "compiler: " COMPILER " %s\n"
             "levels:   %s\n"
             "libzip:   %s\n"
             "cJSON:    %s\n"
             "BLAS:     %s\n"
             "PCRE2:    %s\n"
             "utf8proc: %s\n"
             "sentencepiece: %s\n",
             NIBBLE_VERSION, NIBBLE_COMMIT, __VERSION__, NIBBLE_BUILT_LEVELS, npz_library(),
             config_library(), blas_version(), regex_library(), unicode_library(),
             NIBBLE_SENTENCEPIECE);
}

const char *nibble_blas_core(void) {
    return blas_better_core();
}

size_t nibble_utf8_sequence(const char *text, size_t size) {
    return utf8_sequence(text, size);
}
