/* A mapped file that is cut short while it is in use, or whose disk fails, is answered by the
 * system with SIGBUS. These make a sentence and exit code 1 of it. */
#ifndef NIBBLE_CLI_FAULT_H
#define NIBBLE_CLI_FAULT_H

#include "nibble.h"

/* From now on path is what is read: the files that m has mapped, or, where m is NULL, any that its
 * opening maps. path NULL: nothing. What is no fault of theirs ends the process as it always
 * does. */
void fault_watch(const char *path, const nibble_model *m);

#endif
