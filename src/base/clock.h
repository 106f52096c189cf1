#ifndef NIBBLE_BASE_CLOCK_H
#define NIBBLE_BASE_CLOCK_H

#include <stdint.h>

uint64_t clock_ns(void); /* monotonic time since an arbitrary start */

#endif
