#include "store/names.h"

#include <stdio.h>
#include <string.h>

bool names_end(const char *name, const char *ending) {
    size_t n = strlen(name), t = strlen(ending);
    return n >= t && strcmp(name + n - t, ending) == 0;
}

char *names_join(const char *folder, const char *name) {
    char *path = NULL;
    const char *slash = !*folder || names_end(folder, "/") ? "" : "/";
    return asprintf(&path, "%s%s%s", folder, slash, name) < 0 ? NULL : path;
}
