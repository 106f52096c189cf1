/* Limits that a control group (container) sets on this process; version 2, then version 1. */
#ifndef NIBBLE_BASE_CGROUP_H
#define NIBBLE_BASE_CGROUP_H

#include <stddef.h>

double cgroup_cpus(void); /* processors' worth of time, 0 when there is no quota */

/* Bytes below the limit, cached files not counted as used; SIZE_MAX when there is none. */
size_t cgroup_memory_left(void);

#endif
