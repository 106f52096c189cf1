#include "base/memory.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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

size_t memory_available(void) {
    size_t machine = field("/proc/meminfo", "MemAvailable"), group = cgroup_memory_left();
    return machine < group ? machine : group;
}

size_t memory_private(void) {
    return field("/proc/self/status", "RssAnon");
}

size_t memory_peak(void) {
    return field("/proc/self/status", "VmHWM");
}
