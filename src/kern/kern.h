/* Small typed loops: no threads, no memory, no failure. kern.def lists every one of them once;
 * declaration, table, check and bench come from that list.
 *
 * A level is one `struct kern` with holes, in files of its own (avx2.c, avx512.c; ref.c is
 * complete); kern_select overlays the levels that this CPU has, lowest first. Weights and cache
 * rows (const void *) may lie at any alignment; float arrays are aligned as floats are. n may be 0.
 */
#ifndef NIBBLE_KERN_KERN_H
#define NIBBLE_KERN_KERN_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "num/format.h"
#include "num/packed.h"

/* Bytes of scratch, 64-byte aligned, that a kernel may ask its caller for. */
enum { KERN_SCRATCH = 96 << 10 };

struct kern {
#define KERNEL(name, result, params) result(*name) params;
#include "kern/kern.def"
#undef KERNEL
};

enum kern_level {
#define LEVEL(id, features) KERN_LEVEL_##id,
#include "kern/levels.def"
#undef LEVEL
    KERN_LEVELS
};

/* Fills *kern with the best kernels up to and including the level named ceiling (NULL: the best).
 * A level that this build or this CPU lacks is refused with the list of those it has. Returns the
 * level's name through *chosen (static). */
bool kern_select(struct kern *kern, const char *ceiling, const char **chosen, struct error *e);

/* The same for a CPU that has these features (of enum cpu_feature) and no others. */
bool kern_select_for(uint32_t features, struct kern *kern, const char *ceiling, const char **chosen,
                     struct error *e);

const char *kern_level_name(enum kern_level level);
bool kern_level_built(enum kern_level level);     /* this binary has it */
bool kern_level_available(enum kern_level level); /* and this CPU can run it */

/* What each level adds, NULL where it adds nothing; kern_scalar is complete. For kern_select: a
 * level that is not built has no table to link. */
#define LEVEL(id, features) extern const struct kern kern_##id;
#include "kern/levels.def"
#undef LEVEL

#endif
