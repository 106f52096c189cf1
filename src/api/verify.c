/* include/nibble.h: checking a model's files. */
#include "model/verify.h"

#include <stdlib.h>
#include <string.h>

#include "api/handles.h"
#include "model/reference.h"
#include "store/append.h"

bool nibble_check_files(const char *path, nibble_progress *progress, void *arg,
                        nibble_checksums *out, nibble_error *error) {
    struct error e = {0};
    struct store store;
    struct store_checked checked;
    if (!store_open(&store, path, &e)) return handles_report(false, &e, error);
    bool ok = store_check(&store, progress, arg, &checked, &e);
    store_close(&store);
    *out = (nibble_checksums){checked.members, checked.bytes};
    return handles_report(ok, &e, error);
}

bool nibble_check_numbers(const nibble_model *m, int threads, nibble_progress *progress, void *arg,
                          nibble_error *error) {
    struct error e = {0};
    bool ok = verify_numbers(&m->model, handles_threads(threads), progress, arg, &e);
    return handles_report(ok, &e, error);
}

bool nibble_reference(const nibble_model *m, int threads, const char *level, char **json,
                      nibble_error *error) {
    struct error e = {0};
    struct reference r;
    bool ok = reference_compute(&r, &m->model, handles_threads(threads), level, &e);
    *json = ok ? reference_write(&r) : NULL;
    if (ok && !*json) ok = fail(&e, STATUS_MEMORY, "not enough memory for the reference");
    return handles_report(ok, &e, error);
}

bool nibble_store_reference(const char *path, const char *json, nibble_error *error) {
    struct error e = {0};
    struct span bytes = {(const unsigned char *)json, strlen(json)};
    return handles_report(append_file(path, "reference.json", bytes, &e), &e, error);
}

bool nibble_check_reference(const nibble_model *m, int threads, const char *level,
                            nibble_reference_check *out, nibble_error *error) {
    struct error e = {0};
    struct reference r;
    *out = (nibble_reference_check){0};
    bool ok = reference_read(&r, &m->model, &e);
    if (ok && r.count) {
        ok = reference_check(&r, &m->model, handles_threads(threads), level, &out->difference, &e);
        out->bound = reference_bound(&r, &m->model);
        out->tokens = (size_t)r.count;
    }
    return handles_report(ok, &e, error);
}
