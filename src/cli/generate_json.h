/* The results of `nibble generate` for programs: one object (--json), or a line an event (--jsonl).
 * docs/cli.md has the fields. */
#ifndef NIBBLE_CLI_GENERATE_JSON_H
#define NIBBLE_CLI_GENERATE_JSON_H

#include "cli/generate_job.h"

enum { GENERATE_JSON_LOGPROBS = 1000 }; /* the most of --logprobs */

/* What happens, in this order: the prompt is known to fit; text settles; a token, behind its text;
 * the end. Each prints its line if it has one. Memory that runs out is noted in the record. */
void generate_json_start(struct generate_job *j);
void generate_json_text(struct generate_job *j, const char *text, size_t size);
void generate_json_token(struct generate_job *j, const nibble_token *t);
void generate_json_end(struct generate_job *j, const nibble_generated *g);

void generate_json_free(struct generate_record *r);

#endif
