/* text/chat.h: the built-in templates. */
#include <string.h>

#include "text/chat.h"

#define B CHAT_BOS
#define E CHAT_EOS
#define SYSTEM(before, behind) .text[CHAT_START_SYSTEM] = before, .text[CHAT_SYSTEM_USER] = behind
#define TRIM_NONE .trim = {0}
#define TRIM_ALL                                                                                   \
    .trim = {CHAT_TRIM_BOTH, CHAT_TRIM_BOTH, CHAT_TRIM_BOTH, CHAT_TRIM_BOTH, CHAT_TRIM_BOTH}
#define TRIM_MESSAGES(first) .trim = {0, first, CHAT_TRIM_BOTH, CHAT_TRIM_BOTH, CHAT_TRIM_BOTH}
#define CHAT(called, trimmed, first, answer, next, open, end, answered, ...)                       \
    {.name = called,                                                                               \
     trimmed,                                                                                      \
     .text[CHAT_START_USER] = first,                                                               \
     .text[CHAT_USER_ASSISTANT] = answer,                                                          \
     .text[CHAT_ASSISTANT_USER] = next,                                                            \
     .text[CHAT_USER_OPEN] = open,                                                                 \
     .text[CHAT_USER_END] = end,                                                                   \
     .text[CHAT_ASSISTANT_END] = answered,                                                         \
     __VA_ARGS__},

static const struct chat named[] = {
#include "text/chat.def"
};
#undef CHAT
enum { NAMED = sizeof named / sizeof *named };

#define CHAT(called, ...) ", " called
static const char names[] =
#include "text/chat.def"
    ;

const struct chat *chat_named(const char *name) {
    for (size_t i = 0; i < NAMED; i++) {
        if (strcmp(named[i].name, name) == 0) return &named[i];
    }
    return NULL;
}

const char *chat_named_list(void) {
    return names + strlen(", ");
}
