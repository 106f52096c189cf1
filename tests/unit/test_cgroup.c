/* The limits of control groups, read from a table of files instead of this machine's. */
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "check.h"

static FILE *open_file(const char *path, const char *mode);

/* The source itself, under other names, on our files. */
#define fopen open_file
#define cgroup_cpus cpus
#define cgroup_memory_left memory_left
#include "base/cgroup.c"
#undef fopen

struct file {
    const char *path, *text;
};

static const struct file *files; /* ends with a NULL path */

static FILE *open_file(const char *path, const char *mode) {
    for (const struct file *f = files; f->path; f++) {
        if (strcmp(f->path, path) == 0) return fmemopen((void *)f->text, strlen(f->text), mode);
    }
    return NULL;
}

static void check_cpus(int line, double want, const struct file *of) {
    files = of;
    CHECK_MSG(cpus() == want, "line %d: %g processors, %g wanted", line, cpus(), want);
}

static void check_memory(int line, size_t want, const struct file *of) {
    files = of;
    CHECK_MSG(memory_left() == want, "line %d: %zu bytes, %zu wanted", line, memory_left(), want);
}

#define CPUS(want, ...) check_cpus(__LINE__, want, (const struct file[]){__VA_ARGS__, {0}})
#define MEMORY(want, ...) check_memory(__LINE__, want, (const struct file[]){__VA_ARGS__, {0}})

#define V2(name) "/sys/fs/cgroup" name
#define CPU(name) "/sys/fs/cgroup/cpu" name
#define MEM(name) "/sys/fs/cgroup/memory" name
#define OWN(text)                                                                                  \
    { "/proc/self/cgroup", text }

static void test_cpus_v2(void) {
    CPUS(0, {"nothing", ""});
    CPUS(0, OWN("0::/\n"));
    CPUS(0, OWN("0::/\n"), {V2("/cpu.max"), "max 100000\n"});
    CPUS(1.5, OWN("0::/\n"), {V2("/cpu.max"), "150000 100000\n"});
    CPUS(2, OWN("0::/a/b\n"), {V2("/a/b/cpu.max"), "200000 100000\n"});
    CPUS(2, OWN("0::/a/b\n"), {V2("/a/b/cpu.max"), "400000 100000\n"},
         {V2("/a/cpu.max"), "100000 50000\n"}, {V2("/cpu.max"), "max 100000\n"});
    CPUS(2, OWN("0::/a/b\n"), {V2("/a/b/cpu.max"), "100000 50000\n"},
         {V2("/a/cpu.max"), "400000 100000\n"});
    CPUS(3, OWN("0::/not/in/this/container\n"), {V2("/cpu.max"), "300000 100000\n"});
    CPUS(0, OWN("0::/\n"), {V2("/cpu.max"), "100000 0\n"});
    CPUS(0, OWN("0::/\n"), {V2("/cpu.max"), ""});
    CPUS(0, OWN("no colons\n0:\n"), {V2("/cpu.max"), "100000 100000\n"});
}

static void test_cpus_v1(void) {
    CPUS(2.5, OWN("4:cpu,cpuacct:/x\n"), {CPU("/x/cpu.cfs_quota_us"), "250000\n"},
         {CPU("/x/cpu.cfs_period_us"), "100000\n"});
    CPUS(1, OWN("4:cpuacct,cpu:/x\n"), {CPU("/x/cpu.cfs_quota_us"), "-1\n"},
         {CPU("/x/cpu.cfs_period_us"), "100000\n"}, {CPU("/cpu.cfs_quota_us"), "100000\n"},
         {CPU("/cpu.cfs_period_us"), "100000\n"});
    CPUS(0, OWN("4:cpu,cpuacct:/x\n"), {CPU("/x/cpu.cfs_quota_us"), "250000\n"});
    /* another controller's name may begin like ours, and its group lie elsewhere */
    CPUS(2, OWN("9:cpuset:/y\n4:cpu,cpuacct:/x\n0::/\n"), {CPU("/x/cpu.cfs_quota_us"), "200000\n"},
         {CPU("/x/cpu.cfs_period_us"), "100000\n"}, {CPU("/y/cpu.cfs_quota_us"), "100000\n"},
         {CPU("/y/cpu.cfs_period_us"), "100000\n"});
    /* both versions at once: the smaller limit */
    CPUS(1, OWN("4:cpu:/\n0::/\n"), {CPU("/cpu.cfs_quota_us"), "200000\n"},
         {CPU("/cpu.cfs_period_us"), "100000\n"}, {V2("/cpu.max"), "100000 100000\n"});
}

static void test_memory(void) {
    MEMORY(SIZE_MAX, {"nothing", ""});
    MEMORY(SIZE_MAX, OWN("0::/\n"), {V2("/memory.max"), "max\n"}, {V2("/memory.current"), "5\n"});
    MEMORY(700, OWN("0::/\n"), {V2("/memory.max"), "1000\n"}, {V2("/memory.current"), "300\n"});
    MEMORY(0, OWN("0::/\n"), {V2("/memory.max"), "1000\n"}, {V2("/memory.current"), "1300\n"});
    MEMORY(SIZE_MAX, OWN("0::/\n"), {V2("/memory.max"), "1000\n"});
    MEMORY(200, OWN("0::/a\n"), {V2("/a/memory.max"), "1000\n"}, {V2("/a/memory.current"), "300\n"},
           {V2("/memory.max"), "2000\n"}, {V2("/memory.current"), "1800\n"});
    MEMORY(600, OWN("7:memory:/m\n"), {MEM("/m/memory.limit_in_bytes"), "1000\n"},
           {MEM("/m/memory.usage_in_bytes"), "400\n"});
}

/* Files that the group has read count as used, but give way. */
static void test_cached_files(void) {
    MEMORY(950, OWN("0::/\n"), {V2("/memory.max"), "1000\n"}, {V2("/memory.current"), "900\n"},
           {V2("/memory.stat"), "anon 50\nfile 850\ninactive_file 600\nactive_file 250\n"});
    MEMORY(1000, OWN("0::/\n"), {V2("/memory.max"), "1000\n"}, {V2("/memory.current"), "900\n"},
           {V2("/memory.stat"), "inactive_file 6000\n"});
    MEMORY(950, OWN("7:memory:/\n"), {MEM("/memory.limit_in_bytes"), "1000\n"},
           {MEM("/memory.usage_in_bytes"), "900\n"},
           {MEM("/memory.stat"), "inactive_file 1\ntotal_inactive_file 600\n"
                                 "total_active_file 250\n"});
}

int main(void) {
    check_run("cpus of version 2", test_cpus_v2);
    check_run("cpus of version 1", test_cpus_v1);
    check_run("memory", test_memory);
    check_run("cached files", test_cached_files);
    return check_done();
}
