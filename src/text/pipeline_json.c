/* text/pipeline.h: reading a tokenizer.json. */
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "text/pipeline.h"

/* --- The model -------------------------------------------------------------------------------- */

static bool fail_piece(const struct json *in, int id, const char *why) {
    if (!*why) return json_no_memory(in);
    return fail(in->e, STATUS_FORMAT, "%s: id %d of the vocabulary %s; fetch it again", in->where,
                id, why);
}

/* In one go: cJSON looks a name up from the first on. */
static bool read_vocab(struct vocab *v, const cJSON *o, const struct json *in) {
    const cJSON *piece;
    int id = 0;
    if (!cJSON_IsObject(o)) return json_wrong(in, "its vocabulary is no object");
    cJSON_ArrayForEach(piece, o) {
        double value = cJSON_IsNumber(piece) ? piece->valuedouble : -1;
        if (!(value >= 0 && value < VOCAB_MAX_PIECES) || value != (int)value)
            return json_wrong(in, "an id of its vocabulary is no whole number from 0 to 4194303");
        const char *why = vocab_add(v, (int)value, piece->string, strlen(piece->string));
        if (why) return fail_piece(in, (int)value, why);
    }
    const char *why = vocab_index(v, &id);
    return !why || fail_piece(in, id, why);
}

/* "a b" or ["a", "b"]. */
static bool read_pair(const cJSON *merge, struct span *left, struct span *right) {
    const char *text = cJSON_GetStringValue(merge), *other;
    const cJSON *first = cJSON_IsArray(merge) ? merge->child : NULL;
    if (first && first->next && !first->next->next) {
        text = cJSON_GetStringValue(first);
        other = cJSON_GetStringValue(first->next);
    } else {
        const char *space = text ? strchr(text, ' ') : NULL;
        other = space ? space + 1 : NULL;
        if (other && strchr(other, ' ')) other = NULL;
    }
    if (!text || !other) return false;
    size_t size = first ? strlen(text) : (size_t)(other - 1 - text);
    *left = (struct span){(const unsigned char *)text, size};
    *right = (struct span){(const unsigned char *)other, strlen(other)};
    return true;
}

static int find_span(const struct vocab *v, struct span text) {
    return vocab_find(v, (const char *)text.data, text.size);
}

static int shown(struct span text) {
    return text.size < 100 ? (int)text.size : 100;
}

static bool read_merge(struct bpe *b, const cJSON *merge, uint32_t rank, struct bytes *joined,
                       const struct json *in) {
    struct span left, right;
    if (!read_pair(merge, &left, &right)) return json_wrong(in, "a merge is not of two pieces");
    bytes_clear(joined);
    bytes_add(joined, (const char *)left.data, left.size);
    bytes_add(joined, (const char *)right.data, right.size);
    if (joined->failed) return json_no_memory(in);
    int l = find_span(b->vocab, left), r = find_span(b->vocab, right);
    int made = vocab_find(b->vocab, joined->data, joined->size);
    if (l >= 0 && r >= 0 && made >= 0) {
        bpe_merge(b, rank, l, r, made);
        return true;
    }
    return fail(in->e, STATUS_FORMAT,
                "%s: the merge of %.*s and %.*s is not of the vocabulary; fetch it again",
                in->where, shown(left), (const char *)left.data, shown(right),
                (const char *)right.data);
}

static bool read_merges(struct bpe *b, const cJSON *list, const struct json *in) {
    const cJSON *merge;
    struct bytes joined = {0};
    uint32_t rank = 0;
    bool ok = true;
    if (!cJSON_IsArray(list)) return json_wrong(in, "it has no list of merges");
    if (!bpe_open(b, (size_t)cJSON_GetArraySize(list))) return json_no_memory(in);
    cJSON_ArrayForEach(merge, list) {
        const char *text = cJSON_GetStringValue(merge);
        if (text && strncmp(text, "#version", 8) == 0) continue;
        if (!(ok = read_merge(b, merge, rank++, &joined, in))) break;
    }
    bytes_free(&joined);
    return ok;
}

static void find_bytes(struct bpe *b, bool fallback) {
    for (int byte = 0; byte < 256; byte++) {
        char name[8];
        snprintf(name, sizeof name, "<0x%02X>", (unsigned)byte);
        b->bytes[byte] = fallback ? vocab_find(b->vocab, name, 6) : -1;
    }
}

static bool check_dropout(const cJSON *o, const struct json *in) {
    const cJSON *dropout = json_find(o, "dropout");
    if (!dropout || (cJSON_IsNumber(dropout) && dropout->valuedouble == 0)) return true;
    return json_refuse(in, "dropout");
}

static bool read_model(struct pipeline *p, const cJSON *o, const struct json *in) {
    struct bpe *b = &p->bpe;
    const char *type = json_type(o);
    bool fallback = false;
    if (!o) return json_wrong(in, "there is none");
    if (strcmp(type, "BPE") != 0 && (*type || !json_find(o, "merges")))
        return json_refuse(in, type);
    *b = (struct bpe){.vocab = &p->vocab, .unknown = -1};
    if (!json_only(in, o,
                   "type dropout unk_token fuse_unk byte_fallback ignore_merges vocab "
                   "merges") ||
        !check_dropout(o, in) || !json_flag(in, o, "fuse_unk", &b->fuse_unknown) ||
        !json_flag(in, o, "byte_fallback", &fallback) ||
        !json_flag(in, o, "ignore_merges", &b->ignore_merges) ||
        !read_vocab(&p->vocab, json_find(o, "vocab"), in) ||
        !read_merges(b, json_find(o, "merges"), in))
        return false;
    find_bytes(b, fallback);
    return true;
}

/* --- Added tokens ----------------------------------------------------------------------------- */

static bool read_token(struct pipeline_token *t, const cJSON *o, const struct json *in) {
    const char *text = json_text(o, "content");
    struct added_token *token = &t->token;
    token->id = -1;
    if (!text) return json_wrong(in, "one of them has no content");
    token->text = text;
    token->size = strlen(text);
    if (!json_only(in, o, "id content single_word lstrip rstrip normalized special") ||
        !json_integer(in, o, "id", VOCAB_MAX_PIECES - 1, &token->id) ||
        !json_flag(in, o, "single_word", &token->single_word) ||
        !json_flag(in, o, "lstrip", &token->lstrip) ||
        !json_flag(in, o, "rstrip", &token->rstrip) ||
        !json_flag(in, o, "special", &token->special))
        return false;
    t->normalized = !token->special;
    if (!json_flag(in, o, "normalized", &t->normalized)) return false;
    return token->id >= 0 || json_wrong(in, "one of them has no id");
}

/* A token without a text is in no text. */
static bool read_tokens(struct pipeline *p, const cJSON *list, struct pipeline_token **tokens,
                        size_t *count, const struct json *in) {
    const cJSON *each;
    *count = 0;
    *tokens = NULL;
    if (!list) return true;
    if (!cJSON_IsArray(list)) return json_wrong(in, "they are no list");
    *tokens = calloc((size_t)cJSON_GetArraySize(list) + 1, sizeof **tokens);
    if (!*tokens) return json_no_memory(in);
    cJSON_ArrayForEach(each, list) {
        struct pipeline_token *t = &(*tokens)[*count];
        if (!read_token(t, each, in)) return false;
        if (!t->token.size) continue;
        if (!pipeline_add(p, t, in)) return false;
        ++*count;
    }
    return true;
}

/* The unknown token may be an added one. */
static bool find_unknown(struct pipeline *p, const char *name, const struct pipeline_token *tokens,
                         size_t count, const struct json *in) {
    if (!name || !*name) return true;
    size_t size = strlen(name);
    p->bpe.unknown = vocab_find(&p->vocab, name, size);
    for (size_t i = 0; i < count && p->bpe.unknown < 0; i++) {
        const struct added_token *t = &tokens[i].token;
        if (t->size == size && memcmp(t->text, name, size) == 0) p->bpe.unknown = t->id;
    }
    return p->bpe.unknown >= 0 || json_wrong(in, "its unk_token is not in the vocabulary");
}

/* --- The file --------------------------------------------------------------------------------- */

static bool check_version(const cJSON *root, const struct json *in) {
    const char *version = json_text(root, "version");
    return !version || strcmp(version, "1.0") == 0 || json_refuse(in, version);
}

static bool read_file(struct pipeline *p, const cJSON *root, struct pipeline_token **tokens,
                      const char *where, struct error *e) {
    const struct json file = {where, "setting", e}, version = {where, "version", e},
                      model = {where, "model", e}, normalizer = {where, "normalizer", e},
                      splitter = {where, "pre_tokenizer", e}, added = {where, "added_tokens", e},
                      template = {where, "post_processor", e}, decoder = {where, "decoder", e};
    const cJSON *o = json_find(root, "model");
    size_t count;
    return json_only(&file, root,
                     "version added_tokens normalizer pre_tokenizer post_processor decoder "
                     "model") &&
           check_version(root, &version) && read_model(p, o, &model) &&
           normalize_open(&p->normalizer, json_find(root, "normalizer"), &normalizer) &&
           split_open(&p->splitter, json_find(root, "pre_tokenizer"), &splitter) &&
           decode_open(&p->decoder, json_find(root, "decoder"), &decoder) &&
           read_tokens(p, json_find(root, "added_tokens"), tokens, &count, &added) &&
           find_unknown(p, json_text(o, "unk_token"), *tokens, count, &model) &&
           template_open(&p->template, json_find(root, "post_processor"), &p->vocab, &template) &&
           pipeline_finish(p, *tokens, count, &added);
}

bool pipeline_json_open(struct pipeline *p, struct span file, const char *where, struct error *e) {
    struct pipeline_token *tokens = NULL;
    *p = (struct pipeline){0};
    cJSON *root = json_parse(file, json_sizes, where, e);
    if (!root) return false;
    bool ok = read_file(p, root, &tokens, where, e);
    free(tokens);
    cJSON_Delete(root);
    return ok;
}
