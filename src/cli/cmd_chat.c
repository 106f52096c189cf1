#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/chat.h"
#include "cli/message.h"
#include "cli/options.h"
#include "cli/output.h"

/* --- somebody types --------------------------------------------------------------------------- */

static bool wants_color(void) {
    const char *no = getenv("NO_COLOR"), *terminal = getenv("TERM");
    return !(no && *no) && terminal && strcmp(terminal, "dumb") != 0;
}

static void greet(const struct chat *c) {
    nibble_context_info info;
    if (c->args->quiet) return;
    nibble_context_describe(c->session.context, &info);
    fprintf(stderr,
            "%s, chat template %s, context of %zu tokens\n"
            "/help lists commands, Ctrl-D leaves\n\n",
            c->args->words[0], nibble_template_name(c->template), info.context);
}

/* A blank message is none. */
static bool is_blank(const struct buffer *text) {
    return !text->bytes || strspn(text->bytes, " \t\n") == text->size;
}

/* A message, or a command unless it stood between quotes. False: the user leaves, or nobody reads.
 */
static bool take(struct chat *c, const struct buffer *text, bool quoted) {
    if (text->failed) {
        message("not enough memory for the message");
        return false;
    }
    if (is_blank(text)) return true;
    size_t skipped = !quoted && strncmp(text->bytes, "//", 2) == 0;
    size_t answers = c->answers;
    bool stays = true;
    if (*text->bytes == '/' && !quoted && !skipped)
        stays = chat_command(c, text->bytes);
    else
        chat_answer(c, text->bytes + skipped, text->size - skipped);
    if (c->args->stats && c->answers > answers) chat_answer_stats(c);
    if (stays) fputc('\n', stderr);
    return stays && !output_failed();
}

static int talk(struct chat *c) {
    struct buffer text = {0};
    greet(c);
    bool stays = true;
    while (stays) {
        enum chat_line line = chat_line_read(&text);
        if (line == CHAT_LINE_MESSAGE || line == CHAT_LINE_QUOTED)
            stays = take(c, &text, line == CHAT_LINE_QUOTED);
        if (line == CHAT_LINE_END || line == CHAT_LINE_ENDED || message_terminated()) stays = false;
    }
    free(text.bytes);
    return message_terminated() ? message_interrupted_exit() : EXIT_DONE;
}

/* --- a script talks --------------------------------------------------------------------------- */

/* Every line is a message, whatever it begins with. */
static int answer_lines(struct chat *c) {
    char *line = NULL;
    size_t cap = 0;
    int code = EXIT_DONE;
    while (code == EXIT_DONE && !output_failed()) {
        ssize_t size = getline(&line, &cap, stdin);
        if (size < 0) break;
        if (line[size - 1] == '\n') size--;
        if (!size) continue;
        code = chat_answer(c, line, (size_t)size);
        if (message_interrupted()) code = message_interrupted_exit();
        if (code == EXIT_DONE && c->args->stats) chat_answer_stats(c);
    }
    if (message_interrupted()) code = message_interrupted_exit();
    if (code == EXIT_DONE && ferror(stdin)) {
        message("stdin cannot be read: %s", strerror(errno));
        code = EXIT_FAILED;
    }
    free(line);
    return code;
}

/* --- before ----------------------------------------------------------------------------------- */

/* A template that ends an answer with a token which is none here: no answer would end. */
static int refuse_template(const struct chat *c) {
    static const nibble_message turns[] = {
        {"user", "?", 1}, {"assistant", "!", 1}, {"user", "?", 1}};
    nibble_error e;
    char *text;
    size_t size;
    if (!nibble_chat_text(c->session.tokenizer, c->template, turns, 3, true, &text, &size, &e))
        return message_error(&e);
    const char *end = strrchr(text, '!') + 1;
    message("the tokenizer of %s has no token '%.*s', with which the chat template %s ends an "
            "answer; choose the one that the model was trained with",
            c->args->words[0], (int)strcspn(end, "\n"), end, nibble_template_name(c->template));
    nibble_free(text);
    return EXIT_FAILED;
}

static int open_template(struct chat *c) {
    nibble_error e;
    const char *model = c->args->words[0], *system = c->args->system;
    if (!c->session.tokenizer) {
        message("%s has no tokenizer, and so no conversation can be had with it", model);
        return EXIT_FAILED;
    }
    c->template = nibble_template_choose(c->session.model, c->args->template, &e);
    if (!c->template) return message_error(&e);
    if (nibble_chat_end(c->session.tokenizer, c->template) < 0) return refuse_template(c);
    if (!system) return EXIT_DONE;
    if (!nibble_template_has_system(c->template)) {
        message("--system: the chat template %s takes no system message; say it in the first "
                "message",
                nibble_template_name(c->template));
        return EXIT_USAGE;
    }
    return chat_talk_set_system(&c->talk, system, strlen(system)) ? EXIT_DONE : EXIT_FAILED;
}

static int open_folder(struct chat *c) {
    const char *path = c->args->save_dir;
    c->folder = open(path ? path : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (c->folder >= 0 || !path) return EXIT_DONE;
    message("--save-dir: %s cannot be opened: %s", path, strerror(errno));
    return EXIT_FAILED;
}

/* The folder of --save-dir stays open to /save, where somebody can type it. */
static void confine(const struct chat *c) {
    const char *folder = c->args->save_dir ? c->args->save_dir : ".";
    session_confine(c->args, (const char *[]){c->terminal ? folder : NULL, NULL});
}

static int run(const struct args *a) {
    struct chat c = {.args = a, .folder = -1};
    c.terminal = isatty(STDIN_FILENO) && isatty(STDOUT_FILENO);
    int code = generation_read(a, &c.generation);
    if (code == EXIT_DONE) code = open_folder(&c);
    if (c.terminal)
        message_catch_again();
    else
        message_catch_signals();
    if (code == EXIT_DONE) code = session_open_model(&c.session, a->words[0]);
    if (code == EXIT_DONE) code = open_template(&c);
    if (code == EXIT_DONE) code = generation_ask_model(a, &c.session, &c.generation, true);
    if (code == EXIT_DONE && c.terminal && !chat_line_open(wants_color())) code = EXIT_FAILED;
    if (code == EXIT_DONE) confine(&c);
    if (code == EXIT_DONE) code = session_open_context(&c.session, a, 0);
    if (code == EXIT_DONE) code = c.terminal ? talk(&c) : answer_lines(&c);
    chat_line_close();
    chat_talk_free(&c.talk);
    session_close(&c.session);
    if (c.folder >= 0) close(c.folder);
    return code;
}

static const struct option options_chat[] = {
    {"--system", OPTION_TEXT, offsetof(struct args, system), .value = "TEXT",
     .help = "the system message"},
    {"--template", OPTION_TEXT, offsetof(struct args, template), .value = "TEMPLATE",
     .help = "a built-in chat template (default: the model's own)"},
    {"--save-dir", OPTION_TEXT, offsetof(struct args, save_dir), .value = "DIR",
     .help = "where /save writes and /load reads (default: the starting folder)"},
    {"-n --n-predict --max-tokens", OPTION_WHOLE, offsetof(struct args, n_predict), -1, 1 << 30, -1,
     "N", "most tokens of an answer; -1: until its end or a full context"},
    {"--stop", OPTION_LIST, offsetof(struct args, stops), .value = "TEXT",
     .help = "end an answer before this text; repeatable"},
    {"--overflow", OPTION_TEXT, offsetof(struct args, overflow), .value = "stop|slide",
     .help = "what a full context does (default: stop); slide drops the oldest turns"},
    {"--stats", OPTION_FLAG, offsetof(struct args, stats), .help = "statistics after each answer"},
    {"-q --quiet", OPTION_FLAG, offsetof(struct args, quiet), .help = "no greeting, no progress"},
    {0}};

static const struct option *const groups[] = {options_chat, options_sampling, options_run,
                                              options_threads, NULL};

const struct command command_chat = {
    .name = "chat",
    .usage = "MODEL",
    .summary = "a conversation, with the model's own chat template",
    .notes =
        "On a terminal lines are edited, and /help lists commands. Else every line of stdin is "
        "a\nmessage, and the answers go to stdout.\n"
        "Exit codes: 0 done, 1 failed, 2 wrong usage, 3 a message does not fit, 130 "
        "interrupted.",
    .min_words = 1,
    .max_words = 1,
    .groups = groups,
    .run = run,
};
