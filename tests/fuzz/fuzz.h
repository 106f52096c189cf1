/* What the fuzz targets share. A target is a .c file of this folder with a function
 * LLVMFuzzerTestOneInput, which takes any bytes and must neither crash nor take long, and mostly a
 * mutator of its own that keeps their structure (mutate.h).
 *
 * Each becomes two programs: build/fuzz/fuzz/NAME, which libFuzzer drives (make fuzz), and, in
 * every build, tests/fuzz/NAME, which replay.c drives over the seeds in corpus/NAME (make test). */
#ifndef NIBBLE_TESTS_FUZZ_H
#define NIBBLE_TESTS_FUZZ_H

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/span.h"
#include "scratch.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Changes data in place, at most to cap bytes; returns the new size. libFuzzer's name for it. */
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t cap, unsigned seed);

/* Random changes, from whoever drives the target. */
size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t cap);

/* The input as a file in a temporary folder: its path. */
static inline const char *fuzz_file(const char *name, const uint8_t *data, size_t size) {
    if (!*scratch_folder) scratch_open();
    return scratch_write(name, data, size);
}

static volatile unsigned char fuzz_seen;

/* Reads memory, so that a sanitizer sees what may not be. */
static inline void fuzz_read(struct span bytes) {
    for (size_t i = 0; i < bytes.size; i += i + 1 < bytes.size ? 1 + bytes.size / 64 : 1)
        fuzz_seen ^= bytes.data[i];
    if (bytes.size) fuzz_seen ^= bytes.data[bytes.size - 1];
}

/* A failure must come with a status and a sentence that can be printed. */
static inline void fuzz_check(bool ok, const struct error *e) {
    if (ok) return;
    if (e->status == STATUS_OK || !*e->message) abort();
    for (const char *c = e->message; *c; c++) {
        if ((unsigned char)*c < ' ' && *c != '\n') abort();
    }
}

#endif
