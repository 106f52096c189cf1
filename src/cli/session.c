#include "cli/session.h"

#include <libgen.h>
#include <stdlib.h>
#include <string.h>

#include "cli/fault.h"
#include "cli/message.h"
#include "cli/sandbox.h"

int session_open_model(struct session *s, const char *path) {
    nibble_error e;
    nibble_model_info info;
    uint64_t start = nibble_clock();
    fault_watch(path, NULL);
    *s = (struct session){.model = nibble_model_open(path, &e)};
    if (!s->model) return message_error(&e);
    fault_watch(path, s->model);
    s->tokenizer = nibble_model_tokenizer(s->model);
    s->load_ns = nibble_clock() - start;
    nibble_model_describe(s->model, &info);
    if (info.unmapped_arrays) {
        message("note: %zu arrays of %s are compressed and were inflated into %zu MB of memory; "
                "a file without compression is mapped instead",
                info.unmapped_arrays, path, (info.private_bytes + (1 << 20) - 1) >> 20);
    }
    return EXIT_DONE;
}

int session_open_context(struct session *s, const struct args *a, size_t tokens) {
    nibble_error e;
    nibble_context_options o = nibble_context_defaults();
    uint64_t start = nibble_clock();
    o.context = a->context ? (size_t)a->context : tokens;
    o.batch = (size_t)a->batch;
    o.threads = (int)a->threads;
    o.level = a->level;
    o.kv_type = a->kv_type;
    o.blas = a->blas;
    s->context = nibble_context_open(s->model, &o, &e);
    s->load_ns += nibble_clock() - start;
    return s->context ? EXIT_DONE : message_error(&e);
}

void session_confine(const struct args *a, const char *const *folders) {
    if (sandbox_by_default() && !a->no_sandbox) sandbox_enter(folders);
}

char *session_folder(const char *path) {
    char *target = realpath(path, NULL); /* of a link, as /dev/stdout is */
    if (!target) target = strdup(path);
    char *folder = target ? strdup(dirname(target)) : NULL;
    free(target);
    return folder;
}

void session_close(struct session *s) {
    nibble_context_close(s->context);
    fault_watch(NULL, NULL);
    nibble_model_close(s->model);
    *s = (struct session){0};
}
