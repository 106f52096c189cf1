#include "base/cpu.h"

#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/cgroup.h"

enum { MAX_CPUS = 1024 };

#ifdef __x86_64__
#include <cpuid.h>

/* The registers the operating system saves (XCR0): bits 1, 2 for AVX; 5, 6, 7 for AVX-512. */
static uint64_t saved_registers(void) {
    uint32_t low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (uint64_t)high << 32 | low;
}

static uint32_t probe_features(void) {
    uint32_t a, b, c, d, b7, c7, d7, a71;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_OSXSAVE)) return 0;
    uint64_t saved = saved_registers();
    bool avx = (saved & 0x06) == 0x06, avx512 = avx && (saved & 0xe0) == 0xe0;
    if (!avx || !__get_cpuid_count(7, 0, &a, &b7, &c7, &d7)) return 0;
    if (!__get_cpuid_count(7, 1, &a71, &b, &a, &d)) a71 = 0;

    uint32_t f = 0;
    if (c & bit_FMA) f |= CPU_FMA;
    if (c & bit_F16C) f |= CPU_F16C;
    if (b7 & bit_AVX2) f |= CPU_AVX2;
    if (a71 & 1u << 4) f |= CPU_AVXVNNI;
    if (!avx512) return f;
    if (b7 & bit_AVX512F) f |= CPU_AVX512F;
    if (b7 & bit_AVX512BW) f |= CPU_AVX512BW;
    if (b7 & bit_AVX512DQ) f |= CPU_AVX512DQ;
    if (b7 & bit_AVX512VL) f |= CPU_AVX512VL;
    if (c7 & bit_AVX512VNNI) f |= CPU_AVX512VNNI;
    if (a71 & 1u << 5) f |= CPU_AVX512BF16;
    return f;
}

/* The family is the sum of two fields (AMD's manual, volume 3, CPUID function 1). */
static uint32_t probe_amd_family(void) {
    uint32_t a, b, c, d, vendor[3]; /* in the order of the text: ebx, edx, ecx */
    if (!__get_cpuid(0, &a, &vendor[0], &vendor[2], &vendor[1])) return 0;
    if (memcmp(vendor, "AuthenticAMD", 12) != 0 || !__get_cpuid(1, &a, &b, &c, &d)) return 0;
    return (a >> 8 & 0xf) + (a >> 20 & 0xff);
}

static void probe_name(char *name, size_t size) {
    uint32_t brand[12] = {0};
    uint32_t *r = brand;
    for (uint32_t i = 0; i < 3; i++, r += 4) {
        if (!__get_cpuid(0x80000002 + i, r, r + 1, r + 2, r + 3)) return;
    }
    char text[sizeof brand + 1] = {0};
    memcpy(text, brand, sizeof brand);
    const char *start = text + strspn(text, " ");
    snprintf(name, size, "%s", start);
}
#else
static uint32_t probe_features(void) {
    return 0;
}

static uint32_t probe_amd_family(void) {
    return 0;
}

static void probe_name(char *name, size_t size) {
    snprintf(name, size, "unknown");
}
#endif

/* The lowest processor that shares a core with this one; itself if the system does not say. */
static int core_of(int cpu) {
    char path[96];
    snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%d/topology/thread_siblings_list", cpu);
    FILE *f = fopen(path, "r");
    int first = cpu;
    if (!f) return cpu;
    if (fscanf(f, "%d", &first) != 1) first = cpu;
    fclose(f);
    return first;
}

static void count_cores(struct cpu *cpu) {
    cpu_set_t allowed;
    bool seen[MAX_CPUS] = {0};
    CPU_ZERO(&allowed);
    if (sched_getaffinity(0, sizeof allowed, &allowed) != 0) CPU_SET(0, &allowed);
    for (int i = 0; i < MAX_CPUS && i < CPU_SETSIZE; i++) {
        if (!CPU_ISSET((size_t)i, &allowed)) continue;
        cpu->logical++;
        int core = core_of(i);
        if (core < 0 || core >= MAX_CPUS) core = i;
        cpu->physical += !seen[core];
        seen[core] = true;
    }
}

void cpu_probe(struct cpu *cpu) {
    *cpu = (struct cpu){.name = "unknown", .features = probe_features()};
    cpu->amd_family = probe_amd_family();
    probe_name(cpu->name, sizeof cpu->name);
    count_cores(cpu);
    double quota = cgroup_cpus();
    if (quota > 0) cpu->quota = quota < 1 ? 1 : (int)quota;
    cpu->threads = cpu->physical;
    snprintf(cpu->reason, sizeof cpu->reason, "%d physical core%s in the affinity mask",
             cpu->physical, cpu->physical == 1 ? "" : "s");
    if (cpu->quota && cpu->quota < cpu->threads) {
        cpu->threads = cpu->quota;
        snprintf(cpu->reason, sizeof cpu->reason, "a CPU quota of %.2f of %d physical cores", quota,
                 cpu->physical);
    }
}
