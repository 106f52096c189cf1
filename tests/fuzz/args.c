/* The command line: the words of every command, its options and their values. */
#include <math.h>

#include "cli/input.h"
#include "cli/options.h"
#include "mutate.h"

static const struct command *const commands[] = {
#define COMMAND(id) &command_##id,
#include "cli/commands.def"
#undef COMMAND
};
enum { COMMANDS = sizeof commands / sizeof *commands, WORDS = 100 };

static void check_number(const struct option *o, const struct args *a) {
    const void *at = (const char *)a + o->offset;
    if (o->kind != OPTION_WHOLE && o->kind != OPTION_REAL) return;
    double v = o->kind == OPTION_WHOLE ? (double)*(const long long *)at : *(const double *)at;
    if (v != o->absent && !(v >= o->low && v <= o->high)) abort();
}

static void check_numbers(const struct command *c, const struct args *a) {
    for (const struct option *const *group = c->groups; *group; group++) {
        for (const struct option *o = *group; o->names; o++) check_number(o, a);
    }
}

static void parse(const struct command *c, int count, char **words) {
    struct args a;
    char *copy[WORDS + 1];
    memcpy(copy, words, sizeof copy);
    if (!options_parse(c, count, copy, &a)) return;
    check_numbers(c, &a);
    nibble_ids ids = {0};
    if (a.ids && input_ids(a.ids, &ids) == 0 && ids.count) fuzz_seen ^= (unsigned char)*ids.ids;
    nibble_free(ids.ids);
}

/* Words of the input end with a NUL. Complaints go nowhere: stderr's own descriptor stays, for
 * whoever drives this. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    char *text = malloc(size + 1), *words[WORDS + 1] = {0};
    static FILE *nowhere;
    if (!nowhere) stderr = nowhere = fopen("/dev/null", "w");
    memcpy(text, data, size);
    text[size] = 0;
    int count = 0;
    for (size_t i = 0; i < size && count < WORDS; i += strlen(text + i) + 1)
        words[count++] = text + i;
    for (int i = 0; i < COMMANDS; i++) parse(commands[i], count, words);
    free(text);
    return 0;
}

/* A word: the name of some option, or a value. */
static size_t random_word(char *word, size_t size) {
    static const char *const values[] = {"",      "0", "-1", "1e400", "nan", "inf",  "0x10",
                                         "1.5",   "-", "--", "1,2",   "1,,", "12=3", "model",
                                         "12 13", "=", " 1", "1 ",    "f16", "\xff"};
    const struct option *o = NULL;
    const struct command *c = commands[mutate_below(COMMANDS)];
    size_t groups = 0, rows = 0;
    if (mutate_below(2))
        return (size_t)snprintf(word, size, "%s",
                                values[mutate_below(sizeof values / sizeof *values)]);
    while (c->groups[groups]) groups++;
    o = c->groups[mutate_below(groups)];
    while (o && o[rows].names) rows++;
    const char *names = rows ? o[mutate_below(rows)].names : "--help";
    for (size_t skip = mutate_below(3); skip && strchr(names, ' '); skip--)
        names = strchr(names, ' ') + 1;
    return (size_t)snprintf(word, size, "%.*s%s", (int)strcspn(names, " "), names,
                            mutate_below(6) ? "" : "=7");
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t cap, unsigned seed) {
    char word[80];
    mutate_state = seed;
    if (mutate_below(3) == 0) return LLVMFuzzerMutate(data, size, cap);
    size_t at = mutate_below(size + 1), length = random_word(word, sizeof word);
    while (at && data[at - 1]) at--;
    return mutate_splice(data, size, cap, at, 0, word, length + 1);
}
