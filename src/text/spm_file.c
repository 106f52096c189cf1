#include "text/spm_file.h"

#include <stdint.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "text/charsmap.h"

enum {
    MAX_BYTES = 64 << 20, /* vocabularies of 256000 pieces take 5 MB */
    MAX_PIECES = 4 << 20,
    MAX_NESTED = 64, /* kResultSize in PrefixMatcher::PrefixMatch */
};

enum wire { VARINT = 0, FIXED64 = 1, BYTES = 2, FIXED32 = 5 };

struct field {
    uint32_t number;
    enum wire wire;
    uint64_t value;    /* of a VARINT */
    struct span bytes; /* of BYTES */
    struct span whole; /* with its tag */
};

struct user_defined {
    struct span text;
    int id;
};

struct reader {
    struct spm_file *file;
    struct span charsmap, unknown;
    struct user_defined *user_defined; /* pieces */
    size_t user_defined_count, user_defined_room, pieces;
};

struct piece {
    struct span text;
    int type;
};

enum { TYPE_NORMAL = 1, TYPE_USER_DEFINED = 4, TYPE_LAST = 6 };

static const char malformed[] = "it is damaged, cut short or of another format";
static const char no_memory[] = "";

static bool read_varint(struct span *in, uint64_t *value) {
    *value = 0;
    for (unsigned shift = 0; shift < 70 && in->size; shift += 7) {
        unsigned char byte = *in->data++;
        in->size--;
        *value |= (uint64_t)(byte & 0x7f) << shift;
        if (byte < 0x80) return true;
    }
    return false;
}

/* Takes one field off *in. Groups do not occur in this format and are refused. */
static bool read_field(struct span *in, struct field *f) {
    struct span start = *in;
    uint64_t tag, size = 0;
    if (!read_varint(in, &tag) || tag > UINT32_MAX || tag < 8) return false;
    f->number = (uint32_t)tag >> 3;
    f->wire = (enum wire)(tag & 7);
    f->value = 0;
    switch (f->wire) {
    case VARINT:
        if (!read_varint(in, &f->value)) return false;
        break;
    case BYTES:
        if (!read_varint(in, &size)) return false;
        break;
    case FIXED64: size = 8; break;
    case FIXED32: size = 4; break;
    default: return false;
    }
    if (size > in->size) return false;
    f->bytes = (struct span){in->data, (size_t)size};
    in->data += size;
    in->size -= (size_t)size;
    f->whole = (struct span){start.data, start.size - in->size};
    return true;
}

typedef const char *visit(void *arg, const struct field *f);

/* Calls each(arg, field) for the fields of a message until one finds fault. A field may occur
 * again and the last one counts, as in protobuf. */
static const char *read_message(struct span in, visit *each, void *arg) {
    struct field f;
    while (in.size) {
        if (!read_field(&in, &f)) return malformed;
        const char *why = each(arg, &f); /* a constant, nothing of f */
        // cppcheck-suppress returnDanglingLifetime
        if (why) return why;
    }
    return NULL;
}

static const char *set_bytes(struct span *to, const struct field *f) {
    if (f->wire != BYTES) return malformed;
    *to = f->bytes;
    return NULL;
}

static const char *set_bool(bool *to, const struct field *f) {
    if (f->wire != VARINT) return malformed;
    *to = f->value != 0;
    return NULL;
}

/* Pieces are put in order by it, or it is added up: infinities of both signs would become NaN. */
static const char *check_score(const struct field *f) {
    float score;
    if (f->wire != FIXED32) return malformed;
    memcpy(&score, f->bytes.data, sizeof score);
    return isfinite(score) ? NULL : "a piece's score is NaN or infinite";
}

static const char *piece_field(void *arg, const struct field *f) {
    struct piece *p = arg;
    if (f->number == 1) return set_bytes(&p->text, f);
    if (f->number == 2) return check_score(f);
    if (f->number != 3) return NULL;
    if (f->wire != VARINT) return malformed;
    int32_t type = (int32_t)(uint32_t)f->value;
    if (type >= TYPE_NORMAL && type <= TYPE_LAST) p->type = type; /* else unknown to protobuf */
    return NULL;
}

static const char *trainer_field(void *arg, const struct field *f) {
    struct reader *r = arg;
    switch (f->number) {
    case 35: return set_bool(&r->file->byte_fallback, f);
    case 44: return set_bytes(&r->unknown, f);
    default: return NULL;
    }
}

static const char *normalizer_field(void *arg, const struct field *f) {
    struct reader *r = arg;
    switch (f->number) {
    case 2: return set_bytes(&r->charsmap, f);
    case 3: return set_bool(&r->file->dummy_prefix, f);
    case 4: return set_bool(&r->file->single_spaces, f);
    default: return NULL;
    }
}

static const char *keep_user_defined(struct reader *r, struct span text) {
    if (memchr(text.data, 0, text.size)) return "a user defined piece holds a NUL";
    if (r->user_defined_count == r->user_defined_room) {
        size_t room = r->user_defined_room ? 2 * r->user_defined_room : 64;
        struct user_defined *grown = realloc(r->user_defined, room * sizeof *grown);
        if (!grown) return no_memory;
        r->user_defined = grown;
        r->user_defined_room = room;
    }
    r->user_defined[r->user_defined_count++] = (struct user_defined){text, (int)r->pieces - 1};
    return NULL;
}

static const char *read_piece(struct reader *r, struct span message) {
    struct piece p = {.type = TYPE_NORMAL};
    const char *why = read_message(message, piece_field, &p);
    if (why) return why;
    if (++r->pieces > MAX_PIECES) return "it has more than 4194304 pieces";
    if (!p.text.size) return "a piece is empty";
    if (p.text.size > SPM_FILE_MAX_PIECE) return "a piece is longer than 1024 bytes";
    return p.type == TYPE_USER_DEFINED ? keep_user_defined(r, p.text) : NULL;
}

static const char *model_field(void *arg, const struct field *f) {
    struct reader *r = arg;
    if (f->number < 1 || f->number > 3) return NULL; /* self-test, denormalizer: not kept */
    if (f->wire != BYTES) return malformed;
    memcpy(r->file->kept + r->file->kept_size, f->whole.data, f->whole.size);
    r->file->kept_size += f->whole.size;
    if (f->number == 1) return read_piece(r, f->bytes);
    return read_message(f->bytes, f->number == 2 ? trainer_field : normalizer_field, r);
}

static int by_text(const void *a, const void *b) {
    const struct span *x = &((const struct user_defined *)a)->text;
    const struct span *y = &((const struct user_defined *)b)->text;
    int order = memcmp(x->data, y->data, x->size < y->size ? x->size : y->size);
    return order ? order : (x->size > y->size) - (x->size < y->size);
}

static bool is_prefix(struct span p, struct span of) {
    return p.size <= of.size && memcmp(p.data, of.data, p.size) == 0;
}

/* In sorted order the prefixes of a piece are those pieces before it that are still open. */
static const char *check_nesting(struct reader *r) {
    struct span open[MAX_NESTED];
    size_t depth = 0;
    if (r->user_defined_count) {
        qsort(r->user_defined, r->user_defined_count, sizeof *r->user_defined, by_text);
    }
    for (size_t i = 0; i < r->user_defined_count; i++) {
        while (depth && !is_prefix(open[depth - 1], r->user_defined[i].text)) depth--;
        if (depth == MAX_NESTED) return "more than 64 user defined pieces begin with each other";
        open[depth++] = r->user_defined[i].text;
    }
    return NULL;
}

static const char *keep_ids(struct reader *r) {
    struct spm_file *f = r->file;
    f->user_defined = malloc((r->user_defined_count + 1) * sizeof *f->user_defined);
    if (!f->user_defined) return no_memory;
    for (size_t i = 0; i < r->user_defined_count; i++) f->user_defined[i] = r->user_defined[i].id;
    f->user_defined_count = r->user_defined_count;
    return NULL;
}

static const char *read_model(struct reader *r, struct span model) {
    if (!model.size) return "it is empty";
    if (model.size > MAX_BYTES) return "it is larger than 64 MiB";
    r->file->kept = malloc(model.size);
    if (!r->file->kept) return no_memory;
    const char *why = read_message(model, model_field, r);
    if (!why) why = check_nesting(r);
    if (!why) why = keep_ids(r);
    if (!why) why = charsmap_check(r->charsmap, &r->file->growth);
    r->file->rules = r->charsmap.size != 0;
    if (why) return why;
    if (r->unknown.size > SPM_FILE_MAX_PIECE)
        return "its unknown surface is longer than 1024 bytes";
    memcpy(r->file->unknown, r->unknown.data, r->unknown.size);
    return NULL;
}

const char *spm_file_read(struct spm_file *f, struct span model) {
    static const char question_marks[] = " \xe2\x81\x87 ";
    struct reader r = {.file = f};
    r.unknown = (struct span){(const unsigned char *)question_marks, sizeof question_marks - 1};
    memset(f, 0, sizeof *f);
    f->dummy_prefix = f->single_spaces = true; /* the defaults of the format */
    f->growth = 3; /* a space becomes U+2581, a byte that is no UTF-8 becomes U+FFFD */
    const char *why = read_model(&r, model);
    free(r.user_defined);
    return why;
}

void spm_file_drop(struct spm_file *f) {
    free(f->kept);
    f->kept = NULL;
}

void spm_file_close(struct spm_file *f) {
    spm_file_drop(f);
    free(f->user_defined);
    f->user_defined = NULL;
}
