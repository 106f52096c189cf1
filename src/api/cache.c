/* include/nibble.h: the cache of a context in a file. */
#include "api/handles.h"
#include "version.h"

/* The weights are looked at once: of some files that means reading them. */
static const struct kv_file_identity *identify(nibble_context *c) {
    if (!*c->identity.fields[0])
        kv_file_identify(&c->identity, &c->run, NIBBLE_VERSION " " NIBBLE_COMMIT);
    return &c->identity;
}

bool nibble_save_cache(nibble_context *c, const char *path, size_t n, nibble_error *error) {
    struct error e = {0};
    return handles_report(kv_file_write(&c->run, n, identify(c), path, &e), &e, error);
}

bool nibble_load_cache(nibble_context *c, const char *path, const int *ids, size_t n, size_t *count,
                       nibble_error *error) {
    struct error e = {0};
    return handles_report(kv_file_read(&c->run, ids, n, identify(c), path, count, &e), &e, error);
}
