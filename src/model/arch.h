/* The families nibble runs: one row each, in arch.c, the only file that names one. */
#ifndef NIBBLE_MODEL_ARCH_H
#define NIBBLE_MODEL_ARCH_H

#include "model/config.h"
#include "model/spec.h"

struct arch {
    const char *model_type; /* as config.json says it */
    const char *title;      /* for people */
    struct spec spec;       /* what its config leaves unsaid; 0: nothing to say */

    /* Numbers that only its config has, or that follow from others in a way of its own, before
     * spec_settle; NULL: none. */
    bool (*settle)(struct spec *s, const struct config *c, struct error *e);
};

/* The row that c asks for. A file without model_type is one of Meta's params.json. An unknown
 * type is refused with the list of those that are known. */
bool arch_find(const struct arch **arch, const struct config *c, struct error *e);

/* The numbers of a model of that family. */
bool arch_read(const struct arch *arch, struct spec *s, const struct config *c, struct error *e);

#endif
