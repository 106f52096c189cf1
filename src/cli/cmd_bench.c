#include <string.h>

#include "cli/bench.h"
#include "cli/message.h"
#include "cli/options.h"

#define FORMATS "table|markdown|csv|json" /* in the order of enum bench_format */

static const struct option options_bench[] = {
    {"-p --prompt", OPTION_NUMBERS, offsetof(struct args, bench_prompts), 0, 1 << 24, 512, "N,...",
     "tokens of the prompt tests; 0: leave them out"},
    {"-n --n-predict", OPTION_NUMBERS, offsetof(struct args, bench_tokens), 0, 1 << 24, 128,
     "N,...", "tokens of the generation tests; 0: leave them out"},
    {"-d --depth", OPTION_NUMBERS, offsetof(struct args, bench_depths), 0, 1 << 24, 0, "N,...",
     "tokens in the cache before each test"},
    {"-r --repeats", OPTION_WHOLE, offsetof(struct args, repeats), 1, BENCH_MAX_REPEATS, 5, "N",
     "how often each test runs"},
    {"--ops", OPTION_FLAG, offsetof(struct args, ops),
     .help = "time each kernel alone; without MODEL"},
    {"--format", OPTION_TEXT, offsetof(struct args, format), .value = FORMATS,
     .help = "how it is told (default: table)"},
    {"--json", OPTION_FLAG, offsetof(struct args, json), .help = "as --format json"},
    {"-q --quiet", OPTION_FLAG, offsetof(struct args, quiet), .help = "no progress"},
    {"-t --threads", OPTION_NUMBERS, offsetof(struct args, bench_threads), 1, 256, 0, "N,...",
     "threads (default: usable physical cores)"},
    {0}};

static bool find_format(const struct args *a, enum bench_format *out) {
    const char *name = a->format ? a->format : a->json ? "json" : "table";
    *out = (enum bench_format)options_choice(FORMATS, name);
    if (!a->json || *out == BENCH_JSON) return true;
    message("--json and --format %s are both given; choose one", name);
    return false;
}

static bool check_words(const struct args *a) {
    if (a->ops == !a->word_count) return true;
    if (a->ops)
        message("--ops takes no MODEL; leave one of the two out");
    else
        message("nibble bench MODEL: something is missing, the model or --ops; see nibble bench "
                "--help");
    return false;
}

static int bench(struct bench *b) {
    int code = session_open_model(&b->session, b->args->words[0]);
    if (code != EXIT_DONE) return code;
    nibble_model_describe(b->session.model, &b->model);
    session_confine(b->args, (const char *[]){NULL});
    code = bench_run(b);
    if (code == EXIT_DONE) bench_print(b);
    bench_run_free(b);
    session_close(&b->session);
    return code;
}

static int run(const struct args *a) {
    struct bench b = {.args = a};
    if (!check_words(a) || !find_format(a, &b.format)) return EXIT_USAGE;
    message_catch_signals();
    return a->ops ? bench_kernels(b.format, a->level) : bench(&b);
}

static const struct option *const groups[] = {options_bench, options_run, NULL};

const struct command command_bench = {
    .name = "bench",
    .usage = "[MODEL]",
    .summary = "measure tokens per second, and how near they come to what the machine can do",
    .notes =
        "A prompt is read in batches, generation runs a token at a time, each behind -d tokens\n"
        "that are not timed. All tests run once to warm up, then all once more, -r times; the\n"
        "limits of this machine are measured each time before. -p, -n, -d and -t take lists.\n"
        "\n"
        "  tok/s, stddev  mean and standard deviation of the repeats\n"
        "  median         tokens by the median time; latency of a prompt follows it\n"
        "  MB/token       read: weights, once a batch of a prompt; generation also the KV cache\n"
        "                 of its mean depth\n"
        "  Mop/token      multiply-adds with weights; of a prompt logits, and what only they\n"
        "                 need, for its last token only\n"
        "  limit          of generation: bytes a second, as a share of what the machine reads; of\n"
        "                 a prompt: the time its multiply-adds would take at the machine's int8\n"
        "                 and f32 peak, as a share of the time it took; median of the repeats,\n"
        "                 each by the limits measured just before\n"
        "  latency, ms    of a prompt: to its logits; of generation: 50th/90th/99th percentile\n"
        "                 over the tokens of all repeats\n"
        "\n"
        "The context is as long as the longest test and depth need unless -c says otherwise.",
    .min_words = 0,
    .max_words = 1,
    .groups = groups,
    .run = run,
};
