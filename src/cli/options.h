/* Option tables: a row parses, checks its range and prints its help. */
#ifndef NIBBLE_CLI_OPTIONS_H
#define NIBBLE_CLI_OPTIONS_H

#include <stddef.h>

#include "cli/args.h"

/* OPTION_LIST: text, may be given again; OPTION_NUMBERS: whole numbers with commas between them. */
enum option_kind {
    OPTION_FLAG,
    OPTION_TEXT,
    OPTION_WHOLE,
    OPTION_REAL,
    OPTION_LIST,
    OPTION_NUMBERS,
};

struct option {
    const char *names; /* "-n --n-predict --max-tokens": the shorter first, the one help shows last
                          or only */
    enum option_kind kind;
    size_t offset;     /* of the value in struct args */
    double low, high;  /* of numbers */
    double absent;     /* their default, of a list of numbers the only one */
    const char *value; /* what help calls the value: "N" */
    const char *help;
};

/* Groups that commands share, each ended by a row without names. */
extern const struct option options_prompt[], options_run[], options_sampling[],
    options_generation[], options_overflow[], options_output[], options_threads[];

/* A command: the text of its help and the groups it takes (NULL-terminated). */
struct command {
    const char *name, *usage, *summary;
    const char *notes; /* more lines of help, or NULL */
    int min_words, max_words;
    const struct option *const *groups;
    int (*run)(const struct args *a); /* the exit code */
};

#define COMMAND(id) extern const struct command command_##id;
#include "cli/commands.def"
#undef COMMAND

/* Parses what follows the command's name. On success the words are in a->words, which points into
 * argv. On failure the reason has been printed: exit with 2. */
bool options_parse(const struct command *c, int argc, char **argv, struct args *a);

void options_help(const struct command *c);

/* A whole decimal number in [low, high]; false if text is anything else. */
bool options_number(const char *text, double low, double high, bool whole, double *value);

#endif
