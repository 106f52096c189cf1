#include <stdlib.h>

#include "cli/message.h"
#include "cli/options.h"
#include "cli/session.h"

static const struct option options_logits[] = {{"--ids", OPTION_TEXT, offsetof(struct args, ids),
                                                .value = "\"ID...\"",
                                                .help = "the tokens, nothing added"},
                                               {"-o --out", OPTION_TEXT, offsetof(struct args, out),
                                                .value = "FILE", .help = "where the .npy goes"},
                                               {0}};

/* A batch at a time, so that it can be interrupted. */
static int evaluate(struct session *s, const nibble_ids *ids, size_t vocab, float *logits) {
    nibble_error e;
    nibble_context_info info;
    nibble_context_describe(s->context, &info);
    nibble_expect(s->context, ids->count);
    for (size_t done = 0; done < ids->count;) {
        size_t rest = ids->count - done, count = rest < info.batch ? rest : info.batch;
        if (message_interrupted()) return message_interrupted_exit();
        if (!nibble_eval(s->context, ids->ids + done, count, logits + done * vocab, true, &e))
            return message_error(&e);
        done += count;
    }
    return EXIT_DONE;
}

static int write_logits(struct session *s, const nibble_ids *ids, const char *path) {
    nibble_error e;
    nibble_model_info info;
    nibble_model_describe(s->model, &info);
    float *logits = calloc(ids->count, info.vocab * sizeof *logits);
    if (!logits) {
        message("not enough memory for logits of %zu tokens", ids->count);
        return EXIT_FAILED;
    }
    int code = evaluate(s, ids, info.vocab, logits);
    if (code == EXIT_DONE && !nibble_write_npy(path, logits, ids->count, info.vocab, &e))
        code = message_error(&e);
    free(logits);
    return code;
}

/* Whether the tokens fit is known before any work: a pass over all of them would find out late. */
static int check_fit(const struct session *s, const nibble_ids *ids) {
    nibble_context_info info;
    nibble_context_describe(s->context, &info);
    if (ids->count <= info.context) return EXIT_DONE;
    message("%zu tokens do not fit the context of %zu; raise --ctx-size or shorten them",
            ids->count, info.context);
    return EXIT_CONTEXT;
}

/* All but the folder of the array, which is written at the end. */
static int confine(const struct args *a) {
    char *folder = session_folder(a->out);
    if (!folder) {
        message("not enough memory for the name of a folder");
        return EXIT_FAILED;
    }
    session_confine(a, (const char *[]){folder, NULL});
    free(folder);
    return EXIT_DONE;
}

static int run(const struct args *a) {
    struct session s = {0};
    nibble_ids ids = {0};
    if (!a->ids || !a->out) {
        message("nibble logits needs --ids and -o; see nibble logits --help");
        return EXIT_USAGE;
    }
    message_catch_signals();
    int code = input_ids(a->ids, &ids);
    if (code == EXIT_DONE && !ids.count) {
        message("--ids is empty; give at least one token id");
        code = EXIT_USAGE;
    }
    if (code == EXIT_DONE) code = session_open_model(&s, a->words[0]);
    if (code == EXIT_DONE) code = confine(a);
    if (code == EXIT_DONE) code = session_open_context(&s, a, 0);
    if (code == EXIT_DONE) code = check_fit(&s, &ids);
    if (code == EXIT_DONE) code = write_logits(&s, &ids, a->out);
    session_close(&s);
    nibble_free(ids.ids);
    return code;
}

static const struct option *const groups[] = {options_logits, options_run, options_threads, NULL};

const struct command command_logits = {
    .name = "logits",
    .usage = "MODEL --ids \"ID...\" -o OUT.npy",
    .summary = "write the logits of every position as a float32 array [n, vocab]",
    .min_words = 1,
    .max_words = 1,
    .groups = groups,
    .run = run,
};
