/* text/pipeline.h: reading a tiktoken file, the tokenizer.model of Meta's third models.
 *
 * It holds nothing but the pieces, bytes in base64, and their ranks. The pattern and the special
 * tokens, whose ids follow, stand in the program that Meta ships with it
 * (models/llama3/tokenizer.py of meta-llama/llama-models). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "text/pipeline.h"
#include "text/unicode.h"

enum { SPECIAL = 256 };

static const char pattern[] = "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|"
                              "\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|"
                              "\\s+(?!\\S)|\\s+";

/* Then <|reserved_special_token_2|> and so on; the others are the first two of that name. */
static const char *const special[] = {
    "<|begin_of_text|>",
    "<|end_of_text|>",
    "<|reserved_special_token_0|>",
    "<|reserved_special_token_1|>",
    "<|finetune_right_pad_id|>",
    "<|step_id|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eom_id|>",
    "<|eot_id|>",
    "<|python_tag|>",
};
enum { NAMED = sizeof special / sizeof *special };

/* --- Lines ------------------------------------------------------------------------------------ */

static int value_of(unsigned char c) {
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const char *found = c ? strchr(digits, c) : NULL;
    return found ? (int)(found - digits) : -1;
}

struct line {
    struct bytes piece;
    int rank;
};

/* Base64 with its padding, RFC 4648; returns what follows it, or NULL. */
static const unsigned char *read_base64(const unsigned char *at, const unsigned char *end,
                                        struct bytes *out) {
    uint32_t bits = 0;
    int count = 0, padding = 0;
    for (; at < end && value_of(*at) >= 0; at++) {
        bits = bits << 6 | (uint32_t)value_of(*at);
        char bytes[3] = {(char)(bits >> 16), (char)(bits >> 8), (char)bits};
        if (++count % 4 == 0) bytes_add(out, bytes, 3);
    }
    for (; at < end && *at == '='; at++) padding++;
    int rest = count % 4;
    if (rest == 1 || padding != (4 - rest) % 4 || !count) return NULL;
    bits <<= 6 * (4 - rest);
    char bytes[2] = {(char)(bits >> 16), (char)(bits >> 8)};
    if (rest) bytes_add(out, bytes, (size_t)rest - 1);
    return at;
}

/* Reads "BASE64 RANK" and the end of the line, and moves *text behind it. */
static bool read_line(struct span *text, struct line *line) {
    const unsigned char *at = text->data, *end = at + text->size;
    bytes_clear(&line->piece);
    at = read_base64(at, end, &line->piece);
    if (!at || at == end || *at++ != ' ') return false;
    int digits = 0;
    for (line->rank = 0; at < end && *at >= '0' && *at <= '9' && digits < 8; at++, digits++)
        line->rank = 10 * line->rank + (*at - '0');
    if (at < end && *at == '\r') at++;
    if (!digits || (at < end && *at++ != '\n')) return false;
    *text = (struct span){at, (size_t)(end - at)};
    return true;
}

bool pipeline_tiktoken_begins(struct span file) {
    struct line line = {0};
    bool ok = file.size && read_line(&file, &line);
    bytes_free(&line.piece);
    return ok;
}

/* --- Opening ---------------------------------------------------------------------------------- */

static bool read_lines(struct vocab *v, struct span text, struct line *line, struct bytes *letters,
                       const struct json *in) {
    for (int number = 1; text.size; number++) {
        if (!read_line(&text, line))
            return fail(in->e, STATUS_FORMAT,
                        "%s: line %d is not of base64, a space and a rank; fetch it again",
                        in->where, number);
        bytes_clear(letters);
        unicode_to_alphabet(letters, line->piece.data, line->piece.size);
        if (letters->failed || line->piece.failed) return json_no_memory(in);
        const char *why = vocab_add(v, line->rank, letters->data, letters->size);
        if (why && !*why) return json_no_memory(in);
        if (why)
            return fail(in->e, STATUS_FORMAT, "%s: rank %d %s; fetch it again", in->where,
                        line->rank, why);
    }
    return true;
}

static bool check_vocab(struct vocab *v, const struct json *in) {
    int id = 0;
    const char *why = vocab_index(v, &id);
    if (why && !*why) return json_no_memory(in);
    if (why)
        return fail(in->e, STATUS_FORMAT, "%s: rank %d %s; fetch it again", in->where, id, why);
    if (v->known != (size_t)v->count) return json_wrong(in, "ranks are missing in it");
    for (int byte = 0; byte < 256; byte++) {
        struct bytes letter = {0};
        unicode_to_alphabet(&letter, (char[]){(char)byte}, 1);
        bool there = letter.size && vocab_find(v, letter.data, letter.size) >= 0;
        bytes_free(&letter);
        if (!there) return json_wrong(in, "a byte is missing in it");
    }
    return true;
}

/* Those that stop_tokens has there: eom_id and eot_id. */
static bool ends_answer(const char *name) {
    return strcmp(name, "<|eom_id|>") == 0 || strcmp(name, "<|eot_id|>") == 0;
}

static bool add_special(struct pipeline *p, const struct json *in) {
    struct pipeline_token tokens[SPECIAL] = {{{0}, false}};
    char names[SPECIAL][40];
    int first = p->vocab.count;
    for (int i = 0; i < SPECIAL; i++) {
        snprintf(names[i], sizeof names[i], "<|reserved_special_token_%d|>", i - NAMED + 2);
        if (i < NAMED) snprintf(names[i], sizeof names[i], "%s", special[i]);
        tokens[i].token = (struct added_token){
            .text = names[i], .size = strlen(names[i]), .id = first + i, .special = true};
        if (!pipeline_add(p, &tokens[i], in)) return false;
        if (ends_answer(names[i])) p->ends[p->end_count++] = first + i;
    }
    p->template.before[p->template.before_count++] = first;
    p->template.after[p->template.after_count++] = first + 1;
    return pipeline_finish(p, tokens, SPECIAL, in);
}

bool pipeline_tiktoken_open(struct pipeline *p, struct span file, const char *where,
                            struct error *e) {
    const struct json in = {where, "list of ranks", e};
    struct line line = {0};
    struct bytes letters = {0};
    *p = (struct pipeline){0};
    p->bpe =
        (struct bpe){.vocab = &p->vocab, .by_rank = true, .ignore_merges = true, .unknown = -1};
    for (int byte = 0; byte < 256; byte++) p->bpe.bytes[byte] = -1;
    bool ok = read_lines(&p->vocab, file, &line, &letters, &in);
    bytes_free(&line.piece);
    bytes_free(&letters);
    return ok && check_vocab(&p->vocab, &in) && split_open_bytes(&p->splitter, pattern, &in) &&
           decode_open_bytes(&p->decoder, &in) && add_special(p, &in);
}
