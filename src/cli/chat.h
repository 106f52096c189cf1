/* nibble chat: a conversation, turn by turn. */
#ifndef NIBBLE_CLI_CHAT_H
#define NIBBLE_CLI_CHAT_H

#include "cli/buffer.h"
#include "cli/generation.h"
#include "cli/session.h"

/* --- chat_talk.c: who said what --------------------------------------------------------------- */

/* A system message or none, then the user's and the assistant's in turn. Begins as zeros. */
struct chat_talk {
    nibble_message *messages; /* their texts are malloc'd, with a NUL behind */
    size_t count, cap;
};

/* 1 if there is a system message, else 0: where the turns begin. */
size_t chat_talk_first(const struct chat_talk *t);

/* Adds a message at the end; role is a constant. False, with a message, without memory for it. */
bool chat_talk_add(struct chat_talk *t, const char *role, const char *text, size_t size);

/* Sets the system message, or takes it away (NULL). The same returns. */
bool chat_talk_set_system(struct chat_talk *t, const char *text, size_t size);

void chat_talk_drop(struct chat_talk *t, size_t at, size_t n); /* n messages from at on */
void chat_talk_free(struct chat_talk *t);

/* --- chat_answer.c: a turn -------------------------------------------------------------------- */

/* What the last turn took. */
struct chat_turn {
    size_t prompt;  /* tokens of the conversation up to the answer */
    size_t cached;  /* of them those that were in the cache already; the others were read */
    size_t tokens;  /* of the answer */
    size_t dropped; /* turns that slid out of the context */
    uint64_t prompt_ns, first_ns, tokens_ns;
    nibble_finish finish;
    uint64_t seed;
};

struct chat {
    const struct args *args;
    struct session session;
    struct generation generation;
    const nibble_template *template;
    struct chat_talk talk;
    struct chat_turn turn; /* all zeros before the first */
    size_t answers;        /* begun so far: each has a seed of its own */
    bool terminal;         /* somebody types and reads */
    bool color;
    int folder; /* --save-dir, a descriptor */
};

/* Answers to the user's message: streams the answer to stdout and keeps both. Of the context the
 * longest common beginning stays in the cache. A full context ends the answer, or, with
 * --overflow slide, loses its oldest turns, and stderr says so. Returns 0, or the exit code after
 * printing why; then the conversation is what it was, but for turns that slid out. Interrupted
 * before the first word counts as failure. */
int chat_answer(struct chat *c, const char *text, size_t size);

/* Answers to the last message of the user once more; if that fails the old answer stays. */
int chat_answer_again(struct chat *c);

/* Tokens of the conversation as the next message will find them, 0 if there is none. */
size_t chat_answer_tokens(const struct chat *c);

void chat_answer_stats(const struct chat *c); /* of the last turn, on stderr */

/* --- chat_command.c: lines that begin with a slash -------------------------------------------- */

/* Does what the line says. False: the user wants to leave. */
bool chat_command(struct chat *c, const char *line);

/* --- chat_file.c: /save and /load ------------------------------------------------------------- */

/* Writes the conversation as JSON to a file of that name in c->folder, in place of one that holds
 * a conversation already and of nothing else. False after printing why. */
bool chat_file_save(const struct chat *c, const char *name);

/* Puts the conversation of such a file in the place of this one; the same returns, nothing changed
 * then. */
bool chat_file_load(struct chat *c, const char *name);

/* --- chat_line.c: what is typed --------------------------------------------------------------- */

enum chat_line {
    CHAT_LINE_MESSAGE,
    CHAT_LINE_QUOTED,
    CHAT_LINE_CANCELLED,
    CHAT_LINE_END,
    CHAT_LINE_ENDED
};

/* Line editing and history of this run. */
bool chat_line_open(bool color);
void chat_line_close(void);

/* Reads a message into *text (begins as zeros or is used again). A backslash at the end of a line,
 * or three quotes around lines, make it several. QUOTED: a message between quotes. CANCELLED:
 * Ctrl-C; END: Ctrl-D at the start of a line, or no terminal any more; ENDED: SIGTERM. */
enum chat_line chat_line_read(struct buffer *text);

#endif
