/* A prompt that is a conversation, and what goes in of any prompt. */
#ifndef NIBBLE_CLI_PROMPT_H
#define NIBBLE_CLI_PROMPT_H

#include "cli/options.h"
#include "cli/session.h"

struct cJSON;

extern const struct option prompt_options[]; /* --chat and those that belong to it */

/* Whether --chat or --messages is given. */
bool prompt_is_chat(const struct args *a);

/* What makes no sense together, before anything is opened. The same returns as below. */
int prompt_check(const struct args *a);

/* Refuses a prompt that is too long to be run, as input_check_size. One that is only shown is as
 * long as it likes. */
int prompt_check_size(const struct args *a, const struct session *s, const struct input_text *text);

/* The conversation of the options: one message of the user, with --system one before it, or all of
 * --messages; as the text that the chat template makes of it, and its ids. Returns 0, or the exit
 * code after printing why. */
int prompt_read(const struct args *a, const struct session *s, struct input_text *text,
                nibble_ids *ids);

/* The same of *text, a message of the user from elsewhere, whose place the whole takes. */
int prompt_wrap(const struct args *a, const struct session *s, struct input_text *text,
                nibble_ids *ids);

/* The same of a list of messages in JSON, which errors call `where`. */
int prompt_wrap_list(const struct args *a, const struct session *s, const char *where,
                     const struct cJSON *list, struct input_text *text, nibble_ids *ids);

/* With --chat: whether a message can be wrapped at all, before many are. The same returns. */
int prompt_try(const struct args *a, const struct session *s);

/* The token that ends an answer in the template chosen, -1 if there is none: for
 * nibble_generation.ends. */
int prompt_end(const struct args *a, const struct session *s);

/* --show-prompt: text and ids on stdout. bytes is NULL if the prompt is only known as ids. The same
 * returns. */
int prompt_show(const struct args *a, const struct session *s, const struct input_text *text,
                const nibble_ids *ids);

#endif
