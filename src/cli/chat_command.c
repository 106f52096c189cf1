#include <stdio.h>
#include <string.h>

#include "cli/chat.h"
#include "cli/message.h"

struct row {
    const char *name, *takes, *help;
    void (*run)(struct chat *c, const char *rest);
};

static bool is_answered(const struct chat *c) {
    if (c->talk.count > chat_talk_first(&c->talk)) return true;
    message("there is no turn yet");
    return false;
}

static void show_system(const struct chat *c) {
    if (chat_talk_first(&c->talk))
        fprintf(stderr, "%s\n", c->talk.messages[0].text);
    else
        message("there is no system message; /system TEXT sets one");
}

static void set_system(struct chat *c, const char *rest) {
    if (!*rest) {
        show_system(c);
        return;
    }
    bool removes = strcmp(rest, "-") == 0;
    if (!removes && !nibble_template_has_system(c->template)) {
        message("the chat template %s takes no system message; say it in the first message",
                nibble_template_name(c->template));
        return;
    }
    if (chat_talk_set_system(&c->talk, removes ? NULL : rest, strlen(rest)))
        message(removes ? "the system message is gone" : "the system message is set");
}

static void reset(struct chat *c, const char *rest) {
    (void)rest;
    size_t first = chat_talk_first(&c->talk);
    if (c->talk.count > first) chat_talk_drop(&c->talk, first, c->talk.count - first);
    message("the conversation begins anew%s", first ? "; the system message stays" : "");
}

/* The last lines that stand. */
static void undo(struct chat *c, const char *rest) {
    (void)rest;
    if (!is_answered(c)) return;
    chat_talk_drop(&c->talk, c->talk.count - 2, 2);
    size_t turns = (c->talk.count - chat_talk_first(&c->talk)) / 2;
    message("the last turn is taken back; %zu %s left", turns, turns == 1 ? "is" : "are");
}

static void regenerate(struct chat *c, const char *rest) {
    (void)rest;
    if (is_answered(c)) chat_answer_again(c);
}

static void show_stats(struct chat *c, const char *rest) {
    (void)rest;
    if (c->turn.prompt)
        chat_answer_stats(c);
    else
        message("there is no turn yet");
}

static void save(struct chat *c, const char *rest) {
    if (chat_file_save(c, rest)) message("%zu messages are in %s", c->talk.count, rest);
}

static void load(struct chat *c, const char *rest) {
    if (!chat_file_load(c, rest)) return;
    message("%zu messages from %s", c->talk.count, rest);
    if (c->talk.count > chat_talk_first(&c->talk))
        fprintf(stderr, "%s\n", c->talk.messages[c->talk.count - 1].text);
}

static void show_tokens(struct chat *c, const char *rest) {
    (void)rest;
    nibble_context_info info;
    nibble_context_describe(c->session.context, &info);
    fprintf(stderr, "%zu tokens of %zu in %zu message%s\n", chat_answer_tokens(c), info.context,
            c->talk.count, c->talk.count == 1 ? "" : "s");
}

static void help(struct chat *c, const char *rest);

static const struct row rows[] = {
    {"system", "TEXT", "set the system message (-: none); without TEXT show it", set_system},
    {"reset", NULL, "forget all turns; the system message stays", reset},
    {"undo", NULL, "take the last message and its answer back", undo},
    {"regen", NULL, "answer the last message once more", regenerate},
    {"stats", NULL, "what the last answer took", show_stats},
    {"tokens", NULL, "how much of the context the conversation takes", show_tokens},
    {"save", "FILE", "write the conversation to a file in --save-dir", save},
    {"load", "FILE", "go on with one that was saved there", load},
    {"help", NULL, "this list", help},
    {"quit", NULL, "leave, as Ctrl-D does", NULL},
};
enum { ROWS = sizeof rows / sizeof *rows };

static void help(struct chat *c, const char *rest) {
    (void)c;
    (void)rest;
    for (int i = 0; i < ROWS; i++) {
        fprintf(stderr, "  /%-6s %-5s %s\n", rows[i].name, rows[i].takes ? rows[i].takes : "",
                rows[i].help);
    }
    fputs("A message of several lines: \\ at the ends of lines, or \"\"\" around them.\n"
          "//TEXT says /TEXT. Ctrl-C stops an answer or drops a line, Ctrl-D leaves.\n",
          stderr);
}

bool chat_command(struct chat *c, const char *line) {
    size_t length = strcspn(line + 1, " \t\n");
    const char *rest = line + 1 + length + strspn(line + 1 + length, " \t\n");
    for (int i = 0; i < ROWS; i++) {
        if (strlen(rows[i].name) != length || memcmp(line + 1, rows[i].name, length) != 0) continue;
        if (!rows[i].run) return false;
        if (*rest && !rows[i].takes)
            message("/%s takes nothing behind it", rows[i].name);
        else
            rows[i].run(c, rest);
        return true;
    }
    message("/%.*s is no command; /help lists them, and //%.*s says it as a message", (int)length,
            line + 1, (int)length, line + 1);
    return true;
}
