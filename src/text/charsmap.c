#include "text/charsmap.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum {
    MAX_BYTES = 4 << 20, /* the largest rules that the trainer ships take 300 KB */
    MAX_KEY = 64,        /* bytes; a deeper trie is one with a cycle */
    MAX_RULES = 32,      /* that match at one place: kMaxTrieResultsSize in normalizer.h */
    MAX_TARGET = 255,    /* bytes of one replacement, so that a text cannot grow without bound */
    BLOCK = 256,         /* units; a double array comes in whole blocks */
};

struct trie {
    const unsigned char *units; /* 4 bytes each, little endian */
    size_t count;
    struct span targets;
    size_t growth;
    unsigned char *seen; /* a unit: 1 + the most rules on one path from it; 0 before its visit */
    const char *why;
};

static uint32_t load(const unsigned char *p) {
    return p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static uint32_t unit(const struct trie *t, size_t at) {
    return load(t->units + 4 * at);
}

static int refuse(struct trie *t, const char *why) {
    t->why = why;
    return -1;
}

static int check_target(struct trie *t, uint32_t at) {
    if (at >= t->targets.size) return refuse(t, "a normalization rule points outside the file");
    const unsigned char *text = t->targets.data + at;
    size_t room = t->targets.size - at, size = 0, cost = 0;
    for (; size < room && text[size] && size <= MAX_TARGET; size++)
        cost += text[size] == ' ' ? 3 : 1;
    if (size > MAX_TARGET) return refuse(t, "a normalization rule inserts more than 255 bytes");
    if (cost > t->growth) t->growth = cost;
    return 0;
}

/* Visits every unit that some text can lead to; -1 on a finding. A unit is entered once, and a
 * cycle ends at MAX_KEY, so this takes 256 steps a unit. */
static int walk(struct trie *t, size_t at, int depth) {
    if (depth > MAX_KEY) return refuse(t, "a normalization rule has no end");
    if (t->seen[at]) return t->seen[at] - 1;
    uint32_t u = unit(t, at);
    size_t base = at ^ (size_t)((u >> 10) << ((u & 1u << 9) >> 6));
    if ((base | (BLOCK - 1)) >= t->count) return refuse(t, "the normalization trie is broken");
    int most = 0;
    for (uint32_t c = 0; c < BLOCK; c++) {
        if ((unit(t, base ^ c) & 0x800000ffu) != c) continue;
        int rules = walk(t, base ^ c, depth + 1);
        if (rules < 0) return -1;
        if (rules > most) most = rules;
    }
    if (u >> 8 & 1) {
        if (check_target(t, unit(t, base) & 0x7fffffffu) < 0) return -1;
        most++;
    }
    if (most > MAX_RULES) return refuse(t, "too many normalization rules match at one place");
    t->seen[at] = (unsigned char)(most + 1);
    return most;
}

const char *charsmap_check(struct span blob, size_t *growth) {
    if (!blob.size) return NULL;
    if (blob.size > MAX_BYTES) return "its normalization rules take more than 4 MiB";
    size_t bytes = blob.size < 4 ? 0 : load(blob.data);
    if (!bytes || bytes % (4 * BLOCK) || bytes > blob.size - 4) {
        return "the size of its normalization trie is wrong";
    }
    struct trie t = {.units = blob.data + 4, .count = bytes / 4, .growth = *growth};
    t.targets = (struct span){blob.data + 4 + bytes, blob.size - 4 - bytes};
    t.seen = calloc(t.count, 1);
    if (!t.seen) return ""; /* not enough memory */
    walk(&t, 0, 0);
    free(t.seen);
    *growth = t.growth;
    return t.why;
}
