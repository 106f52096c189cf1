/* nibble: decoder-only language models on a CPU.
 *
 * The public contract of libnibble.a, and all that the command line uses. Three handles:
 *
 *   - nibble_model: the files, that is numbers, tensors, tokenizer. Immutable once open; contexts
 *     on any threads may share it. It must outlive them.
 *   - nibble_tokenizer: a model's tokenizer, or one opened alone.
 *   - nibble_context: one timeline of tokens, with KV cache, scratch and worker threads. One caller
 *     at a time.
 *
 * A function that can fail takes a nibble_error last, fills it and returns false or NULL. The
 * library never prints, exits or reads the environment. Strings are UTF-8 where they are text;
 * paths are as the operating system takes them. */
#ifndef NIBBLE_H
#define NIBBLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define NIBBLE_API __attribute__((visibility("default")))

/* --- errors ----------------------------------------------------------------------------------- */

typedef enum nibble_status {
    NIBBLE_OK,
    NIBBLE_ARGUMENT,    /* what was asked for makes no sense */
    NIBBLE_FILE,        /* the operating system refused a file */
    NIBBLE_FORMAT,      /* a file is not what its format promises */
    NIBBLE_MODEL,       /* sound files that do not make a model nibble runs */
    NIBBLE_MEMORY,      /* not enough memory */
    NIBBLE_CONTEXT,     /* the tokens do not fit the context */
    NIBBLE_NUMERIC,     /* NaN or infinite logits */
    NIBBLE_INTERRUPTED, /* a callback asked to stop, or a signal came while a FIFO was opened */
} nibble_status;

typedef struct nibble_error {
    nibble_status status;
    char message[4096]; /* a sentence with the thing and the remedy; a list may follow on indented
                           lines */
} nibble_error;

/* --- models ----------------------------------------------------------------------------------- */

typedef struct nibble_model nibble_model;
typedef struct nibble_tokenizer nibble_tokenizer;
typedef struct nibble_context nibble_context;

/* path: a single-file .npz, or a folder with weights in .npz or safetensors, in shards or not,
 * config.json or params.json, and tokenizer.model; or one .safetensors file of such a folder. The
 * weights are mapped, not read. NULL on failure. */
NIBBLE_API nibble_model *nibble_model_open(const char *path, nibble_error *e);
NIBBLE_API void nibble_model_close(nibble_model *m); /* NULL is fine, here and in every close */

/* The same for looking only: in a short time, without the tokenizer, and not to be run, since of
 * compressed arrays perhaps only the front is there. What fails here cannot be run. */
NIBBLE_API nibble_model *nibble_model_glance(const char *path, nibble_error *e);

/* Multiply-adds of matrix products, by how they are multiplied. */
typedef struct nibble_ops {
    size_t int8; /* with quantized weights */
    size_t f32;
} nibble_ops;

typedef struct nibble_model_info {
    const char *family; /* model_type */
    const char *title;  /* of the family, for people */
    uint64_t hash;      /* over names, sizes and checksums of the arrays, as the file states them; 0
                           if it states none */
    size_t parameters;  /* values in all tensors */
    size_t vocab, context, layers;
    size_t windowed_layers; /* so many layers attend to the latest `window` positions only, a
                               token's own included; the others to all */
    size_t window;          /* 0 if there are none */
    size_t mapped_bytes;    /* weights used in place from their files */
    size_t private_bytes;   /* weights that had to be inflated into memory */
    size_t own_bytes;       /* vectors and tables made when the model opened */
    size_t bytes_per_token; /* weights read to generate one token */
    size_t kv_bytes_f16, kv_bytes_f32; /* KV cache of one token */
    nibble_ops layer_ops;              /* of one token through all layers */
    nibble_ops last_ops;               /* of these, such as only a token with logits takes */
    nibble_ops output_ops;             /* of one token's logits */
    size_t tensors;                    /* matrices and vectors */
    size_t kept;                       /* of a quantized model: matrices left as they were */
    size_t unmapped_arrays;            /* compressed in the file: these models are not mapped */
    int bos;                           /* -1 if there is none */
} nibble_model_info;

NIBBLE_API void nibble_model_describe(const nibble_model *m, nibble_model_info *info);

/* Every number of the model's configuration, in order. neutral: it is 0, off, or a factor of 1. */
NIBBLE_API void nibble_model_numbers(const nibble_model *m,
                                     void (*see)(void *arg, const char *name, const char *value,
                                                 bool neutral),
                                     void *arg);

/* What may tell one layer from another. */
typedef struct nibble_layer {
    bool windowed; /* it attends to the latest `window` positions only */
    bool rotates;  /* rope turns its queries and keys */
    bool experts;  /* its feed-forward block is a mixture of them */
} nibble_layer;

NIBBLE_API nibble_layer nibble_model_layer(const nibble_model *m, size_t i); /* i < layers */

/* Whether an address lies in a file that the model has mapped. A signal handler may ask: a mapped
 * file that is cut short in use is answered with SIGBUS. */
NIBBLE_API bool nibble_model_holds(const nibble_model *m, const void *address);

typedef struct nibble_tensor {
    const char *name;   /* without ".weight" */
    const char *format; /* "f16", "affine" */
    size_t rows, cols;  /* a vector has one row */
    int bits, group;    /* of one value; group is 0 unless quantized */
    size_t bytes;
    bool vector;
} nibble_tensor;

NIBBLE_API void nibble_model_tensors(const nibble_model *m,
                                     void (*see)(void *arg, const nibble_tensor *t), void *arg);

/* --- text and tokens -------------------------------------------------------------------------- */

/* The model's tokenizer, owned by it; NULL if it came without one. */
NIBBLE_API const nibble_tokenizer *nibble_model_tokenizer(const nibble_model *m);

/* A tokenizer alone: path as for a model, but weights are not needed. */
NIBBLE_API nibble_tokenizer *nibble_tokenizer_open(const char *path, nibble_error *e);
NIBBLE_API void nibble_tokenizer_close(nibble_tokenizer *t);

typedef struct nibble_ids {
    int *ids; /* malloc'd; free with nibble_free */
    size_t count;
} nibble_ids;

enum {
    NIBBLE_BOS =
        1, /* begin with the BOS token, unless the text already does; one is never added twice */
    NIBBLE_SPECIAL =
        2, /* special tokens written in the text become their ids; else they are plain text */
};

/* Whether the model wants NIBBLE_BOS: it has the token and does not say otherwise. */
NIBBLE_API bool nibble_tokenizer_adds_bos(const nibble_tokenizer *t);

NIBBLE_API size_t nibble_tokenizer_pieces(const nibble_tokenizer *t); /* ids are below that */

typedef struct nibble_tokenizer_info {
    const char *kind; /* "SentencePiece", "tiktoken", "tokenizer.json" */
    const char *file; /* that is used: "tokenizer.json" or "tokenizer.model" */
    const char *why;  /* that of two; NULL: there is no other */
    int bos, eos;     /* -1: there is none */
} nibble_tokenizer_info;

NIBBLE_API void nibble_tokenizer_describe(const nibble_tokenizer *t, nibble_tokenizer_info *info);

/* text may hold NUL and invalid UTF-8. */
NIBBLE_API bool nibble_tokenize(const nibble_tokenizer *t, const char *text, size_t size, int flags,
                                nibble_ids *out, nibble_error *e);

/* So many tokens at least come of any text of so many bytes, that of a conversation too; 0 if no
 * such bound is known. It is there at once, where nibble_tokenize of 10 MB may take 20 s. */
NIBBLE_API size_t nibble_tokens_least(const nibble_tokenizer *t, size_t bytes);

/* The text of a whole sequence, special tokens as their names; malloc'd, *size bytes and a NUL. */
NIBBLE_API bool nibble_detokenize(const nibble_tokenizer *t, const int *ids, size_t n, char **text,
                                  size_t *size, nibble_error *e);

/* The bytes of one token as it stands inside a text, special tokens as their names: at most cap are
 * written, their full number is returned; 0 for an id that has no piece. */
NIBBLE_API size_t nibble_token_text(const nibble_tokenizer *t, int id, char *out, size_t cap);

NIBBLE_API void nibble_free(void *p);

/* --- chat ------------------------------------------------------------------------------------- */

/* What a model wants to see around the messages of a conversation. Templates are not freed; a
 * model's own lives as long as the model. */
typedef struct nibble_template nibble_template;

/* The model's own template, stored with it by scripts/convert.py; NULL if it came without one. */
NIBBLE_API const nibble_template *nibble_model_template(const nibble_model *m);

/* The file of the model that holds its template in Jinja, which is not run; NULL if none does. */
NIBBLE_API const char *nibble_model_jinja(const nibble_model *m);

/* A built-in one; NULL if there is none of that name. */
NIBBLE_API const nibble_template *nibble_template_named(const char *name);
NIBBLE_API const char *nibble_template_names(void); /* "chatml, command-r, ..." */

/* For a command: the built-in one of that name, or the model's own if name is NULL. Where there is
 * none the error says what to do; no template is ever guessed. */
NIBBLE_API const nibble_template *nibble_template_choose(const nibble_model *m, const char *name,
                                                         nibble_error *e);

NIBBLE_API const char *nibble_template_name(const nibble_template *c); /* or "of the model" */

/* Whether a system message reaches the model. Where not, most templates refuse one, and some take
 * no notice of it. */
NIBBLE_API bool nibble_template_has_system(const nibble_template *c);

/* A conversation is a system message or none, then messages of the user and of the assistant in
 * turn, the user's first. */
typedef struct nibble_message {
    const char *role; /* "system", "user" or "assistant" */
    const char *text; /* any bytes; those that are no UTF-8 become U+FFFD */
    size_t size;
} nibble_message;

/* The ids of a conversation, BOS included where the template has one. open: an answer is to follow,
 * if the last message is not the assistant's. Control tokens are those of the template only: what
 * a message spells stays text, be it the name of a special token or of another added token that the
 * template uses. Refuses what the template has no place for: a system message where it takes none,
 * roles that do not take turns. As long as the template allows, the ids of the first messages
 * (closed) begin those of more; most templates do, but for a last few ids. */
NIBBLE_API bool nibble_chat_encode(const nibble_tokenizer *t, const nibble_template *c,
                                   const nibble_message *messages, size_t count, bool open,
                                   nibble_ids *out, nibble_error *e);

/* The text that these are the ids of; malloc'd, *size bytes and a NUL. */
NIBBLE_API bool nibble_chat_text(const nibble_tokenizer *t, const nibble_template *c,
                                 const nibble_message *messages, size_t count, bool open,
                                 char **text, size_t *size, nibble_error *e);

/* The token that ends an answer, -1 if the template has none: to be given to nibble_generate, which
 * knows that of the model's own template by itself. */
NIBBLE_API int nibble_chat_end(const nibble_tokenizer *t, const nibble_template *c);

/* --- running ---------------------------------------------------------------------------------- */

typedef struct nibble_context_options {
    size_t context;      /* positions; 0: the model's, at most what leaves 1 GB of memory free, or
                          * half of it if that is less */
    size_t batch;        /* prompt tokens of one forward pass; 0: 512, or what 48 MB hold */
    int threads;         /* 0: the machine's default, see nibble_machine_probe */
    const char *level;   /* SIMD level at most: "scalar", "avx2", "avx512"; NULL: the best */
    const char *kv_type; /* "f16", "f32" or "q8" (8 bits with scales); NULL: f16 */
    bool blas;           /* prompts of f32, f16 and bf16 weights through OpenBLAS: on some machines
                          * faster, and last bits may then depend on the batch size */
} nibble_context_options;

NIBBLE_API nibble_context_options nibble_context_defaults(void);
NIBBLE_API nibble_context *nibble_context_open(const nibble_model *m,
                                               const nibble_context_options *o, nibble_error *e);
NIBBLE_API void nibble_context_close(nibble_context *c);

typedef struct nibble_context_info {
    size_t context, batch;
    size_t used;      /* tokens in the cache */
    const int *ids;   /* [used] which those are; gone with the next call that changes them */
    size_t own_bytes; /* cache and scratch */
    size_t scratch_bytes;
    size_t kv_bytes; /* of the cache, one token's */
    int threads;
    const char *level, *kv_type;
} nibble_context_info;

NIBBLE_API void nibble_context_describe(const nibble_context *c, nibble_context_info *info);

/* Says that the text will come to so many tokens in all, where it is appended piece by piece. It
 * matters to models whose rope has a table for long texts (LongRoPE), which is chosen by that
 * length; without this by the length after each nibble_eval. */
NIBBLE_API void nibble_expect(nibble_context *c, size_t tokens);

/* Appends n ids. logits may be NULL; else it receives [n, vocab] when all, [vocab] of the last
 * otherwise. */
NIBBLE_API bool nibble_eval(nibble_context *c, const int *ids, size_t n, float *logits, bool all,
                            nibble_error *e);

/* Forgets all tokens from position pos on. */
NIBBLE_API void nibble_rewind(nibble_context *c, size_t pos);

/* Forgets all but the longest beginning of ids [n] that the context holds already, just as if all
 * of them were appended to an empty one now; at most n - 1 tokens. Returns its length: what is
 * left to append is ids from there on. (With the option blas results may then differ in last bits,
 * as with another batch size.) */
NIBBLE_API size_t nibble_keep(nibble_context *c, const int *ids, size_t n);

/* Writes the cache of the first n tokens of a context to a file (docs/model-files.md), which
 * appears only when it is whole. They must have been appended as one text, from an empty context
 * on. What is there and no such file is not replaced. */
NIBBLE_API bool nibble_save_cache(nibble_context *c, const char *path, size_t n, nibble_error *e);

/* Empties the context and fills it with what such a file has in common with ids [n], from the first
 * on: *count tokens. Results are then those of a context that computed them itself, bit for bit. A
 * file that was written by another build, with other weights, config, tokenizer, kv_type or level,
 * is damaged, or begins otherwise is refused with the reason, and the context is empty then; one
 * that nibble_save_cache would not replace with NIBBLE_ARGUMENT. */
NIBBLE_API bool nibble_load_cache(nibble_context *c, const char *path, const int *ids, size_t n,
                                  size_t *count, nibble_error *e);

/* --- generating ------------------------------------------------------------------------------- */

typedef struct nibble_bias {
    int id;
    float value; /* added to the logit; -INFINITY forbids the token */
} nibble_bias;

typedef struct nibble_sampling {
    uint64_t seed;
    float temp; /* 0: greedy */
    int top_k;
    float top_p, min_p, typical;
    float repeat_penalty, presence_penalty, frequency_penalty;
    int repeat_last_n;
    const nibble_bias *bias;
    size_t bias_count;
} nibble_sampling;

/* llama.cpp's defaults: 0.8, top-k 40, top-p 0.95, min-p 0.05, the rest off. */
NIBBLE_API nibble_sampling nibble_sampling_defaults(void);

/* A token as it is chosen; what it points to lasts as long as the call. */
typedef struct nibble_token {
    int id;
    const char *text; /* its own bytes, perhaps a part of a character; an end token has none */
    size_t size;
    const float *logits; /* [vocab] that it was chosen from, before bias, penalties and all else */
} nibble_token;

/* Overwrites in *s what the model's generation_config.json states: temperature (0 with do_sample
 * false), top_k, top_p, min_p, typical_p, repetition_penalty. *found: whether it states any. */
NIBBLE_API bool nibble_model_sampling(const nibble_model *m, nibble_sampling *s, bool *found,
                                      nibble_error *e);

typedef struct nibble_generation {
    nibble_sampling sampling;
    size_t max_tokens;        /* SIZE_MAX: until an end token or a full context */
    const int *ends; /* tokens that end the text, besides those of config, generation_config,
                        tokenizer and the model's own template */
    size_t end_count;
    bool ignore_end;          /* end tokens do not stop the run */
    const char *const *stops; /* strings that end the text; they are not part of it */
    size_t stop_count;
    bool slide;  /* when the context is full: drop the oldest half of what follows the kept tokens,
                  * read the rest again from its new place, and go on */
    size_t keep; /* so many of the context's first tokens, at most those up to the prompt's end */

    void *arg;
    /* Text as it settles: whole characters (but for the very last bytes), no part of a stop string.
     */
    void (*on_text)(void *arg, const char *text, size_t size);
    /* Every token, after the text that settled with it. */
    void (*on_token)(void *arg, const nibble_token *t);
    /* Asked before each forward pass, with the prompt tokens read so far; false ends the run. */
    bool (*go_on)(void *arg, size_t prompt_done);
} nibble_generation;

typedef enum nibble_finish {
    NIBBLE_FINISH_STOP,        /* an end token */
    NIBBLE_FINISH_LENGTH,      /* max_tokens */
    NIBBLE_FINISH_STRING,      /* a stop string */
    NIBBLE_FINISH_CONTEXT,     /* the context is full, and nothing may slide out of it */
    NIBBLE_FINISH_INTERRUPTED, /* go_on said no */
} nibble_finish;

typedef struct nibble_generated {
    nibble_finish finish;
    size_t prompt_tokens, tokens;
    size_t slides, dropped; /* how often a full context slid, and the tokens that it lost */
    uint64_t prompt_ns; /* reading the prompt */
    uint64_t first_ns;  /* from the start to the first token */
    uint64_t tokens_ns; /* from the first token to the last */
} nibble_generated;

/* Appends prompt (n >= 1) to the context and generates. What the context holds already counts as
 * prompt to the penalties. Without a tokenizer there is no text. */
NIBBLE_API bool nibble_generate(nibble_context *c, const nibble_generation *g, const int *prompt,
                                size_t n, nibble_generated *out, nibble_error *e);

/* --- probabilities ---------------------------------------------------------------------------- */

typedef struct nibble_logprob {
    int id;
    double logprob; /* natural logarithm of the probability */
} nibble_logprob;

/* The log-probability of token id under logits [vocab]: log softmax over all of them, in double
 * precision. With n, top [n] receives the likeliest tokens, the likeliest first and the lower id
 * first among equals, as many as there are. */
NIBBLE_API double nibble_logprobs(const float *logits, size_t vocab, int id, nibble_logprob *top,
                                  size_t n);

/* --- files ------------------------------------------------------------------------------------ */

typedef struct nibble_quantization {
    int bits, group; /* 2, 3, 4, 5, 6 or 8, or 32 to decode all to f32; 32, 64 or 128 */
    int embed_bits;  /* of the embedding; 0: as bits */
    int threads;     /* 0: the machine's default */
    int high_bits;   /* of embedding, output and the matrices that lose most; 0: as bits */
    void *arg;
    bool (*progress)(void *arg, size_t done, size_t total); /* bytes; false stops; may be NULL */

    /* Scales and offsets that lose least, in the same format. calibration: ids of a text, whose
     * first `lead` tokens are BOS; errors are then weighed by what each matrix multiplies when the
     * model reads it. NULL: all weigh alike. */
    bool search;
    const int *calibration;
    size_t calibration_count, lead;
} nibble_quantization;

typedef struct nibble_quantized {
    size_t quantized, kept; /* matrices */
    size_t bytes_in, bytes_out;
} nibble_quantized;

/* Writes m as a single .npz with affine quantization, as MLX packs it, and a reference of its own
 * answers (see nibble_reference). */
NIBBLE_API bool nibble_quantize(const nibble_model *m, const char *path,
                                const nibble_quantization *q, nibble_quantized *out,
                                nibble_error *e);

/* --- checking a model's files ----------------------------------------------------------------- */

/* progress, which may be NULL, is told how much of how much is done; false stops the check with
 * NIBBLE_INTERRUPTED. */
typedef bool nibble_progress(void *arg, size_t done, size_t total);

typedef struct nibble_checksums {
    size_t members, bytes; /* compared; 0: the files have no checksums (safetensors) */
} nibble_checksums;

/* Reads the files of path, which need not make a model, and compares them with the checksums that
 * they state. All damaged members are named. */
NIBBLE_API bool nibble_check_files(const char *path, nibble_progress *progress, void *arg,
                                   nibble_checksums *out, nibble_error *e);

/* Refuses NaN and infinity in any tensor, and made of any scale; names all such tensors. */
NIBBLE_API bool nibble_check_numbers(const nibble_model *m, int threads, nibble_progress *progress,
                                     void *arg, nibble_error *e);

/* What the model answers to a few tokens: their ids, and the likeliest tokens that follow with
 * their logits, as JSON text (src/model/reference.h); free with nibble_free. */
NIBBLE_API bool nibble_reference(const nibble_model *m, int threads, const char *level, char **json,
                                 nibble_error *e);

/* Keeps such a text with the model's files: reference.json beside a folder's weights, or an array
 * of that name in an .npz, where it is added in place. It replaces one that is there. */
NIBBLE_API bool nibble_store_reference(const char *path, const char *json, nibble_error *e);

typedef struct nibble_reference_check {
    size_t tokens;            /* 0: the model came without a reference */
    double difference, bound; /* of logits: the largest found, and what is allowed */
} nibble_reference_check;

/* Computes the answer anew and refuses one that differs from that kept with the model. */
NIBBLE_API bool nibble_check_reference(const nibble_model *m, int threads, const char *level,
                                       nibble_reference_check *out, nibble_error *e);

/* --- how well a model predicts a text --------------------------------------------------------- */

/* Appends ids [n] but the last, n >= 2, and gives of each but the first the natural logarithm of
 * its probability: log_p [n - 1], sums in double. progress, which may be NULL, as above. */
NIBBLE_API bool nibble_score(nibble_context *c, const int *ids, size_t n, double *log_p,
                             nibble_progress *progress, void *arg, nibble_error *e);

typedef struct nibble_windows {
    size_t length; /* tokens of one; the context must hold them */
    bool all;      /* score all of a window but its front; else its second half, as llama.cpp */
    size_t stride; /* tokens from one to the next, each scoring what none before it did; 0: what a
                      window scores when all, else its length */
    size_t lead;   /* so many of the text's first tokens (BOS) begin every window */
    size_t most;   /* windows; 0: all */
} nibble_windows;

typedef struct nibble_figures { /* nats a token */
    double mean, error;         /* its standard error */
    double median, p90, p95, p99, most;
} nibble_figures;

typedef struct nibble_perplexity_result {
    size_t windows, tokens; /* tokens: those scored */
    double loss, loss_error; /* mean of -log p and its standard error; perplexity is exp(loss) */

    /* against another model's predictions, if there are any */
    double reference_loss;
    nibble_figures divergence; /* KL(reference || this model) */
    double same_top;           /* share of tokens for which both find the same token likeliest */
    double difference, difference_error; /* mean of log p here - log p there */
} nibble_perplexity_result;

/* Cuts a text into windows, each read by an empty context, and measures how it is predicted.
 * save: an .npz that the predictions go to (src/api/saved.h); kl: one that they are compared with;
 * NULL: none. */
NIBBLE_API bool nibble_perplexity(nibble_context *c, const int *ids, size_t n,
                                  const nibble_windows *w, const char *save, const char *kl,
                                  nibble_progress *progress, void *arg,
                                  nibble_perplexity_result *out, nibble_error *e);

/* --- arrays ----------------------------------------------------------------------------------- */

/* Writes f32 [rows, cols] as a .npy file. */
NIBBLE_API bool nibble_write_npy(const char *path, const float *data, size_t rows, size_t cols,
                                 nibble_error *e);

/* --- measuring -------------------------------------------------------------------------------- */

/* What the threads reach together in loops that do nothing else, the median of some tries of some
 * hundredths of a second each: the limits that a benchmark compares with. */
typedef struct nibble_peaks {
    double read_bytes; /* a second, each thread reading a part of the memory again and again, with
                        * or without asking ahead, whichever is faster */
    double int8_ops;   /* multiply-adds a second, as the level multiplies quantized weights */
    double f32_ops;    /* multiply-adds a second */
} nibble_peaks;

/* memory: the bytes to read (1 MB to 1 GB is taken): with those of a model's weights the limit is
 * that of the cache or memory which holds them. threads and level as in nibble_context_options. */
NIBBLE_API bool nibble_measure_peaks(size_t memory, int threads, const char *level,
                                     nibble_peaks *out, nibble_error *e);

/* One kernel alone on one thread, over operands that stay in the second cache. The strings live as
 * long as the call that shows them. */
typedef struct nibble_kernel_time {
    const char *kernel, *level;
    const char *format; /* of its weights or operands: "4 bits, group 64", "f16" */
    double bytes;       /* of a call: read and written; 0 if all is in registers */
    double ops;         /* of a call: multiply-adds, or elements where none are multiplied */
    double ns;          /* a call, the median of some tries */
} nibble_kernel_time;

/* Times every kernel at every level that this CPU runs and that has one of its own; level: at this
 * one only, NULL: at all. see returns false to end, which is no failure. */
NIBBLE_API bool nibble_measure_kernels(const char *level,
                                       bool (*see)(void *arg, const nibble_kernel_time *t),
                                       void *arg, nibble_error *e);

/* --- the machine and this build --------------------------------------------------------------- */

typedef struct nibble_machine {
    char cpu[64];
    int logical, physical; /* processors and cores this process may use */
    int threads;           /* the default */
    char reason[96];       /* why */
    char levels[64];       /* SIMD levels this build has and this CPU runs, lowest first */
    size_t memory_available;
} nibble_machine;

NIBBLE_API void nibble_machine_probe(nibble_machine *m);

/* Memory of this process: anonymous pages now, and the most ever resident, mapped files included.
 */
NIBBLE_API size_t nibble_memory_private(void);
NIBBLE_API size_t nibble_memory_peak(void);

/* Nanoseconds since an arbitrary start. */
NIBBLE_API uint64_t nibble_clock(void);

NIBBLE_API const char *nibble_version(void); /* "0.1.0" */
NIBBLE_API const char *nibble_commit(void);  /* with a + if more was changed; or "unknown" */

/* Version, commit, compiler, levels built, library versions: lines, each ended by a newline. 1,000
 * bytes are enough. */
NIBBLE_API void nibble_build(char *out, size_t size);

/* OpenBLAS picks its kernels when it is loaded; one older than the CPU falls back to slow ones.
 * This is the value of the environment variable OPENBLAS_CORETYPE with which a fresh process would
 * have the right ones; NULL if this one has them. */
NIBBLE_API const char *nibble_blas_core(void);

/* The length of the valid UTF-8 sequence at the start of text[0..size), 0 if there is none: for
 * callers who must write valid UTF-8 (generated bytes need not be). */
NIBBLE_API size_t nibble_utf8_sequence(const char *text, size_t size);

#ifdef __cplusplus
}
#endif

#endif
