#include "cli/completion.h"

#include <ctype.h>
#include <string.h>

#include "cli/output.h"

/* The levels that this build has and this machine runs: "scalar ...". */
static const char *levels(void) {
    static nibble_machine m;
    if (!*m.levels) nibble_machine_probe(&m);
    return m.levels;
}

static bool is_path(const char *value) {
    const char *dot = strchr(value, '.');
    return strncmp(value, "FILE", 4) == 0 || strncmp(value, "DIR", 3) == 0 ||
           (dot && isalpha((unsigned char)dot[1]));
}

enum completion_kind completion_of_option(const struct option *o, const char **words) {
    *words = NULL;
    if (o->kind == OPTION_FLAG) return COMPLETION_NONE;
    if (is_path(o->value)) return COMPLETION_PATH;
    if (strcmp(o->value, "LEVEL") == 0) *words = levels();
    if (strcmp(o->value, "TEMPLATE") == 0) *words = nibble_template_names();
    if (strchr(o->value, '|')) *words = o->value;
    return *words ? COMPLETION_WORDS : COMPLETION_FREE;
}

enum completion_kind completion_of_command(const struct command *c, const char **words) {
    *words = c->choices;
    if (*words) return COMPLETION_WORDS;
    return c->max_words ? COMPLETION_PATH : COMPLETION_NONE;
}

void completion_print_words(const char *words) {
    char word[OPTIONS_NAME];
    while (options_name(&words, word)) output_print("%s%s", word, *words ? " " : "");
}
