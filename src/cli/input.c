#include "cli/input.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/message.h"
#include "cli/options.h"

enum { MOST_BYTES = 1 << 30, PART = 1 << 20 };

static int out_of_memory(void) {
    message("not enough memory for the input");
    return EXIT_FAILED;
}

/* Whoever cannot go on because of a signal need not say so. */
static int refuse_file(const char *name, const char *what, const char *why) {
    if (message_interrupted()) return message_interrupted_exit();
    message("%s %s: %s", name, what, why);
    return EXIT_FAILED;
}

/* In parts, for a signal may come while there is always more to read. */
static int read_stream(FILE *f, const char *name, struct input_text *text) {
    size_t cap = 1 << 16, n = 1;
    *text = (struct input_text){.bytes = malloc(cap)};
    while (text->bytes && n && text->size <= MOST_BYTES && !message_interrupted()) {
        size_t room = cap - 1 - text->size;
        n = fread(text->bytes + text->size, 1, room < PART ? room : PART, f);
        text->size += n;
        if (text->size < cap - 1) continue;
        char *more = realloc(text->bytes, cap *= 2);
        if (!more) free(text->bytes);
        text->bytes = more;
    }
    if (!text->bytes) return out_of_memory();
    text->bytes[text->size] = 0;
    bool whole = text->size <= MOST_BYTES && !message_interrupted();
    if (whole && !ferror(f)) return EXIT_DONE;
    free(text->bytes);
    text->bytes = NULL;
    return refuse_file(name, "cannot be read", whole ? strerror(errno) : "it is larger than 1 GiB");
}

static int read_file(const char *path, struct input_text *text) {
    FILE *f = fopen(path, "rb");
    if (!f) return refuse_file(path, "cannot be opened", strerror(errno));
    int code = read_stream(f, path, text);
    fclose(f);
    return code;
}

static int hex(char c) {
    static const char digits[] = "0123456789abcdefABCDEF";
    const char *at = c ? strchr(digits, c) : NULL;
    if (!at) return -1;
    int value = (int)(at - digits);
    return value < 16 ? value : value - 6;
}

/* Replaces escapes in place; what is no escape stays as it is. */
static void unescape(struct input_text *text) {
    static const char letters[] = "ntr\\\"'", values[] = "\n\t\r\\\"'";
    char *to = text->bytes;
    const char *from = text->bytes;
    while (*from) {
        const char *letter = from[0] == '\\' && from[1] ? strchr(letters, from[1]) : NULL;
        if (letter) {
            *to++ = values[letter - letters];
            from += 2;
        } else if (from[0] == '\\' && from[1] == 'x' && hex(from[2]) >= 0 && hex(from[3]) >= 0) {
            *to++ = (char)(hex(from[2]) * 16 + hex(from[3]));
            from += 4;
        } else {
            *to++ = *from++;
        }
    }
    *to = 0;
    text->size = (size_t)(to - text->bytes);
}

static int copy_prompt(const struct args *a, struct input_text *text) {
    *text = (struct input_text){strdup(a->prompt), strlen(a->prompt)};
    if (!text->bytes) return out_of_memory();
    if (a->escapes) unescape(text);
    return EXIT_DONE;
}

int input_read(const struct args *a, bool drop_newline, struct input_text *text) {
    if (a->prompt && a->file) {
        message("-p and -f are both given; choose one");
        return EXIT_USAGE;
    }
    if (a->prompt) return copy_prompt(a, text);
    bool from_stdin = !a->file || strcmp(a->file, "-") == 0;
    if (!a->file && isatty(STDIN_FILENO)) {
        message("no text is given: use -p TEXT, -f FILE, or a pipe");
        return EXIT_USAGE;
    }
    int code = from_stdin ? read_stream(stdin, "stdin", text) : read_file(a->file, text);
    if (code == EXIT_DONE && drop_newline && text->size && text->bytes[text->size - 1] == '\n')
        text->size--;
    return code;
}

int input_ids(const char *text, nibble_ids *ids) {
    *ids = (nibble_ids){.ids = malloc((strlen(text) / 2 + 1) * sizeof(int))};
    char *copy = strdup(text), *rest = NULL;
    int code = ids->ids && copy ? EXIT_DONE : out_of_memory();
    char *word = code == EXIT_DONE ? strtok_r(copy, " ,\t\n", &rest) : NULL;
    for (; word; word = strtok_r(NULL, " ,\t\n", &rest)) {
        double id;
        if (!options_number(word, 0, 1 << 30, true, &id)) {
            message("'%s' is not a token id", word);
            code = EXIT_USAGE;
            break;
        }
        ids->ids[ids->count++] = (int)id;
    }
    free(copy);
    if (code == EXIT_DONE) return code;
    nibble_free(ids->ids);
    *ids = (nibble_ids){0};
    return code;
}

static bool adds_bos(const struct args *a, const nibble_tokenizer *t) {
    return a->bos || (!a->no_bos && nibble_tokenizer_adds_bos(t));
}

int input_tokenize(const struct args *a, const nibble_tokenizer *t, const struct input_text *text,
                   nibble_ids *ids) {
    if (a->bos && a->no_bos) {
        message("--bos and --no-bos are both given; choose one");
        return EXIT_USAGE;
    }
    int flags = a->special ? NIBBLE_SPECIAL : 0;
    if (adds_bos(a, t)) flags |= NIBBLE_BOS;
    nibble_error e;
    if (nibble_tokenize(t, text->bytes, text->size, flags, ids, &e)) return EXIT_DONE;
    return message_error(&e);
}

/* What BOS comes to: one token, or a few that do its work. */
static int count_lead(const nibble_tokenizer *t, size_t *lead) {
    nibble_error e;
    nibble_ids ids;
    if (!nibble_tokenize(t, "", 0, NIBBLE_BOS, &ids, &e)) return message_error(&e);
    *lead = ids.count;
    nibble_free(ids.ids);
    return EXIT_DONE;
}

static int given_ids(const struct args *a, const nibble_model *m, nibble_ids *ids, size_t *lead) {
    nibble_model_info info;
    nibble_model_describe(m, &info);
    int code = input_ids(a->ids, ids);
    *lead = code == EXIT_DONE && ids->count && ids->ids[0] == info.bos;
    return code;
}

bool input_json_nul(const char *text, size_t size) {
    for (size_t i = 0; i < size; i++) {
        if (text[i] == 0) return true;
        if (text[i] != '\\') continue;
        if (size - i > 5 && memcmp(text + i + 1, "u0000", 5) == 0) return true;
        i++; /* of two backslashes the second begins nothing */
    }
    return false;
}

int input_check_size(const struct args *a, const nibble_model *m, size_t bytes) {
    const nibble_tokenizer *t = nibble_model_tokenizer(m);
    nibble_model_info info;
    nibble_model_describe(m, &info);
    size_t least = t ? nibble_tokens_least(t, bytes) : 0;
    size_t context = a->context ? (size_t)a->context : info.context;
    if (least <= context) return EXIT_DONE;
    message("at least %zu tokens do not fit the context of %zu%s; raise --ctx-size or shorten them",
            least, context, context < info.context ? "" : ", the model's own");
    return EXIT_CONTEXT;
}

int input_text_ids(const struct args *a, const nibble_model *m, bool fits, nibble_ids *ids,
                   size_t *lead, size_t *bytes) {
    const nibble_tokenizer *t = nibble_model_tokenizer(m);
    struct input_text text = {0};
    *lead = *bytes = 0;
    if (a->ids) return given_ids(a, m, ids, lead);
    if (!t) {
        message("%s has no tokenizer; give the text as token ids with --ids", a->words[0]);
        return EXIT_FAILED;
    }
    int code = input_read(a, false, &text);
    if (code == EXIT_DONE && fits) code = input_check_size(a, m, text.size);
    if (code == EXIT_DONE) code = input_tokenize(a, t, &text, ids);
    if (code == EXIT_DONE && adds_bos(a, t)) code = count_lead(t, lead);
    *bytes = text.size;
    free(text.bytes);
    return code;
}
