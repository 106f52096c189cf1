#include <ctype.h>
#include <string.h>

#include "cli/message.h"
#include "cli/options.h"
#include "cli/output.h"

/* --- text that is in no table ----------------------------------------------------------------- */

static const char description[] =
    "nibble runs decoder-only language models on a CPU.\n"
    "MODEL is an .npz file, a folder as Hugging Face, MLX or nibble itself lays it out, or a\n"
    ".safetensors file.\n"
    "Results go to standard output and nothing else does; notes, progress, statistics and errors\n"
    "go to standard error.\n\n"
    "Options may stand before or after the words of a command.\n"
    "--name=value and --name value are the same, _ in a name counts as -, and -- ends the options.";

static const char exit_codes[] =
    "  0  done; also a context that is full, and a reader of standard output that has gone\n"
    "  1  the run failed: file, model, memory, a write error\n"
    "  2  wrong usage: an unknown option, a value out of range, a token id outside the vocabulary\n"
    "  3  the prompt does not fit the context\n"
    "  130, 143  ended by SIGINT, SIGTERM\n\n"
    "The first line of a failure on standard error begins with \"nibble: \" and is one\n"
    "sentence; a list may follow on indented lines.";

static const char environment[] =
    "nibble has no variables of its own, and reads these of others:\n\n"
    "  NO_COLOR  if set and not empty: no colours, but for --color always, and no bold prompt of\n"
    "    nibble chat\n"
    "  TERM  what the terminal of nibble chat can do; its prompt is not bold with dumb or "
    "without\n"
    "    TERM\n"
    "  HF_HUB_CACHE, HF_HOME, XDG_CACHE_HOME, HOME  where nibble list finds the Hugging Face\n"
    "    cache: the first that is set counts\n"
    "  OPENBLAS_CORETYPE, OPENBLAS_NUM_THREADS  with --blas: where OpenBLAS does not know the "
    "CPU,\n"
    "    nibble starts over, once, with the right kernels named in OPENBLAS_CORETYPE and, unless\n"
    "    it is set, with 1 in OPENBLAS_NUM_THREADS; not if OPENBLAS_CORETYPE is set already";

static const char files[] =
    "Read, as a model:\n\n"
    "  model.npz  weights, config, tokenizer and all else below in one file, as nibble quantize\n"
    "    writes it\n"
    "  *.npz, *.safetensors  the weights of a folder, in shards or not\n"
    "  config.json, params.json  its config\n"
    "  generation_config.json  its end tokens, and its sampling for --model-defaults\n"
    "  tokenizer.json, tokenizer.model  its tokenizer; tokenizer_config.json and\n"
    "    added_tokens.json have more of its tokens\n"
    "  chat_segments.json  its chat template, as scripts/convert.py takes it down from\n"
    "    chat_template.jinja, tokenizer_config.json or chat_template.json\n"
    "  reference.json  answers that nibble verify compares with\n\n"
    "Written, and only where an option or a word says so:\n\n"
    "  OUT.npz, OUT.npy  by nibble quantize and nibble logits\n"
    "  the FILE of --prompt-cache  the KV cache of a prompt, an .npz, by nibble generate, which\n"
    "    reads it too\n"
    "  the OUT.npz of --save-logits  predictions, by nibble perplexity, which reads them with "
    "--kl\n"
    "  files in the folder of --save-dir  conversations in JSON, by /save in nibble chat, which\n"
    "    reads them with /load; the folder is the starting one unless it is named\n"
    "  reference.json  by nibble verify --write-reference; of an .npz it is a member\n\n"
    "What is typed in nibble chat is kept in no other file, and there is no file of settings.";

static const char *const examples[][2] = {
    {"A continuation of a prompt, with statistics",
     "nibble generate model.npz -p 'Once upon a' --stats"},
    {"The likeliest continuation of a file, as JSON",
     "nibble generate model.npz -f prompt.txt --temp 0 --json"},
    {"A folder from Hugging Face with 4 bits a weight",
     "nibble quantize folder model.npz --bits 4"},
    {"How fast it is with one thread and with two", "nibble bench model.npz -t 1,2"},
    {"Whether its files are sound", "nibble verify model.npz"},
};

/* --- roff ------------------------------------------------------------------------------------- */

/* Text in which roff sees no request and no escape. */
static void print_text(const char *text, size_t size) {
    static const char *const escapes[] = {"\\\\e", "-\\-", "'\\(aq", "`\\(ga", "^\\(ha", "~\\(ti"};
    if (size && *text == '.') output_print("\\&");
    for (size_t i = 0; i < size; i++) {
        const char *out = NULL;
        for (size_t k = 0; k < sizeof escapes / sizeof *escapes; k++) {
            if (*escapes[k] == text[i]) out = escapes[k] + 1;
        }
        if (out)
            output_print("%s", out);
        else
            output_write(text + i, 1);
    }
}

static void print_line(const char *text, size_t size) {
    print_text(text, size);
    output_print("\n");
}

/* "term  meaning", or a line by itself. */
static void print_item(const char *line, size_t length) {
    const char *gap = memmem(line, length, "  ", 2);
    if (!gap) {
        output_print(".IP\n");
        print_line(line, length);
        return;
    }
    size_t term = (size_t)(gap - line), meaning = term + strspn(gap, " ");
    output_print(".TP\n");
    print_line(line, term);
    print_line(line + meaning, length - meaning);
}

/* A text as the notes of struct command are: paragraphs, and lists of "  term  meaning". */
static void print_paragraphs(const char *text) {
    bool apart = false; /* what comes begins a paragraph */
    while (*text) {
        size_t indent = strspn(text, " "), length = strcspn(text + indent, "\n");
        const char *line = text + indent;
        if (indent == 2) print_item(line, length);
        if (!indent && length && apart) output_print(".PP\n");
        if (length && indent != 2) print_line(line, length);
        apart = !length || indent;
        text = line + length + (line[length] == '\n');
    }
}

static void print_section(const char *title, const char *text) {
    output_print(".SH %s\n", title);
    print_paragraphs(text);
}

static void print_option(const struct option *o) {
    const char *names = o->names;
    char name[OPTIONS_NAME], text[OPTIONS_TEXT];
    output_print(".TP\n");
    while (options_name(&names, name)) {
        output_print("\\fB");
        print_text(name, strlen(name));
        output_print(*names ? "\\fR, " : "\\fR");
    }
    if (o->value) {
        output_print(" \\fI");
        print_text(o->value, strlen(o->value));
        output_print("\\fR");
    }
    output_print("\n");
    options_describe(o, text);
    print_line(text, strlen(text));
}

/* --- sections --------------------------------------------------------------------------------- */

static void print_usage(const struct command *c) {
    output_print("\\fBnibble %s\\fR ", c->name);
    print_text(c->usage, strlen(c->usage));
    output_print(c->usage[0] ? " [options]\n" : "[options]\n");
}

static bool has_group(const struct command *c, const struct option *group) {
    for (const struct option *const *own = c->groups; *own; own++) {
        if (*own == group) return true;
    }
    return false;
}

static int count_users(const struct option *group) {
    int n = 0;
    for (const struct command *const *c = options_commands; *c; c++) n += has_group(*c, group);
    return n;
}

static void print_group(const struct option *group) {
    for (const struct option *o = group; o->names; o++) print_option(o);
}

/* A command with the options that no other has. */
static void print_command(const struct command *c) {
    output_print(".SS %s\n", c->name);
    print_usage(c);
    output_print(".PP\n%c", toupper((unsigned char)*c->summary));
    print_text(c->summary + 1, strlen(c->summary + 1));
    output_print(".\n");
    if (c->notes) {
        output_print(".PP\n");
        print_paragraphs(c->notes);
    }
    for (const struct option *const *group = c->groups; *group; group++) {
        if (count_users(*group) == 1) print_group(*group);
    }
}

/* A group under the names of the commands that have it. */
static void print_shared(const struct option *group) {
    int left = count_users(group);
    output_print(".SS Of");
    for (const struct command *const *c = options_commands; *c; c++) {
        if (!has_group(*c, group)) continue;
        left--;
        output_print(" %s%s", (*c)->name, left > 1 ? "," : left ? " and" : "\n");
    }
    print_group(group);
}

static bool is_first_user(const struct command *c, const struct option *group) {
    const struct command *const *first = options_commands;
    while (!has_group(*first, group)) first++;
    return *first == c;
}

static void print_options(void) {
    output_print(".SH OPTIONS\n");
    for (const struct command *const *c = options_commands; *c; c++) {
        for (const struct option *const *group = (*c)->groups; *group; group++) {
            if (count_users(*group) > 1 && is_first_user(*c, *group)) print_shared(*group);
        }
    }
    output_print(".SS Of every command\n");
    print_group(options_common);
}

static void print_examples(void) {
    output_print(".SH EXAMPLES\n");
    for (size_t i = 0; i < sizeof examples / sizeof *examples; i++) {
        output_print("%s%s:\n.PP\n.RS 4\n", i ? ".PP\n" : "", examples[i][0]);
        print_line(examples[i][1], strlen(examples[i][1]));
        output_print(".RE\n");
    }
}

static int run(const struct args *a) {
    (void)a;
    output_print(".TH NIBBLE 1 \"\" \"nibble %s\" \"User Commands\"\n"
                 ".SH NAME\nnibble \\- run language models on a CPU\n.SH SYNOPSIS\n.nf\n",
                 nibble_version());
    for (const struct command *const *c = options_commands; *c; c++) print_usage(*c);
    output_print("\\fBnibble\\fR \\-\\-help | \\-\\-version\n.fi\n");
    print_section("DESCRIPTION", description);
    output_print(".SH COMMANDS\n");
    for (const struct command *const *c = options_commands; *c; c++) print_command(*c);
    print_options();
    print_section("EXIT STATUS", exit_codes);
    print_section("ENVIRONMENT", environment);
    print_section("FILES", files);
    print_examples();
    return EXIT_DONE;
}

static const struct option *const groups[] = {NULL};

const struct command command_man = {
    .name = "man",
    .usage = "",
    .summary = "print nibble's manual page",
    .notes = "To read it: nibble man | man -l -",
    .groups = groups,
    .run = run,
};
