#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/message.h"
#include "cli/options.h"
#include "cli/session.h"

static const struct option options_quantize[] = {
    {"--bits", OPTION_WHOLE, offsetof(struct args, bits), 2, 32, 4, "2|3|4|5|6|8|32",
     "bits of a weight; 32: decode all to f32"},
    {"--group-size", OPTION_WHOLE, offsetof(struct args, group_size), 32, 128, 64, "32|64|128",
     "weights that share a scale"},
    {"--embed-bits", OPTION_WHOLE, offsetof(struct args, embed_bits), 0, 32, 0, "N",
     "bits of the embedding and an output tied to it (default: as --bits)"},
    {"--mixed", OPTION_FLAG, offsetof(struct args, mixed),
     .help = "more bits for the matrices that lose most"},
    {"--high-bits", OPTION_WHOLE, offsetof(struct args, high_bits), 0, 8, 0, "N",
     "with --mixed: how many (default: 6, or 8 if --bits is over 4)"},
    {"--search", OPTION_FLAG, offsetof(struct args, search),
     .help = "seek the scales and offsets that lose least"},
    {"--calibrate", OPTION_TEXT, offsetof(struct args, calibrate), .value = "FILE",
     .help = "and weigh what is lost by what the model computes on this text"},
    {"-q --quiet", OPTION_FLAG, offsetof(struct args, quiet),
     .help = "no progress, no closing line"},
    {0}};

static bool progress(void *arg, size_t done, size_t total) {
    const struct args *a = arg;
    if (!a->quiet) message_progress("quantizing", done, total);
    return !message_interrupted();
}

static int high_bits(const struct args *a) {
    if (!a->mixed) return 0;
    return a->high_bits ? (int)a->high_bits : a->bits > 4 ? 8 : 6;
}

static bool is_same_file(const char *a, const char *b) {
    struct stat x, y;
    return stat(a, &x) == 0 && stat(b, &y) == 0 && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

static void report(const struct args *a, const nibble_quantization *q,
                   const nibble_quantized *done) {
    char how[64] = "in f32", more[16] = "";
    if (q->high_bits) snprintf(more, sizeof more, " or %d", q->high_bits);
    if (a->bits < 32) {
        snprintf(how, sizeof how, "at %lld%s bits in groups of %lld", a->bits, more, a->group_size);
    }
    fprintf(stderr, "%s: %zu matrices %s, %zu kept as they were, %.1f MB from %.1f MB\n",
            a->words[1], done->quantized, how, done->kept, (double)done->bytes_out / 1e6,
            (double)done->bytes_in / 1e6);
}

static int read_calibration(const struct session *s, const struct args *a, nibble_ids *ids,
                            size_t *lead) {
    struct args text = {.words = a->words, .file = a->calibrate};
    size_t bytes;
    if (!s->tokenizer) {
        message("%s has no tokenizer to read the text of --calibrate with", a->words[0]);
        return EXIT_FAILED;
    }
    return input_text_ids(&text, s->model, false, ids, lead, &bytes);
}

static int quantize(const struct session *s, const struct args *a) {
    nibble_error e;
    nibble_quantized done;
    nibble_ids ids = {0};
    size_t lead = 0;
    int code = a->calibrate ? read_calibration(s, a, &ids, &lead) : EXIT_DONE;
    if (code != EXIT_DONE) return code;
    nibble_quantization q = {.search = a->search,
                             .calibration = ids.ids,
                             .calibration_count = ids.count,
                             .lead = lead,
                             .bits = (int)a->bits,
                             .group = (int)a->group_size,
                             .embed_bits = (int)a->embed_bits,
                             .high_bits = high_bits(a),
                             .threads = (int)a->threads,
                             .arg = (void *)a,
                             .progress = progress};
    bool ok = nibble_quantize(s->model, a->words[1], &q, &done, &e);
    nibble_free(ids.ids);
    if (!ok) return message_error(&e);
    message_progress_end();
    if (!a->quiet) report(a, &q, &done);
    return EXIT_DONE;
}

static int run(const struct args *a) {
    struct session s;
    message_catch_signals();
    if (is_same_file(a->words[0], a->words[1])) {
        message("%s would replace the model it is made from; give another name", a->words[1]);
        return EXIT_USAGE;
    }
    if (a->high_bits && !a->mixed) {
        message("--high-bits goes with --mixed");
        return EXIT_USAGE;
    }
    int code = session_open_model(&s, a->words[0]);
    if (code == EXIT_DONE) code = quantize(&s, a);
    session_close(&s);
    return code;
}

static const struct option *const groups[] = {options_quantize, options_threads, NULL};

const struct command command_quantize = {
    .name = "quantize",
    .usage = "IN OUT.npz",
    .summary = "write a model as a single-file .npz with MLX's affine quantization",
    .notes = "A matrix whose width is no multiple of the group size keeps its type; the closing "
             "line counts\n"
             "them and nibble info lists them. Nothing appears as OUT.npz unless all went well.\n\n"
             "With --mixed, as in MLX's mixed recipes, embedding and output have more bits, and\n"
             "so have v_proj and down_proj, or what a family has for them, in the first and the\n"
             "last eighth of the layers and every third between.",
    .min_words = 2,
    .max_words = 2,
    .groups = groups,
    .run = run,
};
