#include <stdlib.h>
#include <string.h>

#include "cli/chat.h"
#include "cli/message.h"

size_t chat_talk_first(const struct chat_talk *t) {
    return t->count && strcmp(t->messages[0].role, "system") == 0;
}

static bool out_of_memory(void) {
    message("not enough memory for the conversation; the message is left out");
    return false;
}

static bool reserve(struct chat_talk *t) {
    if (t->count < t->cap) return true;
    size_t cap = 2 * t->cap + 8;
    nibble_message *bigger = realloc(t->messages, cap * sizeof *bigger);
    if (!bigger) return out_of_memory();
    t->messages = bigger;
    t->cap = cap;
    return true;
}

static bool insert(struct chat_talk *t, size_t at, const char *role, const char *text,
                   size_t size) {
    if (!reserve(t)) return false;
    char *copy = malloc(size + 1);
    if (!copy) return out_of_memory();
    if (size) memcpy(copy, text, size);
    copy[size] = 0;
    memmove(t->messages + at + 1, t->messages + at, (t->count - at) * sizeof *t->messages);
    nibble_message *m = t->messages + at;
    m->role = role;
    m->text = copy;
    m->size = size;
    t->count++;
    return true;
}

bool chat_talk_add(struct chat_talk *t, const char *role, const char *text, size_t size) {
    return insert(t, t->count, role, text, size);
}

bool chat_talk_set_system(struct chat_talk *t, const char *text, size_t size) {
    size_t old = chat_talk_first(t);
    if (text && !insert(t, 0, "system", text, size)) return false;
    if (old) chat_talk_drop(t, text ? 1 : 0, 1);
    return true;
}

void chat_talk_drop(struct chat_talk *t, size_t at, size_t n) {
    for (size_t i = at; i < at + n; i++) free((char *)t->messages[i].text);
    memmove(t->messages + at, t->messages + at + n, (t->count - at - n) * sizeof *t->messages);
    t->count -= n;
}

void chat_talk_free(struct chat_talk *t) {
    if (t->count) chat_talk_drop(t, 0, t->count);
    free(t->messages);
    *t = (struct chat_talk){0};
}
