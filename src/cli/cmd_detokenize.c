#include <limits.h>
#include <stdlib.h>

#include "cli/fault.h"
#include "cli/message.h"
#include "cli/options.h"
#include "cli/output.h"

static int print_text(const nibble_tokenizer *t, const int *ids, size_t n) {
    nibble_error e;
    char *text;
    size_t size;
    if (!nibble_detokenize(t, ids, n, &text, &size, &e)) return message_error(&e);
    output_write(text, size);
    nibble_free(text);
    return EXIT_DONE;
}

static int read_ids(const struct args *a, int *ids) {
    for (int i = 1; i < a->word_count; i++) {
        double id;
        if (!options_number(a->words[i], 0, 1 << 30, true, &id)) {
            message("'%s' is not a token id", a->words[i]);
            return EXIT_USAGE;
        }
        ids[i - 1] = (int)id;
    }
    return EXIT_DONE;
}

static int run(const struct args *a) {
    nibble_error e;
    int *ids = malloc((size_t)a->word_count * sizeof *ids);
    if (!ids) {
        message("not enough memory for the ids");
        return EXIT_FAILED;
    }
    int code = read_ids(a, ids);
    fault_watch(a->words[0], NULL);
    nibble_tokenizer *t = code == EXIT_DONE ? nibble_tokenizer_open(a->words[0], &e) : NULL;
    if (code == EXIT_DONE)
        code = t ? print_text(t, ids, (size_t)a->word_count - 1) : message_error(&e);
    nibble_tokenizer_close(t);
    free(ids);
    return code;
}

static const struct option *const groups[] = {NULL};

const struct command command_detokenize = {
    .name = "detokenize",
    .usage = "MODEL [ID...]",
    .summary = "print the text of token ids, special tokens as their names, nothing added",
    .min_words = 1,
    .max_words = INT_MAX,
    .groups = groups,
    .run = run,
};
