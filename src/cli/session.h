/* What the commands that run a model have in common. */
#ifndef NIBBLE_CLI_SESSION_H
#define NIBBLE_CLI_SESSION_H

#include "cli/args.h"
#include "cli/input.h"

struct session {
    nibble_model *model;
    nibble_context *context;
    const nibble_tokenizer *tokenizer; /* NULL: the model came without one */
    uint64_t load_ns;                  /* opening both */
};

/* Opens the model, with a note on stderr if it is not mapped. Returns 0, or the exit code after
 * printing why. */
int session_open_model(struct session *s, const char *path);

/* Opens a context as the options say, of at least `tokens` positions if -c does not say (0: the
 * model's default). */
int session_open_context(struct session *s, const struct args *a, size_t tokens);

/* Gives up what is not needed any more (sandbox.h) unless --no-sandbox is given: after the model
 * and all input are read, before a context starts threads. folders, ended by NULL, may be
 * written. */
void session_confine(const struct args *a, const char *const *folders);

/* For that: the folder that a file lies in or will, a link's file too; free it. NULL: out of
 * memory. */
char *session_folder(const char *path);

void session_close(struct session *s);

#endif
