/* include/nibble.h: chat templates. */
#include <stddef.h>

#include "api/handles.h"

/* A nibble_template is a struct chat under another name. */
static const struct chat *chat_of(const nibble_template *c) {
    return (const struct chat *)(const void *)c;
}

static const nibble_template *template_of(const struct chat *c) {
    return (const nibble_template *)(const void *)c;
}

_Static_assert(sizeof(nibble_message) == sizeof(struct chat_message) &&
                   offsetof(nibble_message, text) == offsetof(struct chat_message, text) &&
                   offsetof(nibble_message, size) == offsetof(struct chat_message, size),
               "a list of one is a list of the other");

const nibble_template *nibble_model_template(const nibble_model *m) {
    return m->chat.name ? template_of(&m->chat) : NULL;
}

const nibble_template *nibble_template_named(const char *name) {
    return template_of(chat_named(name));
}

const char *nibble_model_jinja(const nibble_model *m) {
    return handles_template_file(&m->model.store);
}

const char *nibble_template_names(void) {
    return chat_named_list();
}

static bool refuse(const nibble_model *m, const char *name, struct error *e) {
    const struct store *store = &m->model.store;
    char where[512];
    if (name)
        return fail(e, STATUS_ARGUMENT, "there is no built-in chat template '%.100s'; there are %s",
                    name, chat_named_list());
    const char *file = handles_template_file(store);
    if (!file)
        return fail(e, STATUS_MODEL,
                    "%s came without a chat template; if it is made for conversations, name one "
                    "of %s with --template",
                    store->path, chat_named_list());
    store_where(store, file, where, sizeof where);
    return fail(e, STATUS_MODEL,
                "%s holds the chat template as a program in Jinja, which nibble does not run; "
                "convert the model with scripts/convert.py MODEL -o OUT.npz, which takes down what "
                "the template writes if that can be told without it, or name one of %s with "
                "--template",
                where, chat_named_list());
}

const nibble_template *nibble_template_choose(const nibble_model *m, const char *name,
                                              nibble_error *error) {
    struct error e = {0};
    const nibble_template *c = name ? nibble_template_named(name) : nibble_model_template(m);
    if (!c) handles_report(refuse(m, name, &e), &e, error);
    return c;
}

const char *nibble_template_name(const nibble_template *c) {
    return chat_of(c)->name;
}

bool nibble_template_has_system(const nibble_template *c) {
    return chat_of(c)->text[CHAT_START_SYSTEM] || chat_of(c)->system_last;
}

static struct chat_conversation conversation_of(const nibble_tokenizer *t, const nibble_template *c,
                                                const nibble_message *messages, size_t count,
                                                bool open) {
    return (struct chat_conversation){
        .chat = chat_of(c),
        .messages = (const struct chat_message *)(const void *)messages,
        .count = count,
        .open = open,
        .bos = t->bos,
        .eos = t->eos,
    };
}

bool nibble_chat_encode(const nibble_tokenizer *t, const nibble_template *c,
                        const nibble_message *messages, size_t count, bool open, nibble_ids *out,
                        nibble_error *error) {
    struct error e = {0};
    struct token_list list = {0};
    struct chat_conversation conversation = conversation_of(t, c, messages, count, open);
    bool ok = chat_encode(t->tokens, &conversation, &list, &e);
    *out = (nibble_ids){list.ids, list.count};
    return handles_report(ok, &e, error);
}

bool nibble_chat_text(const nibble_tokenizer *t, const nibble_template *c,
                      const nibble_message *messages, size_t count, bool open, char **text,
                      size_t *size, nibble_error *error) {
    struct error e = {0};
    struct chat_conversation conversation = conversation_of(t, c, messages, count, open);
    return handles_report(chat_write(t->tokens, &conversation, text, size, &e), &e, error);
}

int nibble_chat_end(const nibble_tokenizer *t, const nibble_template *c) {
    return chat_end(t->tokens, chat_of(c), t->bos, t->eos);
}
