/* What people have in place of a file with weights. */
#ifndef NIBBLE_STORE_FOREIGN_H
#define NIBBLE_STORE_FOREIGN_H

#include <stdbool.h>

#include "base/span.h"

/* For a file that its reader could not make sense of: what it is instead and what to do, as words
 * that follow its name in a message; NULL if it is nothing known. */
const char *foreign_words(struct span file);

bool foreign_begins(struct span file, const char *text);

#endif
