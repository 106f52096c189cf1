/* `nibble generate --batch-file`: many prompts in one load, an object a line in, one a line out. */
#ifndef NIBBLE_CLI_GENERATE_BATCH_H
#define NIBBLE_CLI_GENERATE_BATCH_H

#include <stdio.h>

#include "cli/session.h"

/* Opens a->batch_file; stdin is not to be closed. Returns 0, or the exit code after printing why.
 */
int generate_batch_open(const struct args *a, FILE **f);

/* Runs each line in the open session and prints its result, or why it has none, before it reads the
 * next one, so that a program may talk with us. Returns the exit code: that of a failure if a line
 * failed. docs/cli.md has the keys. */
int generate_batch(const struct args *a, const struct session *s, FILE *f);

#endif
