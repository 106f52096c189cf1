/* Chat templates: what stands around the messages of a conversation.
 *
 * A conversation is a system message or none, then the user and the assistant in turn. What a
 * template writes is then told by a text for each pair of neighbours, and by what it trims off a
 * message. That this is all a model's own template does, scripts/chat_template.py finds out when
 * the model is converted. A few templates that many models share are built in (chat.def). */
#ifndef NIBBLE_TEXT_CHAT_H
#define NIBBLE_TEXT_CHAT_H

#include "base/error.h"
#include "base/span.h"
#include "text/tokens.h"

/* In the texts of a template they stand for the tokenizer's BOS and EOS: nothing, if it has none.
 */
#define CHAT_BOS "\001"
#define CHAT_EOS "\002"

/* Which texts; the names in the stored form are these in small letters. */
enum chat_text {
    CHAT_START_SYSTEM,        /* before the system message; NULL: the template refuses one */
    CHAT_SYSTEM_USER,         /* between it and the first of the user's */
    CHAT_START_USER,          /* before that, without a system message */
    CHAT_USER_ASSISTANT,      /* between a message of the user and its answer */
    CHAT_USER_LAST_ASSISTANT, /* the same before an answer that ends the conversation; NULL: as it
                               */
    CHAT_ASSISTANT_USER,      /* between an answer and the next message */
    CHAT_USER_OPEN,           /* behind the user's last message: here an answer begins */
    CHAT_USER_END,            /* behind the same, if none is to begin; NULL: that is refused */
    CHAT_ASSISTANT_END,       /* behind an answer that ends the conversation; NULL: refused */
    CHAT_TEXTS,
};

enum chat_part {
    CHAT_SYSTEM,
    CHAT_FIRST_USER,
    CHAT_USER,
    CHAT_ASSISTANT,
    CHAT_LAST_ASSISTANT,
    CHAT_THOUGHT,
    CHAT_PARTS
}; /* FIRST_USER: behind a system message; THOUGHT: an answer, where thought_end is cut off */

/* What is cut off a message: white space as Python's str.strip has it, or line feeds alone. */
enum chat_trim {
    CHAT_TRIM_LEFT = 1,
    CHAT_TRIM_RIGHT = 2,
    CHAT_TRIM_BOTH = 3,
    CHAT_TRIM_LINES = 4, /* with one of the others */
};

struct chat {
    const char *name;
    const char *text[CHAT_TEXTS];
    unsigned char trim[CHAT_PARTS];
    /* The system message stands before the user's last message, if that ends the conversation, and
     * nowhere else; SYSTEM_USER goes between the two and START_SYSTEM is not used. */
    bool system_last;
    bool system_ignored; /* it stands nowhere */
    /* Of an answer that does not end the conversation, all up to the last of these is left out:
     * what a model thinks is not kept. NULL: nothing is. */
    const char *thought_end;
    /* A list of texts, or NULL: what looks like tokens in the template, be it in its texts or not.
     */
    const struct cJSON *marks;
    struct cJSON *owned; /* what the rest points into, or NULL */
};

/* A built-in one; NULL if there is none of that name. */
const struct chat *chat_named(const char *name);
const char *chat_named_list(void); /* "chatml, ..." */

/* What is missing of the stored form, or wrong with it, is refused; the whole format is in
 * docs/model-files.md. where names the file in messages. */
bool chat_json_open(struct chat *c, struct span json, const char *where, struct error *e);
void chat_json_close(struct chat *c);

struct chat_message {
    const char *role; /* "system", "user" or "assistant" */
    const char *text;
    size_t size;
};

struct chat_conversation {
    const struct chat *chat;
    const struct chat_message *messages;
    size_t count;
    bool open;    /* an answer is to begin, if the last message is the user's */
    int bos, eos; /* -1: there is none */
};

/* Adds the ids to *list, as tokens_encode does. Messages are words (guard.h). Refuses conversations
 * that the template, or the form above, has no place for. */
bool chat_encode(const struct tokens *t, const struct chat_conversation *c, struct token_list *list,
                 struct error *e);

/* The text that is encoded: in memory that the caller frees, *size bytes and a NUL. Bytes that are
 * no UTF-8 have become U+FFFD. */
bool chat_write(const struct tokens *t, const struct chat_conversation *c, char **text,
                size_t *size, struct error *e);

/* The token that ends an answer: the first one behind it that the tokenizer takes as a whole; -1 if
 * there is none. */
int chat_end(const struct tokens *t, const struct chat *c, int bos, int eos);

#endif
