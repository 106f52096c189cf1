#include "cli/options.h"

#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/message.h"
#include "cli/output.h"

#define AT(member) offsetof(struct args, member)
#define END                                                                                        \
    { 0 }

const struct option options_prompt[] = {
    {"-p --prompt", OPTION_TEXT, AT(prompt), .value = "TEXT", .help = "the prompt"},
    {"-f --file", OPTION_TEXT, AT(file), .value = "FILE",
     .help = "read it from a file, - for stdin"},
    {"-e --escape", OPTION_FLAG, AT(escapes),
     .help = "\\n, \\r, \\t, \\\\, \\\", \\' and \\xHH in -p mean what they do in C"},
    {"--special", OPTION_FLAG, AT(special),
     .help = "special tokens written in the text become their ids"},
    {"--bos", OPTION_FLAG, AT(bos), .help = "begin with BOS whatever the tokenizer says"},
    {"--no-bos", OPTION_FLAG, AT(no_bos), .help = "do not begin with BOS"},
    END};

const struct option options_threads[] = {{"-t --threads", OPTION_WHOLE, AT(threads), 1, 256, 0, "N",
                                          "threads (default: usable physical cores)"},
                                         END};

const struct option options_run[] = {
    {"-c --ctx-size", OPTION_WHOLE, AT(context), 0, 1 << 26, 0, "N",
     "context in tokens; 0: the model's, at most what leaves 1 GB free"},
    {"-b --batch-size", OPTION_WHOLE, AT(batch), 0, 1 << 20, 0, "N",
     "prompt tokens of one forward pass; 0: 512, or what 48 MB hold"},
    {"--level", OPTION_TEXT, AT(level), .value = "LEVEL",
     .help = "SIMD level at most; nibble info lists them (default: the best)"},
    {"--kv-type", OPTION_TEXT, AT(kv_type), .value = "f16|f32|q8",
     .help = "KV cache (default: f16)"},
    {"--blas", OPTION_FLAG, AT(blas),
     .help = "long prompts of f32, f16, bf16 weights through OpenBLAS"},
    {"--no-sandbox", OPTION_FLAG, AT(no_sandbox),
     .help = "keep the right to write files, open sockets, start programs"},
    END};

const struct option options_sampling[] = {
    {"--temp --temperature", OPTION_REAL, AT(temp), 0, 1e6, 0.8, "X", "temperature; 0: greedy"},
    {"--top-k", OPTION_WHOLE, AT(top_k), 0, 1e9, 40, "N", "sample from the N likeliest; 0: off"},
    {"--top-p", OPTION_REAL, AT(top_p), 0, 1, 0.95, "X",
     "from the likeliest that make up X, before temperature; 1: off"},
    {"--min-p", OPTION_REAL, AT(min_p), 0, 1, 0.05, "X",
     "from those at least X times as likely as the best; 0: off"},
    {"--typical", OPTION_REAL, AT(typical), 0, 1, 1, "X", "locally typical sampling; 1: off"},
    {"--repeat-penalty", OPTION_REAL, AT(repeat_penalty), 1e-6, 1e6, 1, "X",
     "penalty on recent tokens; 1: off"},
    {"--repeat-last-n", OPTION_WHOLE, AT(repeat_last_n), -1, 1e9, 64, "N",
     "how many tokens are recent; 0: off, -1: all"},
    {"--presence-penalty", OPTION_REAL, AT(presence_penalty), -1e6, 1e6, 0, "X",
     "off a recent token's logit, once"},
    {"--frequency-penalty", OPTION_REAL, AT(frequency_penalty), -1e6, 1e6, 0, "X",
     "and for each time it is there"},
    {"--logit-bias", OPTION_LIST, AT(logit_bias), .value = "ID=X",
     .help = "added to a token's logit; repeatable"},
    {"--model-defaults", OPTION_FLAG, AT(model_defaults),
     .help = "what the model's generation_config.json says of these, but for options given"},
    {"-s --seed", OPTION_WHOLE, AT(seed), -1, 4294967295.0, -1, "N",
     "seed of the sampling; -1: random"},
    END};

const struct option options_generation[] = {
    {"-n --n-predict --max-tokens", OPTION_WHOLE, AT(n_predict), -1, 1 << 30, 256, "N",
     "tokens to generate; -1: until the end or a full context"},
    {"--stop", OPTION_LIST, AT(stops), .value = "TEXT",
     .help = "stop before this text; repeatable"},
    {"--ignore-eos", OPTION_FLAG, AT(ignore_eos), .help = "end tokens do not stop the run"},
    {"--ids", OPTION_TEXT, AT(ids), .value = "\"ID...\"",
     .help = "the prompt as token ids, nothing added"},
    {"--echo", OPTION_FLAG, AT(echo), .help = "print the prompt too"},
    END};

const struct option options_overflow[] = {
    {"--overflow", OPTION_TEXT, AT(overflow), .value = "stop|slide",
     .help = "what a full context does (default: stop); slide drops old tokens"},
    {"--keep", OPTION_WHOLE, AT(keep), -1, 1 << 26, 0, "N",
     "tokens of the prompt after BOS that never slide away; -1: all"},
    END};

const struct option options_measured[] = {
    {"--ids", OPTION_TEXT, AT(ids), .value = "\"ID...\"",
     .help = "the text as token ids, nothing added"},
    {"--json", OPTION_FLAG, AT(json), .help = "print one JSON object"},
    {"-q --quiet", OPTION_FLAG, AT(quiet), .help = "no progress"},
    END};

const struct option options_output[] = {
    {"--json", OPTION_FLAG, AT(json), .help = "print one JSON object"},
    {"--stats", OPTION_FLAG, AT(stats), .help = "statistics on stderr (default on a terminal)"},
    {"-q --quiet", OPTION_FLAG, AT(quiet), .help = "no statistics, no progress"},
    END};

const struct option options_common[] = {
    {"-h --help", OPTION_FLAG, AT(help), .help = "this text"},
    {"--version", OPTION_FLAG, AT(version), .help = "version, commit, compiler, libraries"},
    END};

/* --- the tables ------------------------------------------------------------------------------- */

const struct command *const options_commands[] = {
#define COMMAND(id) &command_##id,
#include "cli/commands.def"
#undef COMMAND
    NULL};

const struct option *options_next(const struct command *c, struct options_cursor *at) {
    for (;; at->group++, at->row = 0) {
        const struct option *group = c->groups[at->group];
        const struct option *o = (group ? group : options_common) + at->row;
        if (!o->names && group) continue;
        at->row += o->names != NULL;
        return o->names ? o : NULL;
    }
}

bool options_name(const char **names, char name[OPTIONS_NAME]) {
    size_t n = strcspn(*names, " |,");
    snprintf(name, OPTIONS_NAME, "%.*s", (int)n, *names);
    *names += n + strspn(*names + n, " |,");
    return n > 0;
}

static bool is_number(const struct option *o) {
    return o->kind == OPTION_WHOLE || o->kind == OPTION_REAL || o->kind == OPTION_NUMBERS;
}

void options_describe(const struct option *o, char text[OPTIONS_TEXT]) {
    int n = snprintf(text, OPTIONS_TEXT, "%s", o->help);
    if (is_number(o) && !strstr(o->help, "(default"))
        snprintf(text + n, OPTIONS_TEXT - (size_t)n, " (default %g)", o->absent);
}

/* --- finding and storing ---------------------------------------------------------------------- */

/* Whether word (of `length` characters) is one of names; underscores count as dashes. */
static bool is_named(const char *names, const char *word, size_t length) {
    while (*names) {
        size_t n = strcspn(names, " "), same = 0;
        if (n == length) {
            while (same < n && (names[same] == word[same] ||
                                (same >= 2 && names[same] == '-' && word[same] == '_')))
                same++;
            if (same == n) return true;
        }
        names += n + strspn(names + n, " ");
    }
    return false;
}

static const struct option *find(const struct command *c, const char *word, size_t length) {
    struct options_cursor at = {0};
    const struct option *o;
    do o = options_next(c, &at);
    while (o && !is_named(o->names, word, length));
    return o;
}

int options_choice(const char *choices, const char *word) {
    char choice[OPTIONS_NAME];
    for (int i = 0; options_name(&choices, choice); i++) {
        if (strcmp(choice, word) == 0) return i;
    }
    return -1;
}

/* Says what the choices are, unless there are none or the word is one of them. */
static bool check_choice(const char *what, const char *choices, const char *word) {
    char list[OPTIONS_TEXT] = "", choice[OPTIONS_NAME];
    size_t used = 0;
    if (!choices || !strchr(choices, '|') || options_choice(choices, word) >= 0) return true;
    while (options_name(&choices, choice) && used < sizeof list) {
        const char *before = !used ? "" : *choices ? ", " : " or ";
        used += (size_t)snprintf(list + used, sizeof list - used, "%s%s", before, choice);
    }
    message("%s: '%s' is not %s", what, word, list);
    return false;
}

/* "" would be the folder that one is in, or a file without a name. */
static bool check_file(const char *what, const char *value, const char *word) {
    bool names = value && (strcmp(value, "FILE") == 0 || strcmp(value, "DIR") == 0);
    if (*word || !names) return true;
    message("%s: '' names no %s", what, strcmp(value, "FILE") == 0 ? "file" : "folder");
    return false;
}

bool options_number(const char *text, double low, double high, bool whole, double *value) {
    char *end;
    if (isspace((unsigned char)*text)) return false;
    double v = strtod(text, &end);
    if (end == text || *end || !(v >= low && v <= high) || (whole && v != floor(v))) return false;
    *value = v;
    return true;
}

static bool store_number(const struct option *o, const char *name, const char *text,
                         struct args *a) {
    double v;
    bool whole = o->kind == OPTION_WHOLE;
    if (!options_number(text, o->low, o->high, whole, &v)) {
        message("%s: '%s' is not a %s from %.10g to %.10g", name, text,
                whole ? "whole number" : "number", o->low, o->high);
        return false;
    }
    if (whole)
        *(long long *)(void *)((char *)a + o->offset) = (long long)v;
    else
        *(double *)(void *)((char *)a + o->offset) = v;
    return true;
}

/* One number of a list, its first `length` characters. */
static bool list_number(const struct option *o, const char *text, size_t length, long long *out) {
    char word[32];
    double v;
    if (length >= sizeof word) return false;
    memcpy(word, text, length);
    word[length] = 0;
    if (!options_number(word, o->low, o->high, true, &v)) return false;
    *out = (long long)v;
    return true;
}

static bool store_numbers(const struct option *o, const char *name, const char *text,
                          struct args *a) {
    struct args_numbers *list = (void *)((char *)a + o->offset);
    list->count = 0;
    for (const char *p = text;; p++) {
        size_t length = strcspn(p, ",");
        if (list->count == ARGS_MAX_NUMBERS) {
            message("%s: '%s' holds more than %d numbers", name, text, ARGS_MAX_NUMBERS);
            return false;
        }
        if (!list_number(o, p, length, &list->items[list->count])) {
            message("%s: '%s' is not a list of whole numbers from %.10g to %.10g with commas "
                    "between them",
                    name, text, o->low, o->high);
            return false;
        }
        list->count++;
        p += length;
        if (!*p) return true;
    }
}

bool options_given(const struct args *a, size_t offset) {
    for (int i = 0; i < a->given_count; i++) {
        if (a->given[i] == offset) return true;
    }
    return false;
}

static void mark_given(const struct option *o, struct args *a) {
    bool known = options_given(a, o->offset);
    if (!known && a->given_count < ARGS_MAX_GIVEN) a->given[a->given_count++] = o->offset;
}

static bool store(const struct option *o, const char *name, const char *text, struct args *a) {
    void *at = (char *)a + o->offset;
    struct args_list *list = at;
    mark_given(o, a);
    switch (o->kind) {
    case OPTION_FLAG: *(bool *)at = true; return true;
    case OPTION_TEXT:
        *(const char **)at = text;
        return check_choice(name, o->value, text) && check_file(name, o->value, text);
    case OPTION_LIST:
        if (list->count == ARGS_MAX_REPEATS) {
            message("%s is given more than %d times", name, ARGS_MAX_REPEATS);
            return false;
        }
        list->items[list->count++] = text;
        return true;
    case OPTION_NUMBERS: return store_numbers(o, name, text, a);
    default: return check_choice(name, o->value, text) && store_number(o, name, text, a);
    }
}

static void set_defaults(const struct command *c, struct args *a) {
    struct options_cursor cursor = {0};
    for (const struct option *o; (o = options_next(c, &cursor));) {
        void *at = (char *)a + o->offset;
        if (o->kind == OPTION_WHOLE) *(long long *)at = (long long)o->absent;
        if (o->kind == OPTION_REAL) *(double *)at = o->absent;
        if (o->kind == OPTION_NUMBERS)
            *(struct args_numbers *)at = (struct args_numbers){{(long long)o->absent}, 1};
    }
}

/* --- parsing ---------------------------------------------------------------------------------- */

/* One option at argv[0], its value perhaps at argv[1]; returns how many were used, 0 on failure. */
static int parse_option(const struct command *c, char **argv, struct args *a) {
    const char *word = argv[0], *equals = strncmp(word, "--", 2) == 0 ? strchr(word, '=') : NULL;
    size_t length = equals ? (size_t)(equals - word) : strlen(word);
    const struct option *o = find(c, word, length);
    if (!o) {
        message("unknown option '%.*s'; see nibble %s --help", (int)length, word, c->name);
        return 0;
    }
    char name[64];
    snprintf(name, sizeof name, "%.*s", (int)length, word);
    if (o->kind == OPTION_FLAG && equals) {
        message("%s takes no value", name);
        return 0;
    }
    if (o->kind == OPTION_FLAG || equals) return store(o, name, equals ? equals + 1 : NULL, a);
    if (!argv[1]) {
        message("%s needs a value: %s", name, o->value);
        return 0;
    }
    return store(o, name, argv[1], a) ? 2 : 0;
}

static bool check_words(const struct command *c, const struct args *a) {
    if (a->word_count < c->min_words || a->word_count > c->max_words) {
        message("nibble %s %s: %s; see nibble %s --help", c->name, c->usage,
                a->word_count < c->min_words ? "something is missing" : "too much is given",
                c->name);
        return false;
    }
    for (int i = 0; i < a->word_count; i++) {
        if (!check_choice(c->name, c->choices, a->words[i])) return false;
    }
    return true;
}

bool options_parse(const struct command *c, int argc, char **argv, struct args *a) {
    *a = (struct args){.words = (const char **)argv};
    set_defaults(c, a);
    bool only_words = false;
    for (int i = 0; i < argc;) {
        bool is_option = !only_words && argv[i][0] == '-' && argv[i][1];
        if (!is_option) {
            a->words[a->word_count++] = argv[i++]; /* moves words to the front of argv */
        } else if (strcmp(argv[i], "--") == 0) {
            only_words = true;
            i++;
        } else {
            int used = parse_option(c, argv + i, a);
            if (!used) return false;
            i += used;
        }
    }
    return a->help || a->version || check_words(c, a);
}

bool options_set(const struct command *c, const char *name, const char *shown, const char *value,
                 struct args *a) {
    return store(find(c, name, strlen(name)), shown, value, a);
}

/* --- help ------------------------------------------------------------------------------------- */

static void print_option(const struct option *o) {
    enum { COLUMN = 34 };
    char left[OPTIONS_TEXT] = "", text[OPTIONS_TEXT];
    for (const char *p = o->names; *p; p++) {
        size_t used = strlen(left);
        snprintf(left + used, sizeof left - used, *p == ' ' ? ", " : "%c", *p);
    }
    size_t used = strlen(left);
    if (o->value) snprintf(left + used, sizeof left - used, " %s", o->value);
    options_describe(o, text);
    output_print("  %-*s ", COLUMN, left);
    if (strlen(left) > COLUMN) output_print("\n  %-*s ", COLUMN, "");
    output_print("%s\n", text);
}

void options_help(const struct command *c) {
    const char *space = *c->usage ? " " : "";
    output_print("usage: nibble %s %s%s[options]\n\n  %s\n", c->name, c->usage, space, c->summary);
    if (c->notes) output_print("\n%s\n", c->notes);
    output_print("\noptions:\n");
    struct options_cursor at = {0};
    for (const struct option *o; (o = options_next(c, &at));) print_option(o);
}
