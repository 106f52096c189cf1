/* Added tokens that stand beside a tokenizer.model: in tokenizer_config.json, in added_tokens.json,
 * or in a tokenizer.json that is not used otherwise. */
#ifndef NIBBLE_TEXT_EXTRA_H
#define NIBBLE_TEXT_EXTRA_H

#include "base/error.h"
#include "base/span.h"
#include "text/added.h"

enum extra_form {
    EXTRA_DECODER, /* tokenizer_config.json: added_tokens_decoder, {"32000": {"content": ...}} */
    EXTRA_IDS,     /* added_tokens.json: {"<tool>": 32000} */
    EXTRA_LIST,    /* tokenizer.json: added_tokens, [{"id": 32000, "content": ...}] */
};

struct extra_source {
    enum extra_form form;
    struct span file;
    const char *where; /* for messages */
};

struct extra {
    struct added_token *list; /* texts are owned */
    size_t count, room;
};

/* Adds those of a file. One whose id or text is there already, and an id of limit and more (0: no
 * limit), is left out. *x is to be closed either way. */
bool extra_read(struct extra *x, const struct extra_source *source, int limit, struct error *e);
void extra_close(struct extra *x); /* all zero is fine */

#endif
