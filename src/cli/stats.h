/* The figures of a run, as lines on stderr and as JSON. */
#ifndef NIBBLE_CLI_STATS_H
#define NIBBLE_CLI_STATS_H

#include "cli/session.h"

struct cJSON;

double stats_rate(size_t count, uint64_t ns); /* per second; 0 if no time went by */

const char *stats_finish(nibble_finish finish); /* "stop", "length", ... */

void stats_print(const struct session *s, const nibble_generated *g, uint32_t seed);

/* The 16 digits of the model's hash (nibble_model_info); false if its files state no checksums. */
bool stats_hash(const struct session *s, char out[17]);

/* {"load_s", "prompt_s", ...} */
struct cJSON *stats_timings(const struct session *s, const nibble_generated *g);

/* {"nibble", "commit", "level", "threads", ...}: what produced a result. */
struct cJSON *stats_versions(const struct session *s);

#endif
