#include "store/npy.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum { MAX_HEADER_TEXT = 65536, ALIGNMENT = 64 };

enum { SEEN_DESCR = 1, SEEN_ORDER = 2, SEEN_SHAPE = 4, SEEN_ALL = 7 };

/* The header is a Python dict literal of three known keys. Functions that can find it wrong return
 * what is wrong, NULL if all is well. */
struct header {
    const char *at, *end; /* the text not read yet */
    unsigned seen;
    char descr[16];
    bool fortran;
    int dims;
    uint64_t shape[NPY_MAX_DIMS];
};

static void skip_space(struct header *h) {
    while (h->at < h->end && (*h->at == ' ' || *h->at == '\n' || *h->at == '\t')) h->at++;
}

static bool accept(struct header *h, char c) {
    skip_space(h);
    if (h->at == h->end || *h->at != c) return false;
    h->at++;
    return true;
}

static bool accept_word(struct header *h, const char *word) {
    size_t n = strlen(word);
    skip_space(h);
    if ((size_t)(h->end - h->at) < n || memcmp(h->at, word, n) != 0) return false;
    h->at += n;
    return true;
}

/* A string in either kind of quotes, without escapes, shorter than size. */
static bool accept_string(struct header *h, char *out, size_t size) {
    char quote = accept(h, '\'') ? '\'' : accept(h, '"') ? '"' : 0;
    size_t n = 0;
    if (!quote) return false;
    while (h->at < h->end && *h->at != quote && *h->at != '\\' && *h->at != 0 && n + 1 < size) {
        out[n++] = *h->at++;
    }
    out[n] = 0;
    if (h->at == h->end || *h->at != quote) return false;
    h->at++;
    return true;
}

static const char *parse_dimension(struct header *h) {
    uint64_t v = 0;
    const char *start = h->at;
    if (h->dims == NPY_MAX_DIMS) return "more than 8 dimensions";
    if (start < h->end && *start == '-') return "a negative dimension";
    for (; h->at < h->end && *h->at >= '0' && *h->at <= '9'; h->at++) {
        uint64_t digit = (uint64_t)(*h->at - '0');
        if (v > (UINT64_MAX - digit) / 10) return "a dimension beyond 64 bits";
        v = v * 10 + digit;
    }
    if (h->at == start) return "a dimension that is not a number";
    if (h->at < h->end && *h->at == 'L') h->at++; /* a long of Python 2 */
    h->shape[h->dims++] = v;
    return NULL;
}

/* A tuple: "()", "(3,)", "(3, 4)" and, as MLX writes it, "(3, 4, )". */
static const char *parse_shape(struct header *h) {
    bool comma = false;
    if (!accept(h, '(')) return "a shape that is not a tuple";
    while (!accept(h, ')')) {
        if (h->dims > 0 && !comma) return "a shape without ',' between its numbers";
        const char *wrong = parse_dimension(h);
        if (wrong) return wrong;
        comma = accept(h, ',');
    }
    return h->dims == 1 && !comma ? "a shape that is not a tuple" : NULL;
}

static const char *parse_value(struct header *h, unsigned key) {
    if (h->seen & key) return "a key twice";
    h->seen |= key;
    if (key == SEEN_SHAPE) return parse_shape(h);
    if (key == SEEN_DESCR) {
        if (accept(h, '[')) return "structured elements";
        return accept_string(h, h->descr, sizeof h->descr) ? NULL : "no short string as descr";
    }
    h->fortran = accept_word(h, "True");
    return h->fortran || accept_word(h, "False") ? NULL : "neither True nor False as order";
}

static unsigned key_named(const char *name) {
    if (strcmp(name, "descr") == 0) return SEEN_DESCR;
    if (strcmp(name, "fortran_order") == 0) return SEEN_ORDER;
    return strcmp(name, "shape") == 0 ? SEEN_SHAPE : 0;
}

static const char *parse_dict(struct header *h) {
    bool comma = true;
    if (!accept(h, '{')) return "no '{' at its start";
    while (!accept(h, '}')) {
        char name[16];
        if (!comma) return "no ',' between its entries";
        unsigned key = accept_string(h, name, sizeof name) ? key_named(name) : 0;
        if (!key) return "a key that is none of descr, fortran_order and shape";
        if (!accept(h, ':')) return "no ':' after a key";
        const char *wrong = parse_value(h, key);
        if (wrong) return wrong;
        comma = accept(h, ',');
    }
    skip_space(h);
    if (h->at != h->end) return "text after its end";
    return h->seen == SEEN_ALL ? NULL : "no descr, no fortran_order or no shape";
}

/* Finds the text of the header; *data is where the elements begin. */
static bool find_text(struct span file, const char *name, struct header *h, size_t *data,
                      struct error *e) {
    const unsigned char *p = file.data;
    if (file.size < 10 || memcmp(p, "\x93NUMPY", 6) != 0) {
        return fail(e, STATUS_FORMAT, "%s is not in npy format; save it with numpy", name);
    }
    if ((p[6] != 1 && p[6] != 2) || p[7] != 0) {
        return fail(e, STATUS_FORMAT,
                    "%s is in version %d.%d of the npy format and nibble reads 1.0 and 2.0; save "
                    "it again as a plain array of numbers",
                    name, p[6], p[7]);
    }
    size_t prefix = p[6] == 1 ? 10 : 12;
    size_t text = (size_t)p[8] | (size_t)p[9] << 8;
    if (prefix == 12 && file.size >= 12) text |= (size_t)p[10] << 16 | (size_t)p[11] << 24;
    if (file.size < prefix || text > file.size - prefix || text > MAX_HEADER_TEXT) {
        return fail(e, STATUS_FORMAT,
                    "%s has %zu bytes of npy header in %zu bytes of array; the file is damaged, "
                    "copy it again",
                    name, text, file.size);
    }
    h->at = (const char *)p + prefix;
    h->end = h->at + text;
    *data = prefix + text;
    return true;
}

static bool check_type(const char *descr, const char *name, enum dtype *dtype, struct error *e) {
    *dtype = dtype_from_descr(descr);
    if (*dtype != DTYPE_COUNT) return true;
    if (descr[0] == 'O' || (descr[0] && descr[1] == 'O')) {
        return fail(e, STATUS_FORMAT,
                    "%s holds pickled objects, which nibble never loads; save it as a plain array "
                    "of numbers",
                    name);
    }
    if (descr[0] == '>') {
        return fail(e, STATUS_FORMAT,
                    "%s has big-endian elements ('%s'); save it in little-endian order", name,
                    descr);
    }
    return fail(e, STATUS_FORMAT,
                "%s has elements of type '%s', which nibble does not read; save it as float32, "
                "float16 or integers",
                name, descr);
}

/* Fortran order is C order as long as only one index moves: MLX says True for every vector. */
static bool is_row_major(const struct header *h) {
    int above_one = 0;
    for (int i = 0; i < h->dims; i++) above_one += h->shape[i] > 1;
    return !h->fortran || above_one <= 1;
}

bool npy_bytes(enum dtype dtype, int dims, const uint64_t *shape, size_t *bytes) {
    size_t product = dtype_bytes(dtype);
    bool empty = false;
    for (int i = 0; i < dims; i++) {
        if (shape[i] == 0) {
            empty = true;
        } else if (shape[i] > (size_t)PTRDIFF_MAX / product) {
            return false;
        } else {
            product *= (size_t)shape[i];
        }
    }
    *bytes = empty ? 0 : product;
    return true;
}

bool npy_parse(struct span file, const char *name, struct npy *out, struct error *e) {
    struct header h = {0};
    *out = (struct npy){0};
    if (!find_text(file, name, &h, &out->header_bytes, e)) return false;
    const char *wrong = parse_dict(&h);
    if (wrong) {
        return fail(e, STATUS_FORMAT, "%s has an npy header with %s; save it again with numpy",
                    name, wrong);
    }
    if (!check_type(h.descr, name, &out->dtype, e)) return false;
    if (!is_row_major(&h)) {
        return fail(e, STATUS_FORMAT,
                    "%s is stored in Fortran order; save it again after numpy.ascontiguousarray",
                    name);
    }
    if (!npy_bytes(out->dtype, h.dims, h.shape, &out->data_bytes)) {
        return fail(e, STATUS_FORMAT,
                    "%s has a shape with more elements than memory can hold; the file is damaged, "
                    "copy it again",
                    name);
    }
    size_t found = file.size - out->header_bytes;
    if (found != out->data_bytes) {
        return fail(e, STATUS_FORMAT,
                    "%s holds %zu bytes of data where its shape and type need %zu; the file is "
                    "damaged, copy it again",
                    name, found, out->data_bytes);
    }
    out->dims = h.dims;
    memcpy(out->shape, h.shape, sizeof out->shape);
    return true;
}

size_t npy_header(unsigned char out[NPY_MAX_HEADER], enum dtype dtype, int dims,
                  const uint64_t *shape, uint64_t offset) {
    char text[NPY_MAX_HEADER];
    /* MLX looks for descr at column 11 and for the order at column 34. */
    int n = snprintf(text, sizeof text, "{'descr': '%s', 'fortran_order': False, 'shape': (",
                     dtype_descr(dtype));
    for (int i = 0; i < dims; i++) {
        n += snprintf(text + n, sizeof text - (size_t)n, "%s%" PRIu64 "%s", i ? ", " : "", shape[i],
                      dims == 1 ? "," : "");
    }
    n += snprintf(text + n, sizeof text - (size_t)n, "), }");
    size_t used = 10 + (size_t)n + 1;
    size_t total = used + (size_t)(-(offset + used) % ALIGNMENT);
    memcpy(out, "\x93NUMPY\x01\x00", 8);
    out[8] = (unsigned char)((total - 10) & 255);
    out[9] = (unsigned char)((total - 10) >> 8);
    memcpy(out + 10, text, (size_t)n);
    memset(out + 10 + n, ' ', total - 10 - (size_t)n);
    out[total - 1] = '\n';
    return total;
}
