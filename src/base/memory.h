/* What memory this process holds and what is left for it, in bytes; 0 where the system tells
 * nothing. */
#ifndef NIBBLE_BASE_MEMORY_H
#define NIBBLE_BASE_MEMORY_H

#include <stddef.h>

/* The least of: MemAvailable, what the cgroup leaves, what RLIMIT_AS and RLIMIT_DATA leave. */
size_t memory_available(void);
size_t memory_addresses(void); /* what RLIMIT_AS leaves; SIZE_MAX: there is no limit */
size_t memory_private(void);   /* anonymous pages resident now: ours alone, files not counted */
size_t memory_peak(void);      /* the most that was ever resident, pages of mapped files included */

#endif
