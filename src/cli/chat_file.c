#include <cjson/cJSON.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/chat.h"
#include "cli/input.h"
#include "cli/message.h"
#include "cli/output.h"

static const char format_name[] = "nibble chat 1";

enum { LONGEST_NAME = 200, MOST_BYTES = 64 << 20, MOST_MESSAGES = 100000 };

/* --- names ------------------------------------------------------------------------------------ */

/* Nothing leaves the folder: no name has folders in it. */
static bool check_name(const struct chat *c, const char *name) {
    if (!*name || strlen(name) > LONGEST_NAME || strchr(name, '/') || strcmp(name, ".") == 0 ||
        strcmp(name, "..") == 0) {
        message("'%s' is not the name of a file in the folder of --save-dir; give a name without "
                "folders",
                name);
        return false;
    }
    if (c->folder >= 0) return true;
    message("the starting folder cannot be opened; name another with --save-dir");
    return false;
}

static bool fail_file(const char *name, const char *what) {
    message("%s cannot be %s: %s", name, what, strerror(errno));
    return false;
}

/* --- reading ---------------------------------------------------------------------------------- */

/* Closes fd. */
static bool read_file(int fd, const char *name, struct buffer *text) {
    struct stat s;
    char part[1 << 14];
    ssize_t n = fstat(fd, &s) == 0 ? 0 : -1;
    if (n == 0 && !S_ISREG(s.st_mode)) errno = EINVAL;
    bool ok = n == 0 && S_ISREG(s.st_mode);
    while (ok && text->size <= MOST_BYTES && (n = read(fd, part, sizeof part)) > 0)
        buffer_add(text, part, (size_t)n);
    if (!ok || n < 0) fail_file(name, "read");
    close(fd);
    if (!ok || n < 0) return false;
    if (text->size <= MOST_BYTES && !text->failed) return true;
    message("%s is larger than %d MB, which no conversation is", name, MOST_BYTES >> 20);
    return false;
}

static bool refuse(const char *name, const char *why) {
    message("%s is no conversation that /save wrote: %s", name, why);
    return false;
}

static const char *text_of(const cJSON *o, const char *key) {
    const cJSON *value = cJSON_GetObjectItemCaseSensitive(o, key);
    return cJSON_IsString(value) ? value->valuestring : NULL;
}

/* Adds one message; false, with a message, if it is not what is due. */
static bool read_message(struct chat_talk *t, const cJSON *o, const char *name) {
    const char *role = text_of(o, "role"), *text = text_of(o, "content");
    if (!role || !text) return refuse(name, "a message lacks its role or its content");
    size_t turn = t->count - chat_talk_first(t);
    const char *due = turn % 2 ? "assistant" : "user";
    if (t->count == 0 && strcmp(role, "system") == 0) due = "system";
    if (strcmp(role, due) != 0) return refuse(name, "user and assistant do not take turns");
    return chat_talk_add(t, due, text, strlen(text));
}

static bool read_messages(struct chat_talk *t, const cJSON *root, const char *name) {
    const cJSON *each, *list = cJSON_GetObjectItemCaseSensitive(root, "messages");
    const char *format = text_of(root, "format");
    if (!format || strcmp(format, format_name) != 0)
        return refuse(name, "its \"format\" is not \"nibble chat 1\"");
    if (!cJSON_IsArray(list) || cJSON_GetArraySize(list) > MOST_MESSAGES)
        return refuse(name, "it has no list \"messages\", or too long a one");
    cJSON_ArrayForEach(each, list) {
        if (!read_message(t, each, name)) return false;
    }
    if ((t->count - chat_talk_first(t)) % 2) return refuse(name, "its last message has no answer");
    return true;
}

/* What cJSON would let pass: bytes that are no UTF-8, and a NUL that would end a text early. */
static bool check_text(const struct buffer *text, const char *name) {
    for (size_t i = 0, n; i < text->size; i += n) {
        n = nibble_utf8_sequence(text->bytes + i, text->size - i);
        if (!n) return refuse(name, "it is not UTF-8 text");
    }
    return !input_json_nul(text->bytes, text->size) || refuse(name, "it holds a NUL");
}

static bool read_talk(const struct chat *c, const char *name, struct chat_talk *t) {
    struct buffer text = {0};
    int fd = openat(c->folder, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0) return fail_file(name, "opened");
    bool ok = read_file(fd, name, &text) && check_text(&text, name);
    cJSON *root = ok ? cJSON_ParseWithLength(text.bytes ? text.bytes : "", text.size) : NULL;
    if (ok && !root) refuse(name, "it is not JSON");
    ok = root && read_messages(t, root, name);
    cJSON_Delete(root);
    free(text.bytes);
    if (!ok) chat_talk_free(t);
    return ok;
}

bool chat_file_load(struct chat *c, const char *name) {
    struct chat_talk talk = {0};
    if (!check_name(c, name) || !read_talk(c, name, &talk)) return false;
    if (chat_talk_first(&talk) && !nibble_template_has_system(c->template)) {
        message("%s has a system message, which the chat template %s does not take", name,
                nibble_template_name(c->template));
        chat_talk_free(&talk);
        return false;
    }
    chat_talk_free(&c->talk);
    c->talk = talk;
    return true;
}

/* --- writing ---------------------------------------------------------------------------------- */

static char *write_talk(const struct chat *c) {
    cJSON *root = cJSON_CreateObject(), *list = cJSON_CreateArray();
    const char *model = c->args->words[0];
    cJSON_AddStringToObject(root, "format", format_name);
    cJSON_AddItemToObject(root, "model", output_json_text(model, strlen(model)));
    cJSON_AddStringToObject(root, "template", nibble_template_name(c->template));
    cJSON_AddItemToObject(root, "messages", list);
    bool ok = list;
    for (size_t i = 0; ok && i < c->talk.count; i++) {
        const nibble_message *m = &c->talk.messages[i];
        cJSON *o = cJSON_CreateObject();
        ok = cJSON_AddItemToArray(list, o) && cJSON_AddStringToObject(o, "role", m->role) &&
             cJSON_AddItemToObject(o, "content", output_json_text(m->text, m->size));
    }
    char *text = ok ? cJSON_Print(root) : NULL;
    cJSON_Delete(root);
    if (!text) message("not enough memory to write the conversation");
    return text;
}

static bool write_all(int fd, const char *text, size_t size) {
    while (size) {
        ssize_t n = write(fd, text, size);
        if (n < 0 && errno != EINTR) return false;
        if (n < 0) continue;
        text += n;
        size -= (size_t)n;
    }
    return true;
}

/* Under another name first, so that nothing half-written has the name. */
static bool write_file(const struct chat *c, const char *name, const char *text) {
    char temporary[LONGEST_NAME + 32];
    snprintf(temporary, sizeof temporary, ".%s.%ld.part", name, (long)getpid());
    int fd = openat(c->folder, temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (fd < 0) return fail_file(name, "written");
    bool ok = write_all(fd, text, strlen(text)) && write_all(fd, "\n", 1);
    int reason = ok ? 0 : errno;
    if (close(fd) != 0 && ok) {
        ok = false;
        reason = errno;
    }
    if (ok && renameat(c->folder, temporary, c->folder, name) == 0) return true;
    if (!ok) errno = reason;
    fail_file(name, "written");
    unlinkat(c->folder, temporary, 0);
    return false;
}

/* There is nothing of that name, or a conversation, which may go. */
static bool check_place(const struct chat *c, const char *name) {
    struct stat s;
    struct chat_talk old = {0};
    if (fstatat(c->folder, name, &s, AT_SYMLINK_NOFOLLOW) != 0) return true;
    bool ok = read_talk(c, name, &old);
    chat_talk_free(&old);
    if (!ok) message("%s is not replaced; choose another name", name);
    return ok;
}

bool chat_file_save(const struct chat *c, const char *name) {
    if (!check_name(c, name) || !check_place(c, name)) return false;
    char *text = write_talk(c);
    bool ok = text && write_file(c, name, text);
    cJSON_free(text);
    return ok;
}
