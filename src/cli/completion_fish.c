#include <string.h>

#include "cli/completion.h"
#include "cli/output.h"

static const char begin[] =
    "# fish completion of nibble, printed by: nibble completion fish\n"
    "function __nibble_command\n"
    "    set -l words (commandline -opc)\n"
    "    set -q words[2]; and test \"$words[2]\" = $argv[1]\n"
    "end\n"
    "function __nibble_begin\n"
    "    set -l words (commandline -opc)\n"
    "    not set -q words[2]\n"
    "end\n"
    "complete -c nibble -n __nibble_begin -f -s h -l help -d 'the commands'\n"
    "complete -c nibble -n __nibble_begin -f -l version -d 'what this is'\n";

static void print_summary(const char *text) {
    output_print(" -d '");
    for (; *text; text++) output_print("%s%c", strchr("'\\", *text) ? "\\" : "", *text);
    output_print("'\n");
}

/* -f: no paths; -F: these; -r: there is a value; -x: both of r and f. */
static void print_kind(enum completion_kind kind, const char *words) {
    if (kind == COMPLETION_PATH) output_print(" -r -F");
    if (kind == COMPLETION_FREE) output_print(" -x");
    if (kind == COMPLETION_NONE) output_print(" -f");
    if (kind == COMPLETION_WORDS) {
        output_print(" -x -a '");
        completion_print_words(words);
        output_print("'");
    }
}

static void print_option(const struct command *c, const struct option *o) {
    const char *words, *names = o->names;
    enum completion_kind kind = completion_of_option(o, &words);
    char name[OPTIONS_NAME], text[OPTIONS_TEXT];
    output_print("complete -c nibble -n '__nibble_command %s'", c->name);
    while (options_name(&names, name)) {
        bool is_long = strncmp(name, "--", 2) == 0;
        output_print(is_long ? " -l %s" : " -s %s", name + (is_long ? 2 : 1));
    }
    if (kind != COMPLETION_NONE) print_kind(kind, words);
    options_describe(o, text);
    print_summary(text);
}

static void print_command(const struct command *c) {
    const char *words;
    enum completion_kind kind = completion_of_command(c, &words);
    struct options_cursor at = {0};
    output_print("complete -c nibble -n __nibble_begin -f -a %s", c->name);
    print_summary(c->summary);
    if (kind != COMPLETION_PATH) {
        output_print("complete -c nibble -n '__nibble_command %s'", c->name);
        print_kind(kind, words);
        output_print("\n");
    }
    for (const struct option *o; (o = options_next(c, &at));) print_option(c, o);
}

void completion_fish(void) {
    output_print("%s", begin);
    for (const struct command *const *c = options_commands; *c; c++) print_command(*c);
}
