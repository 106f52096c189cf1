#include "base/memory.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "base/cgroup.h"

/* The value in kB of a line "Name:   123 kB", in bytes; 0 if it is not there. */
static size_t field(const char *path, const char *name) {
    FILE *f = fopen(path, "r");
    if (!f) return 0;
    char line[256];
    size_t bytes = 0, length = strlen(name);
    while (!bytes && fgets(line, sizeof line, f)) {
        if (strncmp(line, name, length) == 0 && line[length] == ':') {
            bytes = (size_t)strtoull(line + length + 1, NULL, 10) * 1024;
        }
    }
    fclose(f);
    return bytes;
}

/* What a limit of this process leaves beside what it has of it; never 0, which says that nothing is
 * known. */
static size_t limit_left(__rlimit_resource_t resource, const char *name) {
    struct rlimit limit;
    if (getrlimit(resource, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) return SIZE_MAX;
    size_t has = field("/proc/self/status", name);
    return limit.rlim_cur > has ? (size_t)limit.rlim_cur - has : 1;
}

size_t memory_addresses(void) {
    return limit_left(RLIMIT_AS, "VmSize");
}

static size_t smaller(size_t a, size_t b) {
    return a < b ? a : b;
}

size_t memory_available(void) {
    size_t machine = field("/proc/meminfo", "MemAvailable"), group = cgroup_memory_left();
    size_t limits = smaller(memory_addresses(), limit_left(RLIMIT_DATA, "VmData"));
    return smaller(smaller(machine, group), limits);
}

size_t memory_private(void) {
    return field("/proc/self/status", "RssAnon");
}

size_t memory_peak(void) {
    return field("/proc/self/status", "VmHWM");
}
