/* nibble completion: what the scripts for the three shells have in common. Each is made of the
 * tables alone, so that a new command, option or choice is in it by itself. */
#ifndef NIBBLE_CLI_COMPLETION_H
#define NIBBLE_CLI_COMPLETION_H

#include <stdbool.h>

#include "cli/options.h"

/* What a shell can offer for the value of an option, or for the words of a command. */
enum completion_kind {
    COMPLETION_NONE, /* there is no value, or no word */
    COMPLETION_FREE, /* a number, a text: nothing */
    COMPLETION_PATH,
    COMPLETION_WORDS,
};

/* words: what they are, as options_name takes them apart; of COMPLETION_WORDS only. */
enum completion_kind completion_of_option(const struct option *o, const char **words);
enum completion_kind completion_of_command(const struct command *c, const char **words);

/* Prints words with spaces between them. */
void completion_print_words(const char *words);

/* The scripts. */
void completion_bash(void);
void completion_zsh(void);
void completion_fish(void);

#endif
