/* Chat templates and conversations: a template in its stored form or the name of a built-in one, a
 * NUL, and a list of messages. Whatever messages say, the control tokens are the template's. */
#include "cli/prompt.h"

#include <cjson/cJSON.h>

#include "../text/pipeline.h"
#include "api/handles.h"
#include "base/utf8.h"
#include "cli/message.h"
#include "mutate.h"

enum { TOKENIZERS = 2, MARKS = 0 };

static struct tokens *tokenizers[TOKENIZERS];
static nibble_model *model; /* its template and tokenizer change with each conversation */
static char complaint[1024];

static void open_all(void) {
    nibble_error e;
    model = nibble_model_open("tests/fuzz/corpus/model/quantized", &e);
    tokenizers[MARKS] = open_marks(NULL);
    tokenizers[1] = open_model(BPE_SYMBOLS);
    if (!model) exit(1);
    tokens_close(model->tokenizer.tokens);
    message_capture(complaint, sizeof complaint);
}

/* --- a conversation --------------------------------------------------------------------------- */

struct rendering {
    struct input_text text;
    nibble_ids ids;
};

static void close_rendering(struct rendering *r) {
    free(r->text.bytes);
    nibble_free(r->ids.ids);
}

static void check_utf8(const struct input_text *text) {
    for (size_t i = 0, length; i < text->size; i += length) {
        length = utf8_sequence(text->bytes + i, text->size - i);
        if (!length) abort();
    }
}

/* Bytes and marks spell what they were made from. */
static void check_spelling(const struct tokens *t, const struct rendering *r) {
    size_t size;
    char *text = decode(t, r->ids.ids, r->ids.count, true, &size);
    if (size != r->text.size || memcmp(text, r->text.bytes, size) != 0) abort();
    free(text);
}

/* As --messages does it. */
static bool render(const struct args *a, const cJSON *list, struct rendering *r) {
    const struct session s = {.model = model, .tokenizer = &model->tokenizer};
    *complaint = 0;
    *r = (struct rendering){0};
    if (prompt_wrap_list(a, &s, "messages.json", list, &r->text, &r->ids) == EXIT_DONE) {
        check_utf8(&r->text);
        return true;
    }
    if (!*complaint) abort();
    for (const char *c = complaint; *c; c++) {
        if ((unsigned char)*c < ' ') abort();
    }
    return false;
}

/* --- control tokens --------------------------------------------------------------------------- */

static void say(cJSON *list, const char *text) {
    cJSON *each;
    cJSON_ArrayForEach(each, list)
        cJSON_SetValuestring(cJSON_GetObjectItemCaseSensitive(each, "content"), text);
}

static size_t count_of(const nibble_ids *ids, int id) {
    size_t count = 0;
    for (size_t i = 0; i < ids->count; i++) count += ids->ids[i] == id;
    return count;
}

static bool spells(const struct tokens *t, const char *text, int id) {
    struct token_list list = {0};
    struct error e;
    bool ok = text && tokens_encode(t, text, strlen(text), true, &list, &e);
    size_t count = ok ? count_of(&(nibble_ids){list.ids, list.count}, id) : 0;
    free(list.ids);
    return count > 0;
}

/* Whether messages may not contain it: all that looks like <this> in the template. */
static bool is_barred(const struct tokens *t, const struct chat *chat, int id) {
    const cJSON *mark;
    size_t size;
    const char *name = tokens_name(t, id, &size);
    if (tokens_is_control(t, id)) return true;
    if (!size || *name != '<' || !tokens_is_added(t, id)) return false;
    for (int i = 0; i < CHAT_TEXTS; i++) {
        if (spells(t, chat->text[i], id)) return true;
    }
    cJSON_ArrayForEach(mark, chat->marks) {
        if (spells(t, mark->valuestring, id)) return true;
    }
    return false;
}

/* No more of them than with empty messages, where the template's texts meet and may spell further
 * ones, and no less than with messages that touch none. */
static void check_tokens(const struct tokens *t, const struct chat *chat, const nibble_ids *said,
                         const nibble_ids *empty, const nibble_ids *plain) {
    for (size_t i = 0; i < said->count; i++) {
        int id = said->ids[i];
        if (id < 0 || id >= tokens_count(t)) abort();
        if (count_of(said, id) > count_of(empty, id) && is_barred(t, chat, id)) abort();
    }
    for (size_t i = 0; i < plain->count; i++) {
        int id = plain->ids[i];
        if (count_of(said, id) < count_of(plain, id) && is_barred(t, chat, id)) abort();
    }
}

/* --- the target ------------------------------------------------------------------------------- */

static void converse(const struct args *a, const struct tokens *t, const struct chat *chat,
                     const cJSON *list) {
    struct rendering said, empty, plain;
    const char *word = chat->thought_end && strcmp(chat->thought_end, "a") == 0 ? "b" : "a";
    cJSON *other = cJSON_Duplicate(list, true);
    if (render(a, list, &said)) {
        if (t == tokenizers[MARKS]) check_spelling(t, &said);
        say(other, "");
        if (!render(a, other, &empty)) abort();
        say(other, word);
        if (!render(a, other, &plain)) abort();
        check_tokens(t, chat, &said.ids, &empty.ids, &plain.ids);
        close_rendering(&empty);
        close_rendering(&plain);
    }
    close_rendering(&said);
    cJSON_Delete(other);
}

static void talk(const struct args *a, const struct chat *chat, const cJSON *list) {
    for (int i = 0; i < TOKENIZERS; i++) {
        struct tokens *t = tokenizers[i];
        int bos = tokens_bos(t), eos = tokens_eos(t), end = chat_end(t, chat, bos, eos);
        if (end != -1 && !tokens_is_added(t, end)) abort();
        model->tokenizer = (nibble_tokenizer){.tokens = t, .bos = bos, .eos = eos};
        converse(a, t, chat, list);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (!model) open_all();
    struct args a = {.messages = "messages.json", .show_prompt = true};
    struct error e = {0};
    char *form = malloc(size + 1);
    memcpy(form, data, size);
    form[size] = 0;
    size_t length = strlen(form), rest = size > length ? length + 1 : size;
    const struct chat *chat = chat_named(form);
    a.template = chat ? form : NULL;
    bool stored =
        !chat && chat_json_open(&model->chat, (struct span){(const unsigned char *)form, length},
                                "chat_segments.json", &e);
    fuzz_check(chat || stored, &e);
    cJSON *list = cJSON_ParseWithLength(form + rest, size - rest);
    if (chat || stored) talk(&a, chat ? chat : &model->chat, list);
    cJSON_Delete(list);
    chat_json_close(&model->chat);
    free(form);
    return 0;
}

/* --- changing --------------------------------------------------------------------------------- */

/* Puts what may go wrong into a string: tokens, parts of them, what normalizing makes tokens of,
 * what is trimmed. */
static size_t put_word(uint8_t *data, size_t size, size_t cap) {
    static const char *const words[] = {
        "<b>",   "<e>",      "<U>",          "<A>",      "<",       "U>",           "<s>",
        "</s>",  "<turn>",   "<turn|end>",   "<tool>",   "<tools>", "def",          "<tu",
        "rn>",   " ",        "\\n",          "\\n\\n",   "\\t",     "\\u001c",      "\\u0001",
        "</t>",  "\xcc\xb8", "e\xcc\x81",    "\xc2\xa0", "\xff",    "\xef\xbc\x9c", "\\ud800",
        "<unk>", "<0x0A>",   "\xe2\x96\x81", "\\u0002",  "\\u003c"};
    static struct json_token t[JSON_TOKENS];
    const char *word = words[mutate_below(sizeof words / sizeof *words)];
    size_t count = mutate_json_scan(data, size, t), i = mutate_below(count);
    for (int tries = 0; tries < 20 && count && t[i].kind != '"'; tries++) i = mutate_below(count);
    if (!count || t[i].kind != '"') return size;
    size_t at = t[i].at + 1 + (t[i].size < 3 ? 0 : mutate_below(t[i].size - 1));
    return mutate_splice(data, size, cap, at, 0, word, strlen(word));
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t cap, unsigned seed) {
    static uint8_t half[1 << 16];
    mutate_state = seed;
    const uint8_t *nul = size ? memchr(data, 0, size) : NULL;
    if (!nul || mutate_below(32) == 0) return LLVMFuzzerMutate(data, size, cap);
    size_t middle = (size_t)(nul - data), at = mutate_below(2) ? 0 : middle + 1;
    size_t length = at ? size - at : middle;
    if (length > sizeof half / 2) return LLVMFuzzerMutate(data, size, cap);
    memcpy(half, data + at, length);
    size_t now = mutate_below(2) ? mutate_json(half, length, sizeof half)
                                 : put_word(half, length, sizeof half);
    return mutate_splice(data, size, cap, at, length, half, now);
}
