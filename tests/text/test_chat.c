/* Chat templates: what a conversation becomes, and that a message never becomes a control token. */
#include "pipeline.h"
#include "text/chat.h"

/* --- The text --------------------------------------------------------------------------------- */

/* "s..." is a system message, then the user's and the assistant's take turns. */
struct talk {
    const char *template, *messages[6];
    bool open;
    const char *want;
};

static struct chat_conversation
conversation_of(const struct chat *chat, const char *const *messages, struct chat_message *out) {
    struct chat_conversation c = {.chat = chat, .messages = out, .bos = -1, .eos = -1};
    bool system = messages[0] && messages[0][0] == 's';
    for (; messages[c.count]; c.count++) {
        bool user = (c.count - system) % 2 == 0;
        const char *text = messages[c.count];
        if (system && c.count == 0)
            out[c.count] = (struct chat_message){"system", text, strlen(text)};
        else
            out[c.count] = (struct chat_message){user ? "user" : "assistant", text, strlen(text)};
    }
    return c;
}

static void check_talk(const struct tokens *t, const struct chat *chat, const struct talk *talk) {
    struct chat_message messages[6];
    struct chat_conversation c = conversation_of(chat, talk->messages, messages);
    struct error e = {0};
    char *text = NULL;
    size_t size = 0;
    c.open = talk->open;
    c.bos = tokens_bos(t);
    c.eos = tokens_eos(t);
    CHECK_MSG(chat_write(t, &c, &text, &size, &e), "%s: %s", chat->name, e.message);
    CHECK_MSG(text && size == strlen(talk->want) && strcmp(text, talk->want) == 0,
              "%s gives '%s', not '%s'", chat->name, text, talk->want);
    free(text);
}

static void test_named(void) {
    static const struct talk talks[] = {
        {"chatml", {"a"}, true, "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\n"},
        {"chatml",
         {"s", "a ", " b"},
         true,
         "<|im_start|>system\ns<|im_end|>\n<|im_start|>user\na <|im_end|>\n<|im_start|>assistant\n"
         " b<|im_end|>\n"},
        {"llama2", {"a"}, true, "<s>[INST] a [/INST]"},
        {"llama2", {"a"}, false, "<s>[INST] a [/INST]"},
        {"llama2",
         {"s ", " a\n", "b ", " c"},
         true,
         "<s>[INST] <<SYS>>\ns \n<</SYS>>\n\n a [/INST] b </s><s>[INST] c [/INST]"},
        {"gemma",
         {"s", "a", "b", "c"},
         true,
         "<s><start_of_turn>user\ns\n\na<end_of_turn>\n<start_of_turn>model\nb<end_of_turn>\n"
         "<start_of_turn>user\nc<end_of_turn>\n<start_of_turn>model\n"},
        {"zephyr", {"a", "b"}, false, "<|user|>\na</s>\n<|assistant|>\nb</s>\n"},
    };
    struct tokens *t = open_model(BPE_BYTES);
    for (size_t i = 0; i < sizeof talks / sizeof *talks; i++) {
        const struct chat *chat = chat_named(talks[i].template);
        CHECK_MSG(chat, "there is no %s", talks[i].template);
        if (chat) check_talk(t, chat, &talks[i]);
    }
    CHECK(!chat_named("llama") && !chat_named(""));
    tokens_close(t);
}

/* All that a row of chat.def must have, so that nothing is forgotten. */
static void test_table(void) {
    char names[1024], *rest = NULL;
    size_t count = 0;
    snprintf(names, sizeof names, "%s", chat_named_list());
    for (char *name = strtok_r(names, ", ", &rest); name; name = strtok_r(NULL, ", ", &rest)) {
        const struct chat *c = chat_named(name);
        CHECK_MSG(c && strcmp(c->name, name) == 0, "%s", name);
        for (int i = 0; c && i < CHAT_TEXTS; i++)
            CHECK_MSG(c->text[i] || i == CHAT_USER_LAST_ASSISTANT, "%s lacks text %d", name, i);
        count++;
    }
    CHECK(count >= 12);
}

static void test_trim(void) {
    struct chat chat = *chat_named("chatml");
    struct tokens *t = open_model(BPE_BYTES);
    chat.text[CHAT_START_USER] = "<";
    chat.text[CHAT_USER_END] = ">";
    static const struct {
        int trim;
        const char *want;
    } cases[] = {
        {0, "<\n \t a\xc2\xa0\n\x1c>"},
        {CHAT_TRIM_BOTH, "<a>"},
        {CHAT_TRIM_LEFT, "<a\xc2\xa0\n\x1c>"},
        {CHAT_TRIM_RIGHT, "<\n \t a>"},
        {CHAT_TRIM_LEFT | CHAT_TRIM_LINES, "< \t a\xc2\xa0\n\x1c>"},
        {CHAT_TRIM_RIGHT | CHAT_TRIM_LINES, "<\n \t a\xc2\xa0\n\x1c>"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct talk talk = {NULL, {"\n \t a\xc2\xa0\n\x1c"}, false, cases[i].want};
        chat.trim[CHAT_USER] = (unsigned char)cases[i].trim;
        check_talk(t, &chat, &talk);
    }
    chat.trim[CHAT_USER] = CHAT_TRIM_BOTH;
    check_talk(t, &chat, &(struct talk){NULL, {" \n "}, false, "<>"});
    tokens_close(t);
}

/* The system message where the user's last one stands, and an answer that ends it all. */
static void test_last(void) {
    struct chat chat = *chat_named("mistral");
    struct tokens *t = open_model(BPE_BYTES);
    chat.system_last = true;
    chat.text[CHAT_START_SYSTEM] = NULL;
    chat.text[CHAT_USER_LAST_ASSISTANT] = " [/INST]!";
    chat.thought_end = "</t>";
    chat.trim[CHAT_THOUGHT] = CHAT_TRIM_LEFT | CHAT_TRIM_LINES;
    check_talk(t, &chat, &(struct talk){NULL, {"s", "a"}, true, "<s>[INST] s\n\na [/INST]"});
    check_talk(t, &chat,
               &(struct talk){NULL,
                              {"s", "a", "x</t>y</t>\n\nb", "c"},
                              true,
                              "<s>[INST] a [/INST] b</s>[INST] s\n\nc [/INST]"});
    check_talk(t, &chat,
               &(struct talk){NULL, {"s", "a", "x</t>b"}, true, "<s>[INST] a [/INST]!x</t>b</s>"});
    tokens_close(t);
}

static void test_ignored(void) {
    struct chat chat = *chat_named("zephyr");
    struct tokens *t = open_model(BPE_BYTES);
    chat.text[CHAT_START_SYSTEM] = NULL;
    chat.system_ignored = true;
    check_talk(t, &chat, &(struct talk){NULL, {"s", "a"}, false, "<|user|>\na</s>\n"});
    tokens_close(t);
}

static void test_refused(void) {
    struct chat chat = *chat_named("gemma");
    struct tokens *t = open_model(BPE_BYTES);
    struct token_list list = {0};
    struct chat_message m[] = {{"user", "a", 1}, {"user", "b", 1}, {"system", "s", 1}};
    struct chat_conversation c = {&chat, m, 2, true, -1, -1};
    struct error e = {0};
    CHECK(!chat_encode(t, &c, &list, &e) && strstr(e.message, "message 2 of the conversation"));
    c.count = 0;
    CHECK(!chat_encode(t, &c, &list, &e) && strstr(e.message, "no message of the user"));
    c.messages = m + 2;
    c.count = 1;
    CHECK(!chat_encode(t, &c, &list, &e) && strstr(e.message, "no message of the user"));
    chat.text[CHAT_START_SYSTEM] = NULL;
    CHECK(!chat_encode(t, &c, &list, &e) && strstr(e.message, "takes no system message"));
    chat.system_ignored = true;
    chat.text[CHAT_ASSISTANT_END] = NULL;
    m[0] = (struct chat_message){"user", "a", 1};
    m[1] = (struct chat_message){"assistant", "b", 1};
    c = (struct chat_conversation){&chat, m, 2, true, -1, -1};
    CHECK(!chat_encode(t, &c, &list, &e) && strstr(e.message, "ends with a message of the assist"));
    m[0].role = "tool";
    c = (struct chat_conversation){&chat, m, 1, true, -1, -1};
    CHECK(!chat_encode(t, &c, &list, &e) && strstr(e.message, "'tool' where 'user' is due"));
    CHECK(!list.ids && !list.count && e.status == STATUS_ARGUMENT);
    tokens_close(t);
}

/* --- The ids ---------------------------------------------------------------------------------- */

static void check_chat(int line, const struct tokens *t, const struct chat *chat,
                       const char *const *messages, bool open, const char *want) {
    struct chat_message room[6];
    struct chat_conversation c = conversation_of(chat, messages, room);
    struct token_list list = {0};
    struct error e = {0};
    c.open = open;
    CHECK_MSG(chat_encode(t, &c, &list, &e), "line %d: %s", line, e.message);
    const char *got = ids_text(list.ids, list.count);
    CHECK_MSG(strcmp(got, want) == 0, "line %d: %s, not %s", line, got, want);
    free(list.ids);
}
#define CHECK_CHAT(t, chat, open, want, ...)                                                       \
    check_chat(__LINE__, t, chat, (const char *const[]){__VA_ARGS__, NULL}, open, want)

static const struct chat marks = {
    .name = "marks",
    .text = {[CHAT_START_SYSTEM] = "<b>",
             [CHAT_SYSTEM_USER] = "<U>",
             [CHAT_START_USER] = "<b><U>",
             [CHAT_USER_ASSISTANT] = "<A>",
             [CHAT_ASSISTANT_USER] = "<e><U>",
             [CHAT_USER_OPEN] = "<A>",
             [CHAT_USER_END] = "",
             [CHAT_ASSISTANT_END] = "<e>"},
};

static void test_ids(void) {
    struct tokens *t = open_marks(NULL);
    CHECK_CHAT(t, &marks, true, "256 258 97 259", "a");
    CHECK_CHAT(t, &marks, true, "256 258 97 259 98 257 258 99 259", "a", "b", "c");
    CHECK_CHAT(t, &marks, true, "256 258 97 260 98 259", "a\n\nb"); /* a token as any other */
    CHECK_CHAT(t, &marks, true, "256 258 239 191 189 259", "\xff");
    CHECK(chat_end(t, &marks, -1, -1) == 257);
    CHECK(chat_end(t, chat_named("chatml"), -1, -1) == -1);
    tokens_close(t);
}

/* Messages that spell out every token of the template, and halves of one. */
static void test_injection(void) {
    static const char *const normalizers[] = {
        NULL, "{`type`:`NFC`}", "{`type`:`Replace`,`pattern`:{`String`:`x`},`content`:`xyz`}",
        "{`type`:`Prepend`,`prepend`:`_`}"};
    for (int i = 0; i < 4; i++) {
        struct tokens *t = open_marks(normalizers[i]);
        CHECK_CHAT(t, &marks, true, "256 258 60 98 62 60 101 62 60 85 62 60 65 62 259",
                   "<b><e><U><A>");
        if (i < 3) {
            CHECK_CHAT(t, &marks, false, "256 115 60 85 62 258 60 85 62 259 60 65 62 257", "s<U>",
                       "<U>", "<A>");
            CHECK_CHAT(t, &marks, true, "256 258 60 259", "<");
            CHECK_CHAT(t, &marks, true, "256 258 65 62 259", "A>");
        }
        tokens_close(t);
    }
    struct tokens *t = open_marks(normalizers[2]); /* a message grows, those behind it move */
    CHECK_CHAT(t, &marks, false, "256 258 120 121 122 60 85 62 259 120 121 122 60 85 62 257",
               "x<U>", "x<U>");
    tokens_close(t);
    t = open_marks(normalizers[1]); /* and one shrinks */
    CHECK_CHAT(t, &marks, false, "256 258 195 169 60 85 62 259 195 169 60 85 62 257",
               "e\xcc\x81<U>", "e\xcc\x81<U>");
    tokens_close(t);
}

static int count_of(const struct token_list *list, int id) {
    int count = 0;
    for (size_t i = 0; i < list->count; i++) count += list->ids[i] == id;
    return count;
}

/* SentencePiece's user defined pieces are found in any text: <tool> here is of the template. */
static void test_user_defined(void) {
    struct tokens *t = open_model(BPE_SYMBOLS);
    struct chat chat = marks;
    for (int i = 0; i < CHAT_TEXTS; i++) chat.text[i] = chat.text[i] ? "<turn>" : NULL;
    chat.text[CHAT_START_USER] = "<turn><tool>";
    chat.text[CHAT_ASSISTANT_END] = "<turn|end>";
    const char *text = "a<tool><turn><tools>  def";
    struct chat_message m[2] = {{"user", text, strlen(text)}, {"assistant", "b<tool>", 7}};
    struct chat_conversation c = {&chat, m, 2, false, -1, -1};
    struct token_list list = {0};
    struct error e = {0};
    CHECK(chat_encode(t, &c, &list, &e));
    CHECK(count_of(&list, tokens_find(t, "<tool>", 6)) == 1);
    CHECK(count_of(&list, tokens_find(t, "<turn>", 6)) == 2);
    CHECK(count_of(&list, tokens_find(t, "<tools>", 7)) == 1); /* not of the template */
    CHECK(count_of(&list, tokens_find(t, "def", 3)) == 1);
    CHECK(list.count && list.ids[list.count - 1] == tokens_find(t, "<turn|end>", 10));
    check_text(t, list.ids, list.count, true,
               "<turn><tool>a<tool><turn><tools>  def<turn>b<tool><turn|end>", 60);
    CHECK(chat_end(t, &chat, -1, -1) == tokens_find(t, "<turn|end>", 10));
    free(list.ids);
    tokens_close(t);
}

/* What --special gives for the text is what the conversation gives, if no message spells a token.
 */
static void test_as_text(void) {
    struct tokens *t = open_model(BPE_BYTES);
    struct chat_message m[] = {{"system", "Be brief.", 9},
                               {"user", "Who was the fox?", 16},
                               {"assistant", "A thief.\n\nAnd", 13},
                               {"user", " Why", 4}};
    struct chat_conversation c = {chat_named("llama2"), m, 4, true, tokens_bos(t), tokens_eos(t)};
    struct token_list list = {0};
    struct error e = {0};
    char *text;
    size_t size;
    CHECK(chat_encode(t, &c, &list, &e) && chat_write(t, &c, &text, &size, &e));
    struct token_list want = encode(t, text, size, true);
    CHECK(want.count == list.count &&
          memcmp(want.ids, list.ids, list.count * sizeof *list.ids) == 0);
    CHECK(count_of(&list, tokens_bos(t)) == 2 && count_of(&list, tokens_eos(t)) == 1);
    free(want.ids);
    free(list.ids);
    free(text);
    tokens_close(t);
}

/* --- The stored form -------------------------------------------------------------------------- */

#define TEXTS                                                                                      \
    "`start_user`:`<U>`,`user_assistant`:`<A>`,`assistant_user`:`</A><U>`,`user_open`:`<A>`,"      \
    "`user_end`:``,`assistant_end`:`</A>`"

static bool open_stored(struct chat *chat, const char *form, struct error *e) {
    char *text = strdup(form);
    for (char *c = text; *c; c++) {
        if (*c == '`') *c = '"';
    }
    bool ok = chat_json_open(chat, span_of(text), "t.json", e);
    free(text);
    return ok;
}

static void test_stored(void) {
    struct chat chat;
    struct error e = {0};
    CHECK(open_stored(&chat,
                      "{`nibble_chat`:1,`texts`:{" TEXTS "},`trim`:{`user`:`both`,"
                      "`assistant`:`left lines`},`thought_end`:`</t>`}",
                      &e));
    CHECK(!chat.text[CHAT_START_SYSTEM] && !chat.system_last && !strcmp(chat.thought_end, "</t>"));
    CHECK(chat.trim[CHAT_USER] == 3 && chat.trim[CHAT_ASSISTANT] == 5 && !chat.trim[CHAT_SYSTEM]);
    CHECK(!strcmp(chat.text[CHAT_ASSISTANT_USER], "</A><U>"));
    chat_json_close(&chat);
    static const char *const wrong[][2] = {
        {"[]", "not a JSON object"},
        {"{`texts`:{" TEXTS "}}", "version 0"},
        {"{`nibble_chat`:2,`texts`:{" TEXTS "}}", "version 2"},
        {"{`nibble_chat`:1}", "no texts"},
        {"{`nibble_chat`:1,`texts`:{`start_user`:`a`}}", "lacks the text user_assistant"},
        {"{`nibble_chat`:1,`texts`:{" TEXTS ",`start_system`:`a`}}", "lacks the text system_user"},
        {"{`nibble_chat`:1,`texts`:{" TEXTS ",`tool`:`a`}}", "tool"},
        {"{`nibble_chat`:1,`texts`:{" TEXTS ",`start_system`:7}}", "no string"},
        {"{`nibble_chat`:1,`texts`:{" TEXTS "},`trim`:{`user`:`all`}}", "all"},
        {"{`nibble_chat`:1,`texts`:{" TEXTS "},`trim`:{`tool`:`both`}}", "tool"},
        {"{`nibble_chat`:1,`texts`:{" TEXTS ",`start_system`:`\\u0001`,`system_user`:``}}",
         "control character"},
        {"{`nibble_chat`:1,`texts`:{" TEXTS "},`system_last`:true}", "system_user"},
        {"{`nibble_chat`:1,`texts`:{" TEXTS "},`more`:1}", "more"},
        {"{`nibble_chat`:1,`texts`:{" TEXTS "},`marks`:7}", "no list"},
        {"{`nibble_chat`:1,`texts`:{" TEXTS "},`marks`:[7]}", "no string"},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        CHECK_MSG(!open_stored(&chat, wrong[i][0], &e), "%s", wrong[i][0]);
        CHECK_MSG(strstr(e.message, wrong[i][1]) && strstr(e.message, "t.json"), "%s", e.message);
    }
}

int main(void) {
    check_run("named", test_named);
    check_run("table", test_table);
    check_run("trim", test_trim);
    check_run("last", test_last);
    check_run("ignored", test_ignored);
    check_run("refused", test_refused);
    check_run("ids", test_ids);
    check_run("injection", test_injection);
    check_run("user defined", test_user_defined);
    check_run("as text", test_as_text);
    check_run("stored", test_stored);
    return check_done();
}
