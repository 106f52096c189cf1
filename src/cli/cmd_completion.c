#include "cli/completion.h"
#include "cli/message.h"

#define SHELLS "bash|zsh|fish" /* in the order of the scripts below */

static int run(const struct args *a) {
    void (*const scripts[])(void) = {completion_bash, completion_zsh, completion_fish};
    scripts[options_choice(SHELLS, a->words[0])]();
    return EXIT_DONE;
}

static const struct option *const groups[] = {NULL};

const struct command command_completion = {
    .name = "completion",
    .usage = SHELLS,
    .summary = "print the script with which a shell completes nibble's commands and options",
    .notes = "make install puts them where the shells look. For one session of bash or zsh\n"
             "(behind compinit):\n\n"
             "  source <(nibble completion bash)\n\n"
             "and of fish:\n\n"
             "  nibble completion fish | source",
    .min_words = 1,
    .max_words = 1,
    .choices = SHELLS,
    .groups = groups,
    .run = run,
};
