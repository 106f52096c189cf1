/* Colours of `nibble generate`: the prompt, the answer, or each token by its probability.
 * docs/cli.md has the scale. */
#ifndef NIBBLE_CLI_GENERATE_COLOR_H
#define NIBBLE_CLI_GENERATE_COLOR_H

#include "cli/generate_job.h"

/* Checks --color; returns 0, or the exit code after printing why. */
int generate_color_check(const struct args *a);

/* Whether there are any: as --color says; by itself --show-probs asks for them on a terminal. */
bool generate_color_wanted(const struct args *a);

void generate_color_prompt(const char *text, size_t size);

/* What generate_job hears, in its order: settled text, then the token that it settled with. With
 * --show-probs text waits until all its tokens are known; generate_color_end prints the rest. */
void generate_color_text(struct generate_job *j, const char *text, size_t size);
void generate_color_token(struct generate_job *j, const nibble_token *t);
void generate_color_end(struct generate_job *j);

#endif
