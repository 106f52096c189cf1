#include "base/cgroup.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The first line of a file in dir; false if there is none. */
static bool read_line(const char *dir, const char *name, char *line, size_t size) {
    char path[640];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "r");
    if (!f) return false;
    bool ok = fgets(line, (int)size, f) != NULL;
    fclose(f);
    return ok;
}

/* Whether a list like "cpu,cpuacct" has this word: "cpuset" is another one. */
static bool has_word(const char *list, const char *word) {
    for (;;) {
        size_t length = strcspn(list, ",");
        if (length == strlen(word) && memcmp(list, word, length) == 0) return true;
        if (!list[length]) return false;
        list += length + 1;
    }
}

/* The folder of this process's group for a controller ("" is version 2), cut to fit. */
static bool own_group(const char *controller, char *group, size_t size) {
    FILE *f = fopen("/proc/self/cgroup", "r");
    if (!f) return false;
    char line[512];
    bool found = false;
    while (!found && fgets(line, sizeof line, f)) {
        char *names = strchr(line, ':');
        char *path = names ? strchr(names + 1, ':') : NULL;
        if (!path) continue;
        *path++ = 0;
        names++;
        if (!has_word(names, controller)) continue;
        path[strcspn(path, "\n")] = 0;
        snprintf(group, size, "%s", path);
        found = true;
    }
    fclose(f);
    return found;
}

/* Calls see for the group's folder and each folder above it, up to the controller's root: a limit
 * anywhere on the way holds. Inside a container the group's path may not exist; the root does. */
static void walk_up(const char *root, const char *group, void (*see)(const char *, void *),
                    void *arg) {
    char dir[512];
    snprintf(dir, sizeof dir, "%s%s", root, group);
    size_t stop = strlen(root);
    for (;;) {
        see(dir, arg);
        char *slash = strrchr(dir, '/');
        if (strlen(dir) <= stop || !slash) return;
        *slash = 0;
    }
}

static void see_cpu_v2(const char *dir, void *least) {
    char line[128];
    double quota, period;
    if (!read_line(dir, "cpu.max", line, sizeof line)) return;
    if (sscanf(line, "%lf %lf", &quota, &period) != 2 || period <= 0) return; /* "max 100000" */
    double cpus = quota / period;
    if (*(double *)least == 0 || cpus < *(double *)least) *(double *)least = cpus;
}

static void see_cpu_v1(const char *dir, void *least) {
    char quota_line[64], period_line[64];
    if (!read_line(dir, "cpu.cfs_quota_us", quota_line, sizeof quota_line)) return;
    if (!read_line(dir, "cpu.cfs_period_us", period_line, sizeof period_line)) return;
    double quota = atof(quota_line), period = atof(period_line);
    if (quota <= 0 || period <= 0) return; /* -1: none */
    double cpus = quota / period;
    if (*(double *)least == 0 || cpus < *(double *)least) *(double *)least = cpus;
}

double cgroup_cpus(void) {
    char group[256] = "";
    double least = 0;
    if (own_group("", group, sizeof group)) walk_up("/sys/fs/cgroup", group, see_cpu_v2, &least);
    if (own_group("cpu", group, sizeof group))
        walk_up("/sys/fs/cgroup/cpu", group, see_cpu_v1, &least);
    return least;
}

/* Bytes of cached files, which count as used but are dropped when the room is needed: without
 * them a group that has read a large model once would seem full. kinds ends with NULL. */
static size_t cached(const char *dir, const char *const *kinds) {
    char path[640], line[128], kind[64];
    unsigned long long value;
    size_t bytes = 0;
    snprintf(path, sizeof path, "%s/memory.stat", dir);
    FILE *f = fopen(path, "r");
    if (!f) return 0;
    while (fgets(line, sizeof line, f)) {
        if (sscanf(line, "%63s %llu", kind, &value) != 2) continue;
        for (int i = 0; kinds[i]; i++) bytes += strcmp(kind, kinds[i]) == 0 ? value : 0;
    }
    fclose(f);
    return bytes;
}

static void see_memory(const char *dir, const char *limit_file, const char *usage_file,
                       const char *const *kinds, size_t *left) {
    char limit[64], usage[64];
    if (!read_line(dir, limit_file, limit, sizeof limit) || limit[0] == 'm') return; /* "max" */
    if (!read_line(dir, usage_file, usage, sizeof usage)) return;
    size_t most = strtoull(limit, NULL, 10), used = strtoull(usage, NULL, 10);
    size_t files = cached(dir, kinds);
    used = used > files ? used - files : 0;
    size_t here = most > used ? most - used : 0;
    if (here < *left) *left = here;
}

static void see_memory_v2(const char *dir, void *left) {
    static const char *const kinds[] = {"active_file", "inactive_file", NULL};
    see_memory(dir, "memory.max", "memory.current", kinds, left);
}

static void see_memory_v1(const char *dir, void *left) {
    static const char *const kinds[] = {"total_active_file", "total_inactive_file", NULL};
    see_memory(dir, "memory.limit_in_bytes", "memory.usage_in_bytes", kinds, left);
}

size_t cgroup_memory_left(void) {
    char group[256] = "";
    size_t left = SIZE_MAX;
    if (own_group("", group, sizeof group)) walk_up("/sys/fs/cgroup", group, see_memory_v2, &left);
    if (own_group("memory", group, sizeof group)) {
        walk_up("/sys/fs/cgroup/memory", group, see_memory_v1, &left);
    }
    return left;
}
