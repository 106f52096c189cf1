#include <stdio.h>
#include <stdlib.h>

#include "cli/fault.h"
#include "cli/input.h"
#include "cli/message.h"
#include "cli/options.h"
#include "cli/output.h"

/* A million ids shall not take as many writes. */
static void print_ids(const nibble_ids *ids) {
    char line[8192];
    size_t used = 0;
    for (size_t i = 0; i < ids->count; i++) {
        used +=
            (size_t)snprintf(line + used, sizeof line - used, "%s%d", i ? " " : "", ids->ids[i]);
        if (used < sizeof line - 16) continue;
        output_write(line, used);
        used = 0;
    }
    line[used++] = '\n';
    output_write(line, used);
}

static int tokenize(const struct args *a, const nibble_tokenizer *t) {
    struct input_text text = {0};
    nibble_ids ids = {0};
    int code = input_read(a, false, &text);
    if (code == EXIT_DONE) code = input_tokenize(a, t, &text, &ids);
    if (code == EXIT_DONE) print_ids(&ids);
    nibble_free(ids.ids);
    free(text.bytes);
    return code;
}

static int run(const struct args *a) {
    nibble_error e;
    fault_watch(a->words[0], NULL);
    nibble_tokenizer *t = nibble_tokenizer_open(a->words[0], &e);
    if (!t) return message_error(&e);
    int code = tokenize(a, t);
    nibble_tokenizer_close(t);
    return code;
}

static const struct option *const groups[] = {options_prompt, NULL};

const struct command command_tokenize = {
    .name = "tokenize",
    .usage = "MODEL [-p TEXT | -f FILE]",
    .summary = "print the token ids of a text on one line, BOS included as generate would",
    .notes = "MODEL needs only a tokenizer. The text is taken as it is, a final newline included.",
    .min_words = 1,
    .max_words = 1,
    .groups = groups,
    .run = run,
};
