#include "cli/completion.h"
#include "cli/output.h"

/* What stands around that which is made of the tables. readline takes --name=value apart, so that
 * "=" is a word. "-o default" completes a path where the function offers nothing, unless free=yes
 * switches it off. */
static const char begin[] =
    "# bash completion of nibble, printed by: nibble completion bash\n"
    "_nibble() {\n"
    "    local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD - 1]}\n"
    "    local command=${COMP_WORDS[1]} words= free=yes\n"
    "    [[ $before == = ]] && before=${COMP_WORDS[COMP_CWORD - 2]}\n"
    "    [[ $word == = ]] && word=\n"
    "    ((COMP_CWORD == 1)) && command=\n"
    "    case $command in\n";

static const char end[] = "    esac\n"
                          "    COMPREPLY=()\n"
                          "    [[ $words ]] && COMPREPLY=($(compgen -W \"$words\" -- \"$word\"))\n"
                          "    [[ $free ]] && compopt +o default 2>/dev/null\n"
                          "    return 0\n"
                          "}\n"
                          "complete -o default -F _nibble nibble\n";

static void print_names(const struct option *o, const char *between) {
    const char *names = o->names;
    char name[OPTIONS_NAME];
    while (options_name(&names, name)) output_print("%s%s", name, *names ? between : "");
}

static void print_options(const struct command *c) {
    struct options_cursor at = {0};
    for (const struct option *o; (o = options_next(c, &at));) {
        print_names(o, " ");
        output_print(" ");
    }
}

/* Where no command stands yet. */
static void print_commands(void) {
    const struct command none = {.groups = (const struct option *const[]){NULL}};
    output_print("    '') words='");
    print_options(&none);
    for (const struct command *const *c = options_commands; *c; c++)
        output_print("%s ", (*c)->name);
    output_print("' ;;\n");
}

static void print_words(enum completion_kind kind, const char *words) {
    output_print("words='");
    if (kind == COMPLETION_WORDS) completion_print_words(words);
    output_print("' free=%s", kind == COMPLETION_PATH ? "" : "yes");
}

static void print_value(const struct option *o) {
    const char *words;
    enum completion_kind kind = completion_of_option(o, &words);
    if (kind == COMPLETION_NONE) return;
    output_print("        ");
    print_names(o, " | ");
    output_print(") ");
    print_words(kind, words);
    output_print(" ;;\n");
}

static void print_command(const struct command *c) {
    const char *words;
    enum completion_kind kind = completion_of_command(c, &words);
    struct options_cursor at = {0};
    output_print("    %s)\n        ", c->name);
    print_words(kind, words);
    output_print("\n        [[ $word == -* ]] && words='");
    print_options(c);
    output_print("' free=yes\n        case $before in\n");
    for (const struct option *o; (o = options_next(c, &at));) print_value(o);
    output_print("        esac\n        ;;\n");
}

void completion_bash(void) {
    output_print("%s", begin);
    print_commands();
    for (const struct command *const *c = options_commands; *c; c++) print_command(*c);
    output_print("%s", end);
}
