/* src/base but for threads (test_pool.c) and control groups (test_cgroup.c). */
#include <sched.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "base/arena.h"
#include "base/clock.h"
#include "base/cpu.h"
#include "base/map.h"
#include "base/memory.h"
#include "base/utf8.h"
#include "check.h"
#include "scratch.h"

/* --- utf8: the sequences that exist are those that encode a code point ------------------------ */

static size_t encode(uint32_t c, char out[4]) {
    static const unsigned char first[] = {0, 0, 0xc0, 0xe0, 0xf0};
    size_t n = c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    for (size_t i = n - 1; i > 0; i--, c >>= 6) out[i] = (char)(0x80 | (c & 0x3f));
    out[0] = (char)(n == 1 ? c : first[n] | c);
    return n;
}

static unsigned char lengths[1 << 24]; /* of the sequences of up to three bytes, packed */
static bool begins[1 << 24];           /* whether a sequence goes on after these bytes, packed */

static uint32_t pack(const char *p, size_t n) {
    uint32_t key = 0;
    for (size_t i = 0; i < n; i++) key = key << 8 | (unsigned char)p[i];
    return key;
}

static void note_sequences(void) {
    char s[4];
    for (uint32_t c = 0; c <= 0x10ffff; c++) {
        if (c >= 0xd800 && c < 0xe000) continue; /* surrogates */
        size_t n = encode(c, s);
        for (size_t k = 1; k < n; k++) begins[pack(s, k)] = true;
        if (n <= 3) lengths[pack(s, n)] = (unsigned char)n;
        CHECK(utf8_sequence(s, n) == n && utf8_sequence(s, n - 1) == 0);
        CHECK(utf8_complete(s, n) == n && utf8_complete(s, n - 1) == 0);
        if (!check_ok) return;
    }
}

static void test_utf8_sequence(void) {
    note_sequences();
    char s[4] = {0};
    for (uint32_t key = 0; key < 1 << 24; key++) {
        size_t want = 0;
        for (size_t i = 0; i < 3; i++) s[i] = (char)(key >> (16 - 8 * i));
        for (size_t n = 1; n <= 3 && !want; n++) {
            if (lengths[pack(s, n)] == n) want = n;
        }
        CHECK_MSG(utf8_sequence(s, 3) == want, "%06x: %zu", key, utf8_sequence(s, 3));
        if (!check_ok) return;
    }
    CHECK(utf8_sequence("\xf4\x90\x80\x80", 4) == 0 && utf8_sequence("\xf0\x8f\xbf\xbf", 4) == 0);
    CHECK(utf8_sequence("\xf0\x9f\x98\x41", 4) == 0 && utf8_sequence("\xf8\x88\x80\x80", 4) == 0);
    CHECK(utf8_sequence(NULL, 0) == 0);
}

static size_t plain_complete(const char *s, size_t n) {
    for (size_t back = n < 3 ? n : 3; back > 0; back--) {
        const char *tail = s + n - back;
        if (*tail && begins[pack(tail, back)]) return n - back;
    }
    return n;
}

static void test_utf8_complete(void) {
    static const char bytes[] =
        "\0A\x7f\x80\x8f\x90\x9f\xa0\xbf\xc0\xc1\xc2\xdf\xe0\xe1\xec\xed\xee"
        "\xef\xf0\xf1\xf3\xf4\xf5\xff";
    enum { BYTES = sizeof bytes - 1 };
    for (int code = 0; code < BYTES * BYTES * BYTES * BYTES; code++) {
        char s[4];
        for (int i = 0, rest = code; i < 4; i++, rest /= BYTES) s[i] = bytes[rest % BYTES];
        for (size_t n = 0; n <= 4; n++) {
            CHECK_MSG(utf8_complete(s, n) == plain_complete(s, n), "%08x: the first %zu bytes",
                      pack(s, 4), n);
        }
        if (!check_ok) return;
    }
}

/* --- arena ------------------------------------------------------------------------------------ */

static void lay_out(struct arena *a, unsigned char *pieces[4]) {
    static const size_t bytes[] = {1, 0, 64, 1000};
    for (int i = 0; i < 4; i++) {
        pieces[i] = arena_take(a, bytes[i], 1);
        for (size_t k = 0; pieces[i] && k < bytes[i]; k++) {
            CHECK(pieces[i][k] == 0);
            pieces[i][k] = 0xff;
        }
    }
}

static void test_arena(void) {
    struct arena count = {0}, a;
    struct error e;
    unsigned char *pieces[4];
    lay_out(&count, pieces);
    CHECK(count.used == 64 + 0 + 64 + 1024);
    CHECK(!pieces[0] && !pieces[3]);
    CHECK(arena_open(&a, count.used, &e));
    lay_out(&a, pieces);
    for (int i = 0; i < 4; i++) CHECK(pieces[i] && (uintptr_t)pieces[i] % 64 == 0);
    CHECK(a.used == count.used && pieces[1] == pieces[2] && pieces[2] == pieces[0] + 64);
    CHECK(arena_take(&a, 1, 1) == NULL); /* full */
    arena_close(&a);
    CHECK(!a.base && !a.used);
    arena_close(&a);
}

static void test_arena_overflow(void) {
    static const size_t sizes[][2] = {{SIZE_MAX, 2},
                                      {SIZE_MAX / 2 + 1, 2},
                                      {SIZE_MAX, 1},
                                      {SIZE_MAX - 10, 1},
                                      {1, SIZE_MAX - 63}};
    struct error e;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        struct arena count = {0}, a;
        arena_take(&count, 1000, 1);
        CHECK(!arena_take(&count, sizes[i][0], sizes[i][1]) && count.used == SIZE_MAX);
        CHECK(!arena_take(&count, 1000, 1) && count.used == SIZE_MAX);
        CHECK(!arena_open(&a, count.used, &e) && e.status == STATUS_MEMORY);
        CHECK(strstr(e.message, "not enough memory"));
    }
    struct arena sum = {0};
    arena_take(&sum, SIZE_MAX / 2, 1);
    arena_take(&sum, SIZE_MAX / 2, 1);
    CHECK(sum.used == SIZE_MAX);
}

/* --- error ------------------------------------------------------------------------------------ */

static void test_error_is_printable(void) {
    struct error e;
    CHECK(!fail(&e, STATUS_MODEL, "%s: %d\n%c", "a\x1b[31m\x7f\tb", 7, 1));
    CHECK(e.status == STATUS_MODEL && strcmp(e.message, "a?[31m??b: 7??") == 0);
    fail(&e, STATUS_FILE, "\xc3\xa4 \xe2\x82\xac \xf0\x9f\x98\x80 \xc2\xa0");
    CHECK(strcmp(e.message, "\xc3\xa4 \xe2\x82\xac \xf0\x9f\x98\x80 \xc2\xa0") == 0);
    fail(&e, STATUS_FILE, "\xc2\x9bm \x9b \xe2\x82 \xff");
    CHECK_MSG(strcmp(e.message, "??m ? ?? ?") == 0, "%s", e.message);
    error_item(&e, "x\ny\x1b\xc2\x80z");
    CHECK_MSG(strcmp(e.message, "??m ? ?? ?\n  x?y???z") == 0, "%s", e.message);
}

static int lines_of(const struct error *e) {
    int lines = 1;
    for (const char *p = e->message; *p; p++) lines += *p == '\n';
    return lines;
}

static void test_error_items(void) {
    struct error e;
    for (int items = 0; items < 30; items++) {
        fail(&e, STATUS_MODEL, "list:");
        for (int i = 0; i < items; i++) error_item(&e, "item %d", i);
        error_items_end(&e);
        CHECK_MSG(lines_of(&e) == 1 + (items > 20 ? 21 : items), "%d items", items);
        CHECK((strstr(e.message, "item 19") != NULL) == (items > 19));
        CHECK(!strstr(e.message, "item 20"));
        char more[32];
        snprintf(more, sizeof more, "\n  and %d more", items - 20);
        CHECK((strstr(e.message, more) != NULL) == (items > 20));
    }
}

static void test_error_is_bounded(void) {
    struct error e;
    char *text = malloc(10000);
    for (size_t size = 4000; size < 4200; size++) {
        memset(text, 'x', size);
        text[size] = 0;
        fail(&e, STATUS_MODEL, "%s", text);
        for (int i = 0; i < 30; i++) error_item(&e, "%.*s", 150, text);
        error_items_end(&e);
        CHECK(strlen(e.message) == sizeof e.message - 1 || size < sizeof e.message - 1);
        CHECK(memchr(e.message, 0, sizeof e.message) != NULL);
    }
    free(text);
}

/* --- the operating system --------------------------------------------------------------------- */

static void test_map(void) {
    struct span bytes;
    struct error e;
    CHECK(map_open(scratch_text("file", "seven\n7"), &bytes, &e));
    CHECK(bytes.size == 7 && memcmp(bytes.data, "seven\n7", 7) == 0);
    map_close(&bytes);
    CHECK(!map_open(scratch_text("empty", ""), &bytes, &e) && strstr(e.message, "empty"));
    CHECK(!map_open(scratch_path("absent"), &bytes, &e) && e.status == STATUS_FILE);
    CHECK(strstr(e.message, "absent"));
    CHECK(!map_open(scratch_folder, &bytes, &e));
    CHECK(mkfifo(scratch_path("fifo"), 0600) == 0);
    CHECK(!map_open(scratch_path("fifo"), &bytes, &e)); /* and does not wait for a writer */
}

static void test_cpu(void) {
    struct cpu cpu;
    cpu_set_t allowed;
    cpu_probe(&cpu);
    CHECK(cpu.name[0] && cpu.reason[0]);
    CHECK(sched_getaffinity(0, sizeof allowed, &allowed) == 0);
    CHECK(cpu.logical == CPU_COUNT(&allowed));
    CHECK(cpu.physical >= 1 && cpu.physical <= cpu.logical && cpu.quota >= 0);
    CHECK(cpu.threads >= 1 && cpu.threads <= cpu.physical);
    CHECK(!cpu.quota || cpu.threads <= cpu.quota);
    uint32_t avx512 = CPU_AVX512BW | CPU_AVX512DQ | CPU_AVX512VL | CPU_AVX512VNNI | CPU_AVX512BF16;
    CHECK(cpu.features & CPU_AVX512F || !(cpu.features & avx512));
}

/* Which of AMD's families the CPU is of, as the system says it. */
static void test_cpu_family(void) {
    char line[512];
    struct cpu cpu;
    unsigned family = 0;
    bool amd = false;
    FILE *f = fopen("/proc/cpuinfo", "r");
    while (f && !family && fgets(line, sizeof line, f)) {
        amd = amd || strstr(line, "AuthenticAMD");
        sscanf(line, "cpu family : %u", &family);
    }
    if (f) fclose(f);
    cpu_probe(&cpu);
    CHECK(!family || cpu.amd_family == (amd ? family : 0));
}

/* A process bound to one processor counts one. */
static void test_cpu_affinity(void) {
    pid_t child = fork();
    if (child == 0) {
        cpu_set_t allowed;
        struct cpu cpu;
        size_t first = 0;
        sched_getaffinity(0, sizeof allowed, &allowed);
        while (!CPU_ISSET(first, &allowed)) first++;
        CPU_ZERO(&allowed);
        CPU_SET(first, &allowed);
        sched_setaffinity(0, sizeof allowed, &allowed);
        cpu_probe(&cpu);
        _exit(cpu.logical == 1 && cpu.physical == 1 && cpu.threads == 1 ? 0 : 1);
    }
    int status = 1;
    waitpid(child, &status, 0);
    CHECK(status == 0);
}

static void test_memory(void) {
    size_t before = memory_private(), size = 64 << 20;
    CHECK(memory_available() > 0 && before > 0);
    char *block = malloc(size);
    memset(block, 1, size);
    CHECK(memory_private() >= before + size - (size >> 3));
    CHECK(memory_peak() >= memory_private());
    CHECK(block[size - 1] == 1);
    free(block);
}

static void test_clock(void) {
    uint64_t last = clock_ns(), start = last;
    while (last - start < 2000000) {
        uint64_t now = clock_ns();
        CHECK(now >= last);
        last = now;
    }
}

int main(void) {
    scratch_open();
    check_run("utf8 sequence", test_utf8_sequence);
    check_run("utf8 complete", test_utf8_complete);
    check_run("arena", test_arena);
    check_run("arena overflow", test_arena_overflow);
    check_run("error is printable", test_error_is_printable);
    check_run("error items", test_error_items);
    check_run("error is bounded", test_error_is_bounded);
    check_run("map", test_map);
    check_run("cpu", test_cpu);
    check_run("cpu: AMD's family", test_cpu_family);
    check_run("cpu affinity", test_cpu_affinity);
    check_run("memory", test_memory);
    check_run("clock", test_clock);
    return check_done();
}
