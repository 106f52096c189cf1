#include "store/foreign.h"

#include <string.h>

bool foreign_begins(struct span file, const char *text) {
    size_t n = strlen(text);
    return file.size >= n && memcmp(file.data, text, n) == 0;
}

const char *foreign_words(struct span file) {
    if (foreign_begins(file, "version https://git-lfs"))
        return "is a git-lfs pointer, not the file it stands for; fetch that with git lfs pull";
    if (foreign_begins(file, "<")) return "looks like a web page; download the file itself";
    if (foreign_begins(file, "GGUF"))
        return "is a GGUF file and no zip archive; convert it with scripts/convert.py";
    return NULL;
}
