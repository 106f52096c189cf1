/* What this CPU can do and how much of it this process may use. */
#ifndef NIBBLE_BASE_CPU_H
#define NIBBLE_BASE_CPU_H

#include <stdbool.h>
#include <stdint.h>

/* Instruction sets that a level may need; set only when the operating system saves their registers.
 */
enum cpu_feature {
    CPU_AVX2 = 1 << 0,
    CPU_FMA = 1 << 1,
    CPU_F16C = 1 << 2,
    CPU_AVXVNNI = 1 << 3,
    CPU_AVX512F = 1 << 4,
    CPU_AVX512BW = 1 << 5,
    CPU_AVX512DQ = 1 << 6,
    CPU_AVX512VL = 1 << 7,
    CPU_AVX512VNNI = 1 << 8,
    CPU_AVX512BF16 = 1 << 9,
};

struct cpu {
    char name[64];
    uint32_t features;   /* of enum cpu_feature */
    uint32_t amd_family; /* 0x19: Zen 3 and 4, 0x1a: Zen 5; 0: not AMD's */
    int logical;         /* processors in this process's affinity mask */
    int physical;        /* distinct cores among them */
    int quota;   /* processors that the cgroup's CPU quota allows, rounded down, at least 1; 0: no
                    quota */
    int threads; /* the default thread count: the least of physical and quota */
    char reason[96]; /* why, in words: "2 physical cores" */
};

void cpu_probe(struct cpu *cpu);

#endif
