/* include/nibble.h: the kernels one by one. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/handles.h"
#include "base/clock.h"
#include "kern/kern.h"
#include "num/affine.h"
#include "num/half.h"

enum { TRIES = 7, TRY_NS = 2000000 };

/* Sizes, such that what a call touches stays in a second cache of 512 KB or a little more: a row; a
 * block of plain rows with its tokens; affine rows; those of a strip with its tokens; tokens that
 * are packed. MOST_ is what the arrays of operands hold. */
enum {
    LENGTH = 8192,
    ROWS = 64,
    COLS = 1024,
    TOKENS = 48,
    PRODUCTS = ROWS * COLS * TOKENS,
    AFFINE_ROWS = 256,
    STRIP_ROWS = 32,
    AFFINE_COLS = 2048,
    STRIP_TOKENS = 64,
    PACKED = 16,
    READ_BYTES = 256 << 10,
    READ_FLOATS = READ_BYTES / 4,
    ROUNDS = 1 << 10,
    MOST_X = STRIP_TOKENS * AFFINE_COLS,
    MOST_Y = TOKENS * COLS,
    MOST_W = AFFINE_ROWS * AFFINE_COLS,
    MOST_GROUPS = AFFINE_COLS / 32,
};

_Static_assert(LENGTH <= MOST_Y && MOST_Y <= MOST_X && STRIP_TOKENS * STRIP_ROWS <= MOST_Y &&
                   4 * ROWS * COLS <= MOST_W && READ_BYTES <= MOST_W,
               "all operands have room");

/* What the kernels work on; each takes what it needs. */
struct operands {
    struct kern kern;
    float *x, *y, *up;        /* [MOST_X], [MOST_Y], [LENGTH] */
    unsigned char *w;         /* [MOST_W] plain values or codes */
    unsigned char *scales[2]; /* [AFFINE_ROWS, MOST_GROUPS] in f16, and the offsets */
    struct mat mat;           /* over w and scales */
    struct packed packed;     /* STRIP_TOKENS of x, for mat */
    void *scratch;
};

struct work {
    double bytes, ops; /* of a call */
};

typedef struct work work_fn(const struct operands *o);

/* --- a call of each kernel -------------------------------------------------------------------- */

/* What a kernel's weights or operands are: of one type, or of each affine format in turn. */
enum kind { F32, F16, BF16, BYTES, INT8, AFFINE };

#define TIMING(name, kind, bytes, ops, ...)                                                        \
    static struct work call_##name(const struct operands *o) {                                     \
        o->kern.name(__VA_ARGS__);                                                                 \
        return (struct work){bytes, ops};                                                          \
    }                                                                                              \
    enum { kind_of_##name = kind };

TIMING(dot_f32, F32, 8 * LENGTH, LENGTH, o->x, o->w, LENGTH)
TIMING(load_f16, F16, 6 * LENGTH, LENGTH, o->y, o->w, LENGTH)
TIMING(load_bf16, BF16, 6 * LENGTH, LENGTH, o->y, o->w, LENGTH)
TIMING(load_i8, INT8, 5 * LENGTH, LENGTH, o->y, o->w, LENGTH)
TIMING(store_f16, F16, 6 * LENGTH, LENGTH, o->w, o->x, LENGTH)

/* Weights of so many bytes, what they are multiplied with, and the result: sums read it too. */
#define DOTS_BYTES(each) (each * ROWS * COLS + 4 * TOKENS * (COLS + ROWS))
#define SUMS_BYTES(each) (each * ROWS * COLS + 4 * TOKENS * (ROWS + 2 * COLS))
#define DOTS(each) o->y, ROWS, o->x, COLS, TOKENS, o->w, each *COLS, ROWS, COLS
#define SUMS(each) o->y, COLS, o->x, ROWS, TOKENS, o->w, each *COLS, ROWS, COLS

TIMING(dots_f32, F32, DOTS_BYTES(4), PRODUCTS, DOTS(4))
TIMING(dots_f16, F16, DOTS_BYTES(2), PRODUCTS, DOTS(2))
TIMING(dots_bf16, BF16, DOTS_BYTES(2), PRODUCTS, DOTS(2))
TIMING(sums_f32, F32, SUMS_BYTES(4), PRODUCTS, SUMS(4))
TIMING(sums_f16, F16, SUMS_BYTES(2), PRODUCTS, SUMS(2))
TIMING(sums_i8, INT8, SUMS_BYTES(1), PRODUCTS, SUMS(1))

/* In place, call after call: exp(x - 1) leaves x in (0, 1], and -4 times an activation of x, or -3,
 * does not leave (-4, 2) nor come near 0. */
TIMING(online_softmax, F32, 8 * LENGTH, LENGTH, o->y, &(float){1}, LENGTH)
TIMING(silu_mul, F32, 12 * LENGTH, LENGTH, o->y, o->up, LENGTH)
TIMING(gelu_mul, F32, 12 * LENGTH, LENGTH, o->y, o->up, LENGTH)
TIMING(gelu_tanh_mul, F32, 12 * LENGTH, LENGTH, o->y, o->up, LENGTH)
TIMING(clamped_swiglu, F32, 12 * LENGTH, LENGTH, o->y, o->up, LENGTH)

static double packed_bytes(const struct operands *o, size_t n) {
    size_t groups = o->mat.cols / (size_t)o->mat.group;
    return (double)(n * (o->mat.cols + groups * 2 * sizeof(float)));
}

static struct work affine_work(const struct operands *o, size_t rows, size_t n) {
    double weights = (double)(rows * format_row_bytes(&o->mat));
    return (struct work){weights + packed_bytes(o, n) + (double)(n * rows * sizeof(float)),
                         (double)(n * rows * o->mat.cols)};
}

static struct work call_affine_pack(const struct operands *o) {
    o->kern.affine_pack(&o->packed, o->x, 0, PACKED);
    double values = PACKED * (double)o->mat.cols;
    return (struct work){values * sizeof(float) + packed_bytes(o, PACKED), values};
}

static struct work call_affine_rows(const struct operands *o) {
    struct packed one = o->packed;
    one.n = 1;
    o->kern.affine_rows(o->y, AFFINE_ROWS, &o->mat, 0, AFFINE_ROWS, &one);
    return affine_work(o, AFFINE_ROWS, 1);
}

static struct work call_affine_strip(const struct operands *o) {
    o->kern.affine_strip(o->y, STRIP_ROWS, &o->mat, 0, STRIP_ROWS, &o->packed, o->scratch);
    return affine_work(o, STRIP_ROWS, STRIP_TOKENS);
}

enum {
    kind_of_affine_pack = AFFINE,
    kind_of_affine_rows = AFFINE,
    kind_of_affine_strip = AFFINE,
};

TIMING(peak_read, BYTES, READ_BYTES, READ_FLOATS, o->w, READ_BYTES, true)

static struct work call_peak_int8(const struct operands *o) {
    return (struct work){0, (double)o->kern.peak_int8(1, 1, ROUNDS)};
}

static struct work call_peak_f32(const struct operands *o) {
    return (struct work){0, o->kern.peak_f32(1, 1, ROUNDS)};
}

enum { kind_of_peak_int8 = INT8, kind_of_peak_f32 = F32 };

/* A kernel of kern.def without the two above is an undefined name here. */
static const struct timing {
    const char *kernel;
    enum kind kind;
    work_fn *call;
} timings[] = {
#define KERNEL(name, result, params) {#name, (enum kind)kind_of_##name, call_##name},
#include "kern/kern.def"
#undef KERNEL
};

enum { KERNELS = sizeof timings / sizeof *timings };

/* --- operands --------------------------------------------------------------------------------- */

static void layout(struct operands *o, struct arena *a) {
    o->x = arena_take(a, MOST_X, sizeof *o->x);
    o->y = arena_take(a, MOST_Y, sizeof *o->y);
    o->up = arena_take(a, LENGTH, sizeof *o->up);
    o->w = arena_take(a, MOST_W, 1);
    for (int i = 0; i < 2; i++) o->scales[i] = arena_take(a, AFFINE_ROWS, 2 * MOST_GROUPS);
    o->packed.codes = arena_take(a, STRIP_TOKENS, packed_stride(AFFINE_COLS));
    o->packed.scales = arena_take(a, STRIP_TOKENS, MOST_GROUPS * sizeof *o->packed.scales);
    o->packed.shifts = arena_take(a, STRIP_TOKENS, MOST_GROUPS * sizeof *o->packed.shifts);
    o->packed.sums = arena_take(a, STRIP_TOKENS, MOST_GROUPS * sizeof *o->packed.sums);
    o->scratch = arena_take(a, 1, KERN_SCRATCH);
}

/* Numbers of no meaning from 1/4 to 1: no kernel's speed depends on more than that. */
static float value(size_t i) {
    return 0.25f + (float)(i * 2654435761u >> 8 & 0xfff) * 0x3p-14f;
}

static void fill_floats(const struct operands *o) {
    for (size_t i = 0; i < MOST_X; i++) o->x[i] = value(i);
    for (size_t i = 0; i < MOST_Y; i++) o->y[i] = value(i);
    for (size_t i = 0; i < LENGTH; i++) o->up[i] = -4;
}

static void fill_plain(const struct operands *o, enum kind kind) {
    for (size_t i = 0; i < (size_t)ROWS * COLS; i++) {
        float f = value(i);
        if (kind == F32) memcpy(o->w + 4 * i, &f, sizeof f);
        if (kind == F16) half_store_u16(o->w + 2 * i, half_to_f16(f));
        if (kind == BF16) half_store_u16(o->w + 2 * i, half_to_bf16(f));
    }
}

static void fill_affine(struct operands *o, int bits, int group) {
    for (size_t i = 0; i < MOST_W; i++) o->w[i] = (unsigned char)(i * 2654435761u >> 16);
    for (size_t i = 0; i < (size_t)AFFINE_ROWS * MOST_GROUPS; i++) {
        half_store_u16(o->scales[0] + 2 * i, half_to_f16(value(i)));
        half_store_u16(o->scales[1] + 2 * i, half_to_f16(-value(i)));
    }
    o->mat = affine_mat(AFFINE_ROWS, AFFINE_COLS, bits, group, DTYPE_F16, o->w, o->scales[0],
                        o->scales[1]);
    o->packed.n = STRIP_TOKENS;
    o->packed.cols = AFFINE_COLS;
    o->packed.stride = packed_stride(AFFINE_COLS);
    o->packed.group = group;
    o->packed.order = packed_order_of(bits);
    o->kern.affine_pack(&o->packed, o->x, 0, STRIP_TOKENS);
}

/* --- timing ----------------------------------------------------------------------------------- */

struct bench {
    struct operands operands;
    const char *level;
    bool (*see)(void *arg, const nibble_kernel_time *t);
    void *arg;
};

static double time_calls(const struct operands *o, work_fn *call, size_t calls) {
    uint64_t begin = clock_ns();
    for (size_t i = 0; i < calls; i++) call(o);
    return (double)(clock_ns() - begin + 1);
}

static int by_size(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Nanoseconds of a call. Calls become more until a try is long enough; one that was interrupted may
 * count too early, but the next shows it. */
static double median(const struct operands *o, work_fn *call) {
    double tries[TRIES];
    size_t calls = 1;
    for (int i = 0; i < TRIES;) {
        double ns = time_calls(o, call, calls), missing = TRY_NS / ns;
        if (missing > 2) {
            calls = (size_t)((double)calls * (missing < 8 ? missing : 8)) + 1;
            continue;
        }
        tries[i++] = ns / (double)calls;
    }
    qsort(tries, TRIES, sizeof *tries, by_size);
    return tries[TRIES / 2];
}

static bool time_kernel(struct bench *b, const struct timing *t, const char *format) {
    struct work work = t->call(&b->operands); /* which brings them into the cache */
    double ns = median(&b->operands, t->call);
    nibble_kernel_time row = {t->kernel, b->level, format, work.bytes, work.ops, ns};
    return b->see(b->arg, &row);
}

static bool time_plain(struct bench *b, const struct timing *t) {
    static const char *const names[] = {
        [F32] = "f32", [F16] = "f16", [BF16] = "bf16", [BYTES] = "bytes", [INT8] = "int8"};
    fill_floats(&b->operands);
    fill_plain(&b->operands, t->kind);
    return time_kernel(b, t, names[t->kind]);
}

static bool time_affine(struct bench *b, const struct timing *t) {
    static const struct {
        int bits, group;
    } formats[] = {{2, 64}, {3, 64}, {4, 32}, {4, 64}, {4, 128}, {5, 64}, {6, 64}, {8, 64}};
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++) {
        char name[40];
        snprintf(name, sizeof name, "%d bits, group %d", formats[i].bits, formats[i].group);
        fill_floats(&b->operands);
        fill_affine(&b->operands, formats[i].bits, formats[i].group);
        if (!time_kernel(b, t, name)) return false;
    }
    return true;
}

/* --- levels ----------------------------------------------------------------------------------- */

/* own[i]: kernel i is another one than at the level below. */
static void find_own(const struct kern *kern, const struct kern *below, bool own[KERNELS]) {
    size_t i = 0;
#define KERNEL(name, result, params) own[i++] = kern->name != below->name;
#include "kern/kern.def"
#undef KERNEL
}

static bool time_level(struct bench *b, const bool own[KERNELS]) {
    for (size_t i = 0; i < KERNELS; i++) {
        const struct timing *t = &timings[i];
        if (!own[i]) continue;
        if (!(t->kind == AFFINE ? time_affine(b, t) : time_plain(b, t))) return false;
    }
    return true;
}

static bool time_levels(struct bench *b, const char *only, struct error *e) {
    struct kern below = {0};
    for (enum kern_level i = 0; i < KERN_LEVELS; i++) {
        bool own[KERNELS];
        if (!kern_level_available(i)) continue;
        if (!kern_select(&b->operands.kern, kern_level_name(i), &b->level, e)) return false;
        find_own(&b->operands.kern, &below, own);
        below = b->operands.kern;
        if (only && strcmp(only, b->level) != 0) continue;
        if (!time_level(b, own)) return true;
    }
    return true;
}

bool nibble_measure_kernels(const char *level, bool (*see)(void *, const nibble_kernel_time *),
                            void *arg, nibble_error *error) {
    struct error e = {0};
    struct bench b = {.see = see, .arg = arg};
    struct arena arena = {0}, count = {0};
    TRY(kern_select(&b.operands.kern, level, &b.level, &e));
    layout(&b.operands, &count);
    TRY(arena_open(&arena, count.used, &e));
    layout(&b.operands, &arena);
    TRY(time_levels(&b, level, &e));
    arena_close(&arena);
    return true;
fail:
    arena_close(&arena);
    return handles_report(false, &e, error);
}
