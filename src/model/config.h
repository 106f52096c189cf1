/* Reading numbers out of a model's JSON files with a reason for every refusal. */
#ifndef NIBBLE_MODEL_CONFIG_H
#define NIBBLE_MODEL_CONFIG_H

#include "base/error.h"
#include "base/span.h"

struct cJSON;

/* A JSON object; where names it in messages ("model/config.json"). */
struct config {
    struct cJSON *root;
    char where[512];
};

bool config_open(struct config *c, struct span text, const char *where, struct error *e);
void config_close(struct config *c);

/* The object of that name in c, or c itself if there is none; borrowed from c, not to be closed. */
struct config config_inner(const struct config *c, const char *name);

/* The value at a dotted path ("rope_scaling.factor", "layer_types.3"), the first of a
 * space-separated list of paths that is there and not null; NULL if none is. *name, if not NULL,
 * points to that path in names. */
const struct cJSON *config_find(const struct config *c, const char *names, const char **name);

/* The length of the first of names, for printing it with %.*s. */
int config_width(const char *names);

/* Each reads the first of names that is there; absent leaves *value alone. A value of another kind,
 * a fraction where an integer is meant, or one outside [low, high] is refused with its name. */
bool config_number(const struct config *c, const char *names, double low, double high, bool whole,
                   double *value, struct error *e);
bool config_flag(const struct config *c, const char *names, int *value, struct error *e);

/* A string out of a list of accepted words; *value becomes its index. Any other is refused with the
 * list. */
bool config_choice(const struct config *c, const char *names, const char *const *words, int *value,
                   struct error *e);

/* A string as it stands, borrowed from c; NULL if absent or no string. */
const char *config_text(const struct config *c, const char *names);

/* An integer or a list of integers (end tokens): at most cap are kept in ids; *count says how many.
 */
bool config_ids(const struct config *c, const char *names, int *ids, int cap, int *count,
                struct error *e);

const char *config_library(void); /* the version of cJSON */

#endif
