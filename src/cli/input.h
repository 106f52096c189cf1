/* What a command reads: the prompt text, token ids. */
#ifndef NIBBLE_CLI_INPUT_H
#define NIBBLE_CLI_INPUT_H

#include <stdbool.h>

#include "cli/args.h"

struct input_text {
    char *bytes; /* malloc'd, NUL-terminated besides */
    size_t size;
};

/* The text of -p, -f or stdin. Without any of them and with a terminal as stdin there is none.
 * drop_newline: one final newline of a file or of stdin is not part of it. Returns 0, or the exit
 * code after printing why. */
int input_read(const struct args *a, bool drop_newline, struct input_text *text);

/* Whether a text of JSON has a NUL, also as \u0000 in a string, which cJSON would let pass and end
 * the string early. */
bool input_json_nul(const char *text, size_t size);

/* Ids separated by spaces or commas. The same returns. */
int input_ids(const char *text, nibble_ids *ids);

/* The text as token ids, BOS and special tokens as the options say. The same returns. */
int input_tokenize(const struct args *a, const nibble_tokenizer *t, const struct input_text *text,
                   nibble_ids *ids);

/* Refuses a text of so many bytes if it is plain before it is tokenized that it does not fit the
 * context that the options ask for or, if they do not, the model's. The same returns. */
int input_check_size(const struct args *a, const nibble_model *m, size_t bytes);

/* A text to be measured: ids as given, or the text of -p, -f or stdin as it is, BOS as the options
 * say. fits: all of it has to fit the context. *lead is how many ids at the front are not of the
 * text, *bytes how long it is (0: known as ids alone). The same returns. */
int input_text_ids(const struct args *a, const nibble_model *m, bool fits, nibble_ids *ids,
                   size_t *lead, size_t *bytes);

#endif
