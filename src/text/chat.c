#include "text/chat.h"

#include <cjson/cJSON.h>
#include <stdlib.h>
#include <string.h>

#include "text/bytes.h"
#include "text/unicode.h"

/* --- The conversation ------------------------------------------------------------------------- */

static bool is_role(const struct chat_conversation *c, size_t i, const char *role) {
    return i < c->count && strcmp(c->messages[i].role, role) == 0;
}

static bool takes_system(const struct chat *c) {
    return c->text[CHAT_START_SYSTEM] || c->system_last || c->system_ignored;
}

/* What follows the last message. */
static enum chat_text end_of(const struct chat_conversation *c) {
    if (is_role(c, c->count - 1, "assistant")) return CHAT_ASSISTANT_END;
    return c->open ? CHAT_USER_OPEN : CHAT_USER_END;
}

static bool check(const struct chat_conversation *c, struct error *e) {
    size_t first = is_role(c, 0, "system");
    if (first && !takes_system(c->chat))
        return fail(e, STATUS_ARGUMENT,
                    "the chat template %s takes no system message; say it in the first message",
                    c->chat->name);
    for (size_t i = first; i < c->count; i++) {
        const char *role = (i - first) % 2 ? "assistant" : "user";
        if (is_role(c, i, role)) continue;
        return fail(e, STATUS_ARGUMENT,
                    "message %zu of the conversation is of the role '%.40s' where '%s' is due; a "
                    "system message may come first, then user and assistant take turns",
                    i + 1, c->messages[i].role, role);
    }
    if (c->count == first)
        return fail(e, STATUS_ARGUMENT, "the conversation has no message of the user");
    if (c->chat->text[end_of(c)]) return true;
    return fail(e, STATUS_ARGUMENT,
                "the chat template %s has no place for a conversation that ends with a message of "
                "the %s",
                c->chat->name, c->messages[c->count - 1].role);
}

/* --- The text --------------------------------------------------------------------------------- */

struct draft {
    const struct tokens *tokens;
    const struct chat_conversation *conversation;
    struct bytes text;
    struct guard_range *words; // [count of messages]
    size_t count;
    struct bytes clean;
};

static void add_name(struct draft *d, int id) {
    size_t size = 0;
    const char *name = id < 0 ? NULL : tokens_name(d->tokens, id, &size);
    bytes_add(&d->text, name, size);
}

static void add_text(struct draft *d, enum chat_text which) {
    const char *text = d->conversation->chat->text[which];
    for (; text && *text; text++) {
        if (*text == *CHAT_BOS)
            add_name(d, d->conversation->bos);
        else if (*text == *CHAT_EOS)
            add_name(d, d->conversation->eos);
        else
            bytes_add(&d->text, text, 1);
    }
}

/* What str.isspace of Python takes for white space. */
static bool is_trimmed(int32_t c, int trim) {
    if (trim & CHAT_TRIM_LINES) return c == '\n';
    return unicode_is_space(c) || (c >= 0x1c && c <= 0x1f);
}

static struct span trim(const char *text, size_t size, int trim) {
    int32_t c;
    while (size && (trim & CHAT_TRIM_LEFT)) {
        size_t length = unicode_next(text, size, &c);
        if (!is_trimmed(c, trim)) break;
        text += length;
        size -= length;
    }
    while (size && (trim & CHAT_TRIM_RIGHT)) {
        size_t length = unicode_last(text, size, &c);
        if (!is_trimmed(c, trim)) break;
        size -= length;
    }
    return (struct span){(const unsigned char *)text, size};
}

/* An answer without what went before it. */
static struct span drop_thought(const struct chat *chat, struct span text) {
    const char *end = chat->thought_end;
    size_t length = end ? strlen(end) : 0;
    for (size_t i = text.size; length && i >= length; i--) {
        if (memcmp(text.data + i - length, end, length) != 0) continue;
        return trim((const char *)text.data + i, text.size - i, chat->trim[CHAT_THOUGHT]);
    }
    return text;
}

static void add_message(struct draft *d, size_t i, enum chat_part part) {
    const struct chat *chat = d->conversation->chat;
    const struct chat_message *m = &d->conversation->messages[i];
    size_t start = d->text.size;
    bytes_clear(&d->clean);
    unicode_clean(&d->clean, m->text, m->size);
    struct span text = {(const unsigned char *)d->clean.data, d->clean.size};
    if (part == CHAT_ASSISTANT) text = drop_thought(chat, text);
    text = trim((const char *)text.data, text.size, chat->trim[part]);
    bytes_add(&d->text, (const char *)text.data, text.size);
    d->text.failed |= d->clean.failed;
    if (d->text.size > start) d->words[d->count++] = (struct guard_range){start, d->text.size};
}

static void add_user(struct draft *d, size_t i, size_t first) {
    const struct chat_conversation *c = d->conversation;
    bool last = c->chat->system_last, told = first && !c->chat->system_ignored;
    bool system = told && (last ? i + 1 == c->count : i == first);
    if (i > first)
        add_text(d, CHAT_ASSISTANT_USER);
    else
        add_text(d, last || !system ? CHAT_START_USER : CHAT_START_SYSTEM);
    if (system) add_message(d, 0, CHAT_SYSTEM);
    if (system) add_text(d, CHAT_SYSTEM_USER);
    add_message(d, i, system ? CHAT_FIRST_USER : CHAT_USER);
}

static void add_answer(struct draft *d, size_t i) {
    const struct chat_conversation *c = d->conversation;
    bool last = i + 1 == c->count, own = last && c->chat->text[CHAT_USER_LAST_ASSISTANT];
    add_text(d, own ? CHAT_USER_LAST_ASSISTANT : CHAT_USER_ASSISTANT);
    add_message(d, i, last ? CHAT_LAST_ASSISTANT : CHAT_ASSISTANT);
}

static bool write(struct draft *d, struct error *e) {
    const struct chat_conversation *c = d->conversation;
    if (!check(c, e)) return false;
    size_t first = is_role(c, 0, "system");
    d->words = calloc(c->count, sizeof *d->words);
    for (size_t i = first; d->words && i < c->count; i++) {
        if ((i - first) % 2)
            add_answer(d, i);
        else
            add_user(d, i, first);
    }
    add_text(d, end_of(c));
    if (d->words && !d->text.failed) return true;
    return fail(e, STATUS_MEMORY, "not enough memory for a conversation of %zu messages", c->count);
}

static void close(struct draft *d) {
    bytes_free(&d->text);
    bytes_free(&d->clean);
    free(d->words);
}

bool chat_write(const struct tokens *t, const struct chat_conversation *c, char **text,
                size_t *size, struct error *e) {
    struct draft d = {.tokens = t, .conversation = c};
    bool ok = write(&d, e);
    *size = d.text.size;
    bytes_add(&d.text, "", 1);
    if (ok && d.text.failed) ok = fail(e, STATUS_MEMORY, "not enough memory for a conversation");
    *text = ok ? d.text.data : NULL;
    if (ok) d.text.data = NULL;
    close(&d);
    return ok;
}

/* --- The ids ---------------------------------------------------------------------------------- */

/* One that tells no word from another: a template may say "user" or an empty line as well. */
static bool is_mark(const struct tokens *t, int id) {
    size_t size, length;
    const char *name = tokens_name(t, id, &size);
    if (!tokens_is_added(t, id)) return false;
    for (int32_t c; size; name += length, size -= length) {
        length = unicode_next(name, size, &c);
        if (unicode_is_punctuation(c)) return true;
    }
    return false;
}

/* The ids of one of the template's texts. */
static bool encode_text(struct draft *d, enum chat_text which, struct token_list *list,
                        struct error *e) {
    bytes_clear(&d->text);
    add_text(d, which);
    if (d->text.failed) return fail(e, STATUS_MEMORY, "not enough memory for a chat template");
    return tokens_encode(d->tokens, d->text.data, d->text.size, true, list, e);
}

/* The ids of all that may hold control tokens of the template. */
static bool encode_texts(const struct tokens *t, const struct chat_conversation *c,
                         struct token_list *list, struct error *e) {
    struct draft d = {.tokens = t, .conversation = c};
    const cJSON *mark;
    bool ok = true;
    for (int i = 0; ok && i < CHAT_TEXTS; i++) ok = encode_text(&d, (enum chat_text)i, list, e);
    close(&d);
    cJSON_ArrayForEach(mark, c->chat->marks) {
        const char *text = mark->valuestring;
        ok = ok && tokens_encode(t, text, strlen(text), true, list, e);
    }
    return ok;
}

/* Leaves in *list the marks of the template that messages would turn into ids. */
static bool find_barred(const struct tokens *t, const struct chat_conversation *c,
                        struct token_list *list, struct error *e) {
    size_t kept = 0;
    if (!encode_texts(t, c, list, e)) return false;
    for (size_t i = 0; i < list->count; i++) {
        int id = list->ids[i];
        struct guard known = {.barred = list->ids, .barred_count = kept};
        if (!tokens_is_control(t, id) && !guard_bars(&known, id) && is_mark(t, id))
            list->ids[kept++] = id;
    }
    list->count = kept;
    return true;
}

bool chat_encode(const struct tokens *t, const struct chat_conversation *c, struct token_list *list,
                 struct error *e) {
    struct draft d = {.tokens = t, .conversation = c};
    struct token_list barred = {0};
    bool ok = write(&d, e) && find_barred(t, c, &barred, e);
    struct guard guard = {d.words, d.count, barred.ids, barred.count};
    ok = ok && tokens_encode_guarded(t, d.text.data, d.text.size, &guard, list, e);
    free(barred.ids);
    close(&d);
    return ok;
}

int chat_end(const struct tokens *t, const struct chat *chat, int bos, int eos) {
    const struct chat_conversation c = {.chat = chat, .bos = bos, .eos = eos};
    struct draft d = {.tokens = t, .conversation = &c};
    struct token_list list = {0};
    struct error e;
    int end = -1;
    if (encode_text(&d, CHAT_ASSISTANT_END, &list, &e) &&
        encode_text(&d, CHAT_ASSISTANT_USER, &list, &e)) {
        for (size_t i = 0; i < list.count && end < 0; i++) {
            if (is_mark(t, list.ids[i])) end = list.ids[i];
        }
    }
    free(list.ids);
    close(&d);
    return end;
}
