/* Names of files. */
#ifndef NIBBLE_STORE_NAMES_H
#define NIBBLE_STORE_NAMES_H

#include <stdbool.h>

bool names_end(const char *name, const char *ending);

/* folder/name in memory that the caller frees; NULL without any. An empty folder is none: name. */
char *names_join(const char *folder, const char *name);

#endif
