/* How a model's weights are stored, in words. */
#ifndef NIBBLE_CLI_WEIGHTS_H
#define NIBBLE_CLI_WEIGHTS_H

#include "nibble.h"

enum { WEIGHTS_TEXT = 64 };

/* That of most of a model's bytes: "affine 4 bits, group 64", "f16". */
void weights_summary(const nibble_model *m, char text[WEIGHTS_TEXT]);

#endif
