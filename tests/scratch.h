/* A temporary folder for tests that need files: made by scratch_open, removed at exit. */
#ifndef NIBBLE_TESTS_SCRATCH_H
#define NIBBLE_TESTS_SCRATCH_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* nftw, asprintf */
#endif

#include <dirent.h>
#include <ftw.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char scratch_folder[512];

static inline int scratch_remove(const char *path, const struct stat *st, int kind, struct FTW *f) {
    (void)st, (void)kind, (void)f;
    return remove(path);
}

static inline void scratch_close(void) {
    nftw(scratch_folder, scratch_remove, 16, FTW_DEPTH | FTW_PHYS);
}

static inline void scratch_open(void) {
    const char *tmp = getenv("TMPDIR");
    snprintf(scratch_folder, sizeof scratch_folder, "%s/nibble-test-XXXXXX", tmp ? tmp : "/tmp");
    if (!mkdtemp(scratch_folder)) {
        perror(scratch_folder);
        exit(1);
    }
    atexit(scratch_close);
}

/* The path of name in the folder; good for the next 7 calls. */
static inline const char *scratch_path(const char *name) {
    static char paths[8][1024];
    static int next;
    char *path = paths[next++ % 8];
    snprintf(path, sizeof paths[0], "%s/%s", scratch_folder, name);
    return path;
}

static inline const char *scratch_write(const char *name, const void *data, size_t size) {
    const char *path = scratch_path(name);
    FILE *f = fopen(path, "wb");
    if (!f || fwrite(data, 1, size, f) != size || fclose(f) != 0) {
        perror(path);
        exit(1);
    }
    return path;
}

static inline const char *scratch_text(const char *name, const char *text) {
    return scratch_write(name, text, strlen(text));
}

/* A malloc'd text: n times the same between two others. */
static inline char *scratch_repeated(const char *before, const char *what, size_t n,
                                     const char *after) {
    size_t length = strlen(what), at = strlen(before);
    char *text = malloc(at + n * length + strlen(after) + 1);
    if (!text) exit(1);
    memcpy(text, before, at);
    for (size_t i = 0; i < n; i++, at += length) memcpy(text + at, what, length);
    memcpy(text + at, after, strlen(after) + 1);
    return text;
}

/* The whole file, malloc'd; NULL if there is none. */
static inline unsigned char *scratch_read(const char *name, size_t *size) {
    FILE *f = fopen(scratch_path(name), "rb");
    if (!f) return NULL;
    fseek(f, 0, SEEK_END);
    *size = (size_t)ftell(f);
    rewind(f);
    unsigned char *data = malloc(*size + 1);
    if (fread(data, 1, *size, f) != *size) exit(1);
    fclose(f);
    return data;
}

/* How many entries the folder has: shows that nothing was left behind. */
static inline int scratch_entries(const char *name) {
    int n = 0;
    DIR *dir = opendir(scratch_path(name));
    if (!dir) return -1;
    for (struct dirent *d; (d = readdir(dir)) != NULL;) {
        n += strcmp(d->d_name, ".") != 0 && strcmp(d->d_name, "..") != 0;
    }
    closedir(dir);
    return n;
}

/* Runs a Python script with numpy as np in the folder; true if it ran through. */
static inline bool scratch_python(const char *script) {
    char *text = NULL, *command = NULL;
    if (asprintf(&text, "import numpy as np, zipfile, struct\n%s\n", script) < 0) exit(1);
    scratch_text("script.py", text);
    if (asprintf(&command, "cd '%s' && /usr/bin/python3 script.py", scratch_folder) < 0) exit(1);
    fflush(stdout);
    int status = system(command); /* NOLINT(cert-env33-c): tests may start programs */
    free(text);
    free(command);
    return status == 0 && unlink(scratch_path("script.py")) == 0;
}

#endif
