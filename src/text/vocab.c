#include "text/vocab.h"

#include <stdlib.h>
#include <string.h>

static const char no_memory[] = "";

struct vocab_piece {
    size_t offset;
    uint32_t size;
    bool known;
};

static uint64_t hash(const char *text, size_t size) {
    uint64_t h = 14695981039346656037u; /* FNV-1a, with its upper bits brought down */
    for (size_t i = 0; i < size; i++) h = (h ^ (unsigned char)text[i]) * 1099511628211u;
    return h ^ h >> 32;
}

static bool grow_pieces(struct vocab *v, int id) {
    if (id < v->room) return true;
    int room = id < v->room * 2 ? v->room * 2 : id + 256;
    struct vocab_piece *grown = realloc(v->pieces, (size_t)room * sizeof *grown);
    if (!grown) return false;
    memset(grown + v->room, 0, (size_t)(room - v->room) * sizeof *grown);
    v->pieces = grown;
    v->room = room;
    return true;
}

static bool grow_text(struct vocab *v, size_t size) {
    if (size <= v->text_room - v->text_size) return true;
    size_t room = v->text_size + size > 2 * v->text_room ? v->text_size + size : 2 * v->text_room;
    char *grown = realloc(v->text, room);
    if (!grown) return false;
    v->text = grown;
    v->text_room = room;
    return true;
}

const char *vocab_add(struct vocab *v, int id, const char *text, size_t size) {
    if (id < 0 || id >= VOCAB_MAX_PIECES) return "lies outside the range 0 to 4194303";
    if (size > VOCAB_MAX_PIECE) return "has a text of more than 4096 bytes";
    if (!grow_pieces(v, id) || !grow_text(v, size)) return no_memory;
    struct vocab_piece *p = &v->pieces[id];
    if (p->known) return "is there twice";
    *p = (struct vocab_piece){v->text_size, (uint32_t)size, true};
    if (size) memcpy(v->text + v->text_size, text, size);
    v->text_size += size;
    v->known++;
    if (id >= v->count) v->count = id + 1;
    return NULL;
}

/* The slot of a text, or the free one where it belongs. */
static size_t slot_of(const struct vocab *v, const char *text, size_t size) {
    size_t at = (size_t)hash(text, size) & (v->slot_count - 1);
    for (; v->slots[at]; at = (at + 1) & (v->slot_count - 1)) {
        const struct vocab_piece *p = &v->pieces[v->slots[at] - 1];
        if (p->size == size && memcmp(v->text + p->offset, text, size) == 0) break;
    }
    return at;
}

const char *vocab_index(struct vocab *v, int *id) {
    for (v->slot_count = 16; v->slot_count < 2 * v->known;) v->slot_count *= 2;
    v->slots = calloc(v->slot_count, sizeof *v->slots);
    if (!v->slots) return no_memory;
    for (int i = 0; i < v->count; i++) {
        const struct vocab_piece *p = &v->pieces[i];
        if (!p->known || !p->size) continue;
        size_t at = slot_of(v, v->text + p->offset, p->size);
        *id = i;
        if (v->slots[at]) return "has the same text as another";
        v->slots[at] = (uint32_t)i + 1;
        if (p->size > v->longest) v->longest = p->size;
    }
    return NULL;
}

int vocab_find(const struct vocab *v, const char *text, size_t size) {
    if (!size || size > v->longest) return -1;
    return (int)v->slots[slot_of(v, text, size)] - 1;
}

const char *vocab_text(const struct vocab *v, int id, size_t *size) {
    *size = 0;
    if (id < 0 || id >= v->count || !v->pieces[id].known) return NULL;
    *size = v->pieces[id].size;
    return v->text ? v->text + v->pieces[id].offset : "";
}

void vocab_close(struct vocab *v) {
    free(v->pieces);
    free(v->text);
    free(v->slots);
    *v = (struct vocab){0};
}
