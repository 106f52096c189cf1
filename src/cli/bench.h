/* nibble bench: what is measured, and how it is told. */
#ifndef NIBBLE_CLI_BENCH_H
#define NIBBLE_CLI_BENCH_H

#include "cli/session.h"

struct cJSON;

enum { BENCH_MAX_REPEATS = 1000 };

enum bench_format {
    BENCH_TABLE,
    BENCH_MARKDOWN,
    BENCH_CSV,
    BENCH_JSON,
};

/* One test: `tokens` tokens behind `depth` others, a prompt in batches or generated one by one. */
struct bench_test {
    bool generation;
    size_t depth, tokens;
    uint64_t *ns;       /* [repeats] */
    uint64_t *token_ns; /* [repeats, tokens]; of a generation only */
};

/* All tests with one number of threads, and the limits measured among them. */
struct bench_series {
    nibble_context_info context;
    nibble_peaks *rounds; /* [repeats] the limits as found before each round */
    nibble_peaks peaks;   /* the medians of those */
    struct bench_test *tests;
    size_t count;
};

struct bench {
    const struct args *args;
    enum bench_format format;
    struct session session;
    nibble_model_info model;
    int *ids;      /* [context]: what each position gets, whatever the test */
    float *logits; /* [vocab] */
    struct bench_series series[ARGS_MAX_NUMBERS];
    int series_count;
    uint64_t load_ns;
    size_t private_bytes, peak_bytes; /* after the warm-up of the first series */
    uint64_t cold_ns; /* the first test of all, before anything was warm, if it is a prompt; or 0 */
};

/* --- bench_run.c: measuring ------------------------------------------------------------------- */

/* Runs every test of every series. Returns 0, or the exit code after printing why. */
int bench_run(struct bench *b);
void bench_run_free(struct bench *b);

/* --- bench_figures.c: what follows from the times --------------------------------------------- */

double bench_figures_median(double *values, size_t n); /* sorts them */

enum { BENCH_PERCENTILES = 3 };
extern const int bench_percentiles[BENCH_PERCENTILES]; /* 50, 90, 99 */

struct bench_figures {
    double rate, deviation; /* tokens a second: mean of the repeats, standard deviation */
    double median_s;        /* of a run */
    double median_rate;     /* tokens / median_s */
    double bytes_per_token; /* read: weights and, of a generation, KV cache */
    double int8_ops_per_token, f32_ops_per_token; /* multiply-adds of matrix products */
    double share;                                 /* of the limit: median of the rounds */
    double latency_s[BENCH_PERCENTILES];          /* of a generated token; of a prompt 0 */
};

struct bench_figures bench_figures(const struct bench *b, const struct bench_series *s,
                                   const struct bench_test *t);

/* --- bench_fields.c: every figure with its name ----------------------------------------------- */

/* Absent: no text and a number that is NaN. */
struct bench_field {
    const char *name, *text;
    double number;
};

enum { BENCH_FIELDS = 64 };

/* Begins as zeros; names are constants, texts are kept in the store. */
struct bench_fields {
    struct bench_field items[BENCH_FIELDS];
    int count;
    char store[8192];
    size_t stored;
};

void bench_fields_text(struct bench_fields *f, const char *name, const char *text); /* or NULL */
void bench_fields_number(struct bench_fields *f, const char *name, double number);

void bench_fields_machine(struct bench_fields *f);
void bench_fields_build(struct bench_fields *f);
void bench_fields_date(struct bench_fields *f);
void bench_fields_model(const struct bench *b, struct bench_fields *f);
void bench_fields_run(const struct bench *b, struct bench_fields *f);
void bench_fields_peaks(const nibble_peaks *p, struct bench_fields *f);
void bench_fields_test(const struct bench *b, const struct bench_series *s,
                       const struct bench_test *t, struct bench_fields *f);

/* The text of a field; "" if it is absent. */
const char *bench_fields_find(const struct bench_fields *f, const char *name);

/* --- bench_write.c: for programs -------------------------------------------------------------- */

/* One line of values, or of names. */
void bench_write_csv(const struct bench_fields *f, bool names);
/* An object of the fields that are not absent. */
struct cJSON *bench_write_json(const struct bench_fields *f);

/* --- bench_print.c: what was measured, as --format says --------------------------------------- */

void bench_print(const struct bench *b);

/* --- bench_kernels.c: --ops ------------------------------------------------------------------- */

int bench_kernels(enum bench_format format, const char *level);

#endif
