/* Archives: what libzip finds in them, where their members lie, what they inflate to. */
#include "store/npz.h"

#include "archive.h"

static void look(const struct npz *npz) {
    for (size_t i = 0; i < npz->count; i++) {
        const struct npz_member *m = &npz->members[i];
        uintptr_t begin = (uintptr_t)npz->file.data, at = (uintptr_t)m->bytes.data;
        bool inside = at >= begin && at - begin <= npz->file.size &&
                      m->bytes.size <= npz->file.size - (at - begin);
        if (!m->bytes.data || (m->mapped && m->bytes.size && !inside)) abort();
        fuzz_read(m->bytes);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct npz npz = {0};
    struct error e = {0};
    const char *path = fuzz_file("a.npz", data, size);
    bool ok = npz_open(&npz, path, &e);
    fuzz_check(ok, &e);
    struct npz_check check = {0};
    if (ok) look(&npz);
    if (ok && npz_check(&npz, &check, &e) && check.damaged) error_items_end(&e);
    npz_close(&npz);
    e = (struct error){0};
    if (npz_glance(&npz, path, &e)) look(&npz);
    npz_close(&npz);
    return 0;
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t cap, unsigned seed) {
    static struct archive a;
    static uint8_t out[ARCHIVE_CAP], member[ARCHIVE_CAP];
    mutate_state = seed;
    if (mutate_below(4) == 0) return LLVMFuzzerMutate(data, size, cap);
    if (size && mutate_below(2)) {
        for (size_t i = mutate_below(3) + 1; i; i--) archive_break(data, size);
        return size;
    }
    archive_read(&a, data, size);
    if (!a.count) return LLVMFuzzerMutate(data, size, cap);
    struct archive_member *m = &a.members[mutate_below(a.count)];
    switch (mutate_below(4)) {
    case 0: a.members[mutate_below(a.count)] = *m; break; /* a name twice */
    case 1:
        if (a.count < ARCHIVE_MOST) a.members[a.count++] = *m;
        break;
    case 2: *m = a.members[--a.count]; break;
    default:
        if (m->size > sizeof member / 2) break;
        memcpy(member, m->data, m->size);
        m->size = LLVMFuzzerMutate(member, m->size, m->size + 64);
        m->data = member;
    }
    size_t written = archive_write(&a, out, cap < sizeof out ? cap : sizeof out);
    if (!written) return size;
    memcpy(data, out, written);
    return written;
}
