/* nibble list: where models lie. */
#ifndef NIBBLE_CLI_LIST_H
#define NIBBLE_CLI_LIST_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

/* What may be a model, by the names of its files. */
struct list_model {
    char *path;         /* as a command takes it */
    const char *format; /* "npz", "safetensors", "pytorch", "gguf" */
    size_t files, bytes;
};

struct list_folder {
    dev_t device;
    ino_t inode;
};

/* Begins as zeros. */
struct list_scan {
    struct list_model *models;
    size_t count;
    struct list_folder *seen; /* folders, so that links back and places named twice end */
    size_t seen_count;
    bool cut;       /* some place held more than is looked at */
    bool no_memory; /* what is there is not all */
};

/* Looks at what lies in a folder and in those below it, the near ones first, hidden ones left out:
 * five levels (that is how the Hugging Face cache is built) and 20,000 names at most. A folder that
 * holds weights by their usual names and a config is one model. path may also be a file. Only names
 * are read. False, with errno, if path itself cannot be opened. */
bool list_scan(struct list_scan *s, const char *path);

/* In the order of their paths. */
void list_scan_sort(struct list_scan *s);
void list_scan_free(struct list_scan *s);

#endif
