#include <string.h>

#include "cli/completion.h"
#include "cli/output.h"

/* What stands around that which is made of the tables: as a file _nibble in zsh's fpath, and read
 * with source. */
static const char begin[] = "#compdef nibble\n"
                            "# zsh completion of nibble, printed by: nibble completion zsh\n"
                            "_nibble() {\n"
                            "  local -a commands\n"
                            "  commands=(\n";

static const char middle[] =
    "  )\n"
    "  if ((CURRENT == 2)); then\n"
    "    _describe -t commands command commands\n"
    "    _arguments '(- *)'{-h,--help}'[the commands]' '(- *)--version[what this is]'\n"
    "    return\n"
    "  fi\n"
    "  local command=$words[2]\n"
    "  shift words\n"
    "  ((CURRENT--))\n"
    "  case $command in\n";

static const char end[] =
    "  esac\n"
    "}\n"
    "if [[ $funcstack[1] == _nibble ]]; then _nibble \"$@\"; else compdef _nibble nibble; fi\n";

/* A text inside single quotes and, there, one of zsh's own specifications. */
static void print_text(const char *text) {
    for (; *text; text++) {
        if (*text == '\'')
            output_print("'\\''");
        else
            output_print("%s%c", strchr("\\:[]", *text) ? "\\" : "", *text);
    }
}

static void print_action(enum completion_kind kind, const char *words) {
    if (kind == COMPLETION_WORDS) {
        output_print("(");
        completion_print_words(words);
        output_print(")");
    }
    if (kind == COMPLETION_PATH) output_print("_files");
    if (kind == COMPLETION_FREE) output_print(" ");
}

/* All names of one option, which excludes itself unless it may be repeated:
 * '(-f --file)'{-f,--file=}' or '--file= */
static void print_names(const struct option *o, bool takes_value) {
    const char *names = o->names;
    bool several = strchr(names, ' '), repeats = o->kind == OPTION_LIST;
    char name[OPTIONS_NAME];
    if (repeats)
        output_print("'*");
    else
        output_print(several ? "'(%s)" : "'", names);
    if (several) output_print("'{");
    while (options_name(&names, name)) {
        bool equals = takes_value && strncmp(name, "--", 2) == 0;
        output_print("%s%s%s", name, equals ? "=" : "", *names ? "," : "");
    }
    if (several) output_print("}'");
}

/* '--file=[help]:FILE:_files' */
static void print_option(const struct option *o) {
    const char *words;
    enum completion_kind kind = completion_of_option(o, &words);
    char text[OPTIONS_TEXT];
    options_describe(o, text);
    output_print(" \\\n      ");
    print_names(o, kind != COMPLETION_NONE);
    output_print("[");
    print_text(text);
    output_print("]");
    if (kind != COMPLETION_NONE) {
        output_print(":");
        print_text(o->value);
        output_print(":");
        print_action(kind, words);
    }
    output_print("'");
}

static void print_command(const struct command *c) {
    const char *words;
    enum completion_kind kind = completion_of_command(c, &words);
    struct options_cursor at = {0};
    output_print("  %s)\n    _arguments -S", c->name);
    for (const struct option *o; (o = options_next(c, &at));) print_option(o);
    if (kind != COMPLETION_NONE) {
        output_print(" \\\n      '*:argument:");
        print_action(kind, words);
        output_print("'");
    }
    output_print(" ;;\n");
}

void completion_zsh(void) {
    output_print("%s", begin);
    for (const struct command *const *c = options_commands; *c; c++) {
        output_print("    '%s:", (*c)->name);
        print_text((*c)->summary);
        output_print("'\n");
    }
    output_print("%s", middle);
    for (const struct command *const *c = options_commands; *c; c++) print_command(*c);
    output_print("%s", end);
}
