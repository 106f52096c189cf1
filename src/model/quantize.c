#include "model/quantize.h"

#include <cjson/cJSON.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/pool.h"
#include "model/encode.h"
#include "num/affine.h"
#include "store/write.h"

enum { NAME_BYTES = 160 };

enum { DECODED = 32 }; /* as bits: matrices become f32 */

/* What is added to the diagonal of Gram matrices, see model/calibrate.h. Rows of an embedding that
 * is the output too are also read as they are, where all columns count alike. */
static const double DAMP = 0.01, EMBED_DAMP = 2;

struct quantizer;

/* One array of the output. */
struct member {
    struct quantizer *q;
    const struct mat *from; /* NULL: bytes are copied as they are */
    int bits;
    int plane;    /* of the encoded matrix */
    size_t stage; /* its layer; their number, if it is in none */
    struct span bytes;
};

/* What a matrix became. */
struct encoded {
    const struct mat *from;
    struct mat mat;
};

struct quantizer {
    const struct model *model;
    const struct quantize_options *options;
    struct quantize_report *report;
    struct writer *writer;
    struct encoder encoder;
    size_t widest;                   /* columns of the widest matrix */
    struct calibration *calibration; /* NULL: there is none */
    struct pool *pool;               /* without one */
    struct member *members; /* [capacity]: never moves, the writer holds pointers into it */
    size_t count, capacity;
    bool adding_last;
    struct encoded *encoded; /* [capacity] in memory: one, or those of a layer */
    size_t encoded_count;
    size_t done;  /* bytes of weights read */
    char *config; /* the new config.json */
    struct error *e;
    bool ok;
};

static bool go_on(struct quantizer *q, struct error *e) {
    const struct quantize_options *o = q->options;
    if (!o->progress || o->progress(o->arg, q->done, q->report->bytes_in)) return true;
    return fail(e, STATUS_INTERRUPTED, "interrupted; nothing was written");
}

/* --- encoding ------------------------------------------------------------------------------- */

/* What becomes of a matrix, without its planes. */
static struct mat target_of(const struct quantizer *q, const struct mat *from, int bits) {
    if (bits == DECODED) return format_plain(DTYPE_F32, from->rows, from->cols, NULL);
    return affine_mat(from->rows, from->cols, bits, q->options->group, from->dtype, NULL, NULL,
                      NULL);
}

static void drop(struct encoded *list, size_t count) {
    for (size_t i = 0; i < count; i++) encode_free(&list[i].mat);
}

static void drop_all(struct quantizer *q) {
    drop(q->encoded, q->encoded_count);
    q->encoded_count = 0;
}

static const struct mat *find_encoded(const struct quantizer *q, const struct mat *from) {
    for (size_t i = 0; i < q->encoded_count; i++) {
        if (q->encoded[i].from == from) return &q->encoded[i].mat;
    }
    return NULL;
}

static bool encode(struct quantizer *q, const struct member *m, struct error *e) {
    struct metric metric = {0};
    struct encoded *to = &q->encoded[q->encoded_count];
    *to = (struct encoded){m->from, target_of(q, m->from, m->bits)};
    if (q->calibration && m->bits != DECODED) {
        bool embeds = m->from == &q->model->weights.embed;
        if (!calibrate_metric(q->calibration, m->from, embeds ? EMBED_DAMP : DAMP, &metric, e))
            return false;
    }
    if (!encode_matrix(&q->encoder, &to->mat, m->from, &metric, e)) return false;
    q->encoded_count++;
    q->done += format_bytes(m->from);
    return true;
}

/* Encodes all matrices of a layer, or of none, measured behind the layers that are encoded. */
static bool encode_stage(struct quantizer *q, size_t stage, struct error *e) {
    size_t layers = q->model->spec.layers;
    bool ok = stage < layers ? calibrate_layer(q->calibration, stage, e)
                             : calibrate_output(q->calibration, e);
    drop_all(q); /* what the layer before was computed with */
    for (size_t i = 0; ok && i < q->count; i++) {
        const struct member *m = &q->members[i];
        if (m->from && m->plane == 0 && m->stage == stage) ok = go_on(q, e) && encode(q, m, e);
    }
    for (size_t i = 0; ok && i < q->encoded_count; i++) {
        calibrate_replace(q->calibration, q->encoded[i].from, &q->encoded[i].mat);
    }
    return ok;
}

static bool produce(void *arg, struct span *bytes, struct error *e) {
    const struct member *m = arg;
    struct quantizer *q = m->q;
    if (!go_on(q, e)) return false;
    *bytes = m->bytes;
    if (!m->from) return true;
    if (!find_encoded(q, m->from)) {
        if (!q->calibration) drop_all(q);
        if (q->calibration ? !encode_stage(q, m->stage, e) : !encode(q, m, e)) return false;
    }
    bytes->data = find_encoded(q, m->from)->plane[m->plane];
    return true;
}

/* --- declaring the arrays ------------------------------------------------------------------- */

static void add(struct quantizer *q, const char *name, enum dtype dtype, int dims,
                const uint64_t *shape, struct member member) {
    if (!q->ok) return;
    struct member *m = &q->members[q->count++];
    *m = member;
    m->q = q;
    q->report->bytes_out += m->bytes.size;
    q->ok = write_array(q->writer, name, dtype, dims, shape, produce, m, q->e);
}

static void add_file(struct quantizer *q, const char *name, struct span bytes) {
    uint64_t length = bytes.size;
    if (bytes.data) add(q, name, DTYPE_U8, 1, &length, (struct member){.bytes = bytes});
}

/* An array of the source, unchanged. */
static void add_copy(struct quantizer *q, const char *module, const char *suffix) {
    char name[NAME_BYTES];
    snprintf(name, sizeof name, "%s%s", module, suffix);
    const struct array *a = store_find(&q->model->store, name);
    if (a) add(q, name, a->dtype, a->dims, a->shape, (struct member){.bytes = a->bytes});
}

static bool is_among(const struct mat *m, const struct mat *first, size_t count) {
    uintptr_t at = (uintptr_t)m, begin = (uintptr_t)first;
    return at >= begin && at - begin < count * sizeof *first;
}

static size_t stage_of(const struct model *m, const struct mat *mat) {
    size_t i = 0, experts = m->spec.experts;
    for (; i < m->spec.layers; i++) {
        const struct layer *l = &m->weights.layers[i];
        if ((const void *)mat >= (const void *)l && (const void *)mat < (const void *)(l + 1))
            break;
        if (!l->expert_up) continue;
        if (is_among(mat, l->expert_up, experts) || is_among(mat, l->expert_down, experts) ||
            (l->expert_gate && is_among(mat, l->expert_gate, experts))) {
            break;
        }
    }
    return i;
}

/* Plane by plane, what a matrix becomes. */
static void add_matrix(struct quantizer *q, const char *module, const struct mat *from, int bits) {
    static const char *const suffix[MAT_PLANES] = {"weight", "scales", "biases"};
    struct mat to = target_of(q, from, bits);
    for (int p = 0; p < MAT_PLANES; p++) {
        enum dtype dtype = p == 0 && to.group ? DTYPE_U32 : to.dtype;
        uint64_t shape[2] = {to.rows, to.stride[p] / dtype_bytes(dtype)};
        char name[NAME_BYTES];
        if (!to.stride[p]) continue;
        snprintf(name, sizeof name, "%s.%s", module, suffix[p]);
        add(q, name, dtype, 2, shape,
            (struct member){
                .from = from,
                .bits = bits,
                .plane = p,
                .stage = stage_of(q->model, from),
                .bytes.size = to.rows * to.stride[p],
            });
    }
}

/* Values and feed-forward outputs of some layers, by the rule of MLX's mixed recipes (which is that
 * of llama.cpp's Q4_K_M): the first and the last eighth, and every third between. */
static bool is_sensitive(const struct model *m, const struct mat *mat) {
    size_t layers = m->spec.layers, eighth = layers / 8;
    for (size_t i = 0; i < layers; i++) {
        const struct layer *l = &m->weights.layers[i];
        bool here = i < eighth || i >= 7 * layers / 8 || (i - eighth) % 3 == 2;
        if (!here) continue;
        if (mat == &l->wv || mat == &l->v_b || mat == &l->down || mat == &l->shared_down ||
            is_among(mat, l->expert_down, l->expert_down ? m->spec.experts : 0)) {
            return true;
        }
    }
    return false;
}

/* The bits that a matrix should have. */
static int wanted_bits(const struct quantizer *q, const struct mat *mat) {
    const struct quantize_options *o = q->options;
    const struct weights *w = &q->model->weights;
    if (mat == &w->embed && o->embed_bits) return o->embed_bits;
    if (!o->high_bits) return o->bits;
    bool ends = mat == &w->embed || mat == &w->output;
    return ends || is_sensitive(q->model, mat) ? o->high_bits : o->bits;
}

/* The bits of a matrix in the output; 0: it stays as it is. Parts of larger tensors get one of
 * their own, whatever their type. */
static int bits_of(const struct quantizer *q, const struct weights_tensor *t) {
    int bits = wanted_bits(q, t->mat);
    if (bits == DECODED || t->mat->cols % (size_t)q->options->group == 0) return bits;
    return t->source ? 0 : DECODED;
}

/* One that is no array of the source: rows of it, or of several. */
static void add_vector(struct quantizer *q, const struct weights_tensor *t) {
    uint64_t shape[2] = {t->rows, t->cols};
    struct span bytes = {(const unsigned char *)t->vec, t->rows * t->cols * sizeof(float)};
    bool row = t->rows == 1;
    char name[NAME_BYTES];
    snprintf(name, sizeof name, "%s%s", t->name, t->plain_name ? "" : ".weight");
    add(q, name, DTYPE_F32, row ? 1 : 2, row ? shape + 1 : shape, (struct member){.bytes = bytes});
}

/* What is measured behind all layers comes behind them. */
static void add_tensor(void *arg, const struct weights_tensor *t) {
    struct quantizer *q = arg;
    bool last = q->calibration && t->mat && stage_of(q->model, t->mat) == q->model->spec.layers;
    if (last != q->adding_last) return;
    int bits = t->mat ? bits_of(q, t) : 0;
    if (bits) {
        q->report->quantized += bits != DECODED || q->options->bits == DECODED;
        q->report->kept += bits == DECODED && q->options->bits != DECODED;
        add_matrix(q, t->name, t->mat, bits);
        return;
    }
    if (!t->source) {
        add_vector(q, t);
        return;
    }
    q->report->kept += t->mat != NULL;
    add_copy(q, t->name, t->plain_name ? "" : ".weight");
    add_copy(q, t->name, ".scales");
    add_copy(q, t->name, ".biases");
}

/* --- the config ----------------------------------------------------------------------------- */

static void put_width(cJSON *object, int bits, int group) {
    cJSON_AddNumberToObject(object, "group_size", group);
    cJSON_AddNumberToObject(object, "bits", bits);
}

struct config_entry {
    struct quantizer *q;
    cJSON *quantization;
};

/* MLX's way to say that a module differs: its path with a width of its own, or false. */
static void put_override(void *arg, const struct weights_tensor *t) {
    struct config_entry *entry = arg;
    struct quantizer *q = entry->q;
    int bits = t->mat ? bits_of(q, t) : q->options->bits;
    if (bits == 0 || bits == DECODED)
        cJSON_AddFalseToObject(entry->quantization, t->name);
    else if (bits != q->options->bits)
        put_width(cJSON_AddObjectToObject(entry->quantization, t->name), bits, q->options->group);
}

/* The source's config with its "quantization" replaced. */
static bool make_config(struct quantizer *q, struct error *e) {
    const struct store *store = &q->model->store;
    struct span text = store_file(store, "config.json");
    if (!text.data) text = store_file(store, "params.json");
    cJSON *root = cJSON_ParseWithLength((const char *)text.data, text.size);
    cJSON_DeleteItemFromObjectCaseSensitive(root, "quantization");
    cJSON_DeleteItemFromObjectCaseSensitive(root, "quantization_config");
    if (q->options->bits != DECODED) {
        struct config_entry entry = {q, cJSON_AddObjectToObject(root, "quantization")};
        put_width(entry.quantization, q->options->bits, q->options->group);
        weights_each(&q->model->weights, &q->model->spec, &q->model->store, put_override, &entry);
    }
    q->config = cJSON_Print(root);
    cJSON_Delete(root);
    return q->config || fail(e, STATUS_MEMORY, "not enough memory for the config");
}

/* --- all of it ------------------------------------------------------------------------------ */

static void measure(void *arg, const struct weights_tensor *t) {
    struct quantizer *q = arg;
    q->capacity += MAT_PLANES;
    q->report->bytes_in += t->mat ? format_bytes(t->mat) : t->rows * t->cols * sizeof(float);
    if (t->mat && t->mat->cols > q->widest) q->widest = t->mat->cols;
}

static bool go_on_calibrating(void *arg) {
    struct quantizer *q = arg;
    const struct quantize_options *o = q->options;
    return !o->progress || o->progress(o->arg, q->done, q->report->bytes_in);
}

/* Threads, and what encodes with them; those of the run that measures, if there is one. */
static bool prepare_encoder(struct quantizer *q, struct error *e) {
    const struct quantize_options *o = q->options;
    if (o->calibration) {
        if (!calibrate_open(&q->calibration, q->model, o->calibration, o->threads,
                            go_on_calibrating, q, e)) {
            return false;
        }
        q->model = calibrate_model(q->calibration);
    } else if (!pool_open(&q->pool, o->threads, e)) {
        return false;
    }
    const struct backend *b = q->calibration ? calibrate_backend(q->calibration) : NULL;
    return encode_open(&q->encoder, b ? b->pool : q->pool, q->widest, o->search || b,
                       b ? b->kern.sums_f32 : NULL, e);
}

static bool prepare(struct quantizer *q, const char *path, struct error *e) {
    static const char *const files[] = {"tokenizer.model",        "tokenizer.json",
                                        "generation_config.json", "added_tokens.json",
                                        "tokenizer_config.json",  "chat_segments.json"};
    enum { FILES = sizeof files / sizeof *files };
    const struct model *m = q->model;
    weights_each(&m->weights, &m->spec, &m->store, measure, q);
    q->capacity += FILES + 1;
    q->members = calloc(q->capacity, sizeof *q->members);
    q->encoded = calloc(q->capacity, sizeof *q->encoded);
    if (!q->members || !q->encoded) return fail(e, STATUS_MEMORY, "not enough memory to quantize");
    if (!prepare_encoder(q, e) || !make_config(q, e) || !write_open(&q->writer, path, e))
        return false;
    add_file(q, "config.json", (struct span){(const unsigned char *)q->config, strlen(q->config)});
    for (int i = 0; i < FILES; i++) add_file(q, files[i], store_file(&m->store, files[i]));
    m = q->model;
    weights_each(&m->weights, &m->spec, &m->store, add_tensor, q);
    q->adding_last = true;
    if (q->calibration) weights_each(&m->weights, &m->spec, &m->store, add_tensor, q);
    return q->ok;
}

static bool is_width(int bits) {
    return bits == DECODED || affine_valid(bits, 32);
}

static bool check(const struct quantize_options *o, struct error *e) {
    int embed = o->embed_bits ? o->embed_bits : o->bits;
    if (!is_width(o->bits) || !is_width(embed)) {
        return fail(e, STATUS_ARGUMENT,
                    "%d bits: a width is 2, 3, 4, 5, 6 or 8, or 32 for matrices in f32",
                    is_width(o->bits) ? embed : o->bits);
    }
    if (o->bits == DECODED && embed != DECODED) {
        return fail(e, STATUS_ARGUMENT,
                    "%d bits for the embedding alone: with 32 for the others nothing is quantized",
                    embed);
    }
    if (o->bits == DECODED && (o->search || o->calibration)) {
        return fail(e, STATUS_ARGUMENT, "with 32 bits there are no scales to search for");
    }
    if (affine_valid(8, o->group)) return true;
    return fail(e, STATUS_ARGUMENT, "group size %d: it must be 32, 64 or 128", o->group);
}

static bool check_high(const struct quantize_options *o, struct error *e) {
    if (!o->high_bits || (affine_valid(o->high_bits, 32) && o->high_bits > o->bits)) return true;
    return fail(e, STATUS_ARGUMENT,
                "%d bits for the sensitive matrices: it must be a width of at most 8, more than "
                "the %d of the others",
                o->high_bits, o->bits);
}

bool quantize(const struct model *m, const char *path, const struct quantize_options *o,
              struct quantize_report *report, struct error *e) {
    *report = (struct quantize_report){0};
    if (!check(o, e) || !check_high(o, e)) return false;
    struct quantizer q = {.model = m, .options = o, .report = report, .e = e, .ok = true};
    bool ok = prepare(&q, path, e);
    if (ok) {
        ok = write_commit(q.writer, e);
        q.writer = NULL;
    }
    write_discard(q.writer);
    drop_all(&q);
    encode_close(&q.encoder);
    calibrate_close(q.calibration);
    pool_close(q.pool);
    free(q.members);
    free(q.encoded);
    cJSON_free(q.config);
    return ok;
}
