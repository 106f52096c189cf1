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
    const char *value; /* what help calls the value: "N". "f16|f32|q8" is all that a text can be;
                          shells complete FILE, DIR and names of files (OUT.npy) as paths, LEVEL as
                          one of this machine, TEMPLATE as one that is built in */
    const char *help;
};

enum { OPTIONS_NAME = 32, OPTIONS_TEXT = 256 };

/* Groups that commands share, each ended by a row without names. */
extern const struct option options_prompt[], options_run[], options_sampling[],
    options_generation[], options_overflow[], options_measured[], options_output[],
    options_threads[];

/* A command: the text of its help and the groups it takes (NULL-terminated). */
struct command {
    const char *name, *usage, *summary;
    const char *notes; /* more lines of help, or NULL. A paragraph ends at an empty line; a line
                          "  term  meaning" is one of a list, and goes on in lines further in */
    int min_words, max_words;
    const char *choices; /* all that its words can be, "bash|zsh|fish"; NULL: anything, and shells
                            complete paths */
    const struct option *const *groups;
    int (*run)(const struct args *a); /* the exit code */
};

#define COMMAND(id) extern const struct command command_##id;
#include "cli/commands.def"
#undef COMMAND

/* All of them, in the order of help; then NULL. */
extern const struct command *const options_commands[];

/* What all commands have. */
extern const struct option options_common[];

/* Where one is among a command's options; begins as zeros. */
struct options_cursor {
    size_t group, row;
};

/* The options of a command one by one, those that all have at the end; then NULL. */
const struct option *options_next(const struct command *c, struct options_cursor *at);

/* The names of an option, choices, or words with commas between, one by one: moves *names on; false
 * behind the last. */
bool options_name(const char **names, char name[OPTIONS_NAME]);

/* Its help, with the default of a number. */
void options_describe(const struct option *o, char text[OPTIONS_TEXT]);

/* Parses what follows the command's name. On success the words are in a->words, which points into
 * argv. On failure the reason has been printed: exit with 2. */
bool options_parse(const struct command *c, int argc, char **argv, struct args *a);

/* Whether the option whose value lies at offset was given; its default may be the same. */
bool options_given(const struct args *a, size_t offset);

/* Sets one option of a command, which must have it, from elsewhere than the command line. value is
 * text; messages call the option `shown`. False after printing why not. */
bool options_set(const struct command *c, const char *name, const char *shown, const char *value,
                 struct args *a);

void options_help(const struct command *c);

/* Which of the choices a word is, from 0; -1 if none. */
int options_choice(const char *choices, const char *word);

/* A whole decimal number in [low, high]; false if text is anything else. */
bool options_number(const char *text, double low, double high, bool whole, double *value);

#endif
