#include "num/feedback.h"

#include <stdbool.h>
#include <string.h>

#include "num/search.h"

enum { ROWS = FEEDBACK_ROWS, MAX_GROUP = 128 };

/* One column of all rows at hand: they lie side by side, so that loops over them are vectors. */
typedef float lanes[ROWS];

struct strip {
    const struct feedback *f;
    lanes *w, *e, *g; /* [cols]: weights; w - v; H e */
    lanes *q;         /* [cols] codes */
    lanes *s, *z;     /* [groups] */
};

/* y[k] += sum over j < n of m[k * cols + j] x[j], for k < rows; m is a part of H or L. */
static void add_products(const struct feedback *f, lanes *y, const float *m, size_t rows,
                         const lanes *x, size_t n) {
    if (rows && n) f->sums(*y, ROWS, m, f->cols, rows, x, sizeof *x, n, ROWS);
}

/* --- column by column ------------------------------------------------------------------------- */

static void seek_line(const struct strip *p, size_t group, const lanes *targets) {
    const struct feedback *f = p->f;
    float w[MAX_GROUP];
    for (int r = 0; r < ROWS; r++) {
        for (int i = 0; i < f->group; i++) w[i] = targets[i][r];
        search_group(w, f->diagonal + group * (size_t)f->group, f->group, f->bits, f->dtype,
                     &p->s[group][r], &p->z[group][r]);
    }
}

static void round_group(const struct strip *p, size_t group) {
    const struct feedback *f = p->f;
    size_t length = (size_t)f->group, begin = group * length;
    lanes targets[MAX_GROUP];
    memcpy(targets, p->w + begin, length * sizeof *targets);
    add_products(f, targets, f->factor + begin * f->cols, length, p->e, begin);
    seek_line(p, group, targets);
    for (size_t i = 0; i < length; i++) {
        size_t c = begin + i;
        add_products(f, targets + i, f->factor + c * f->cols + begin, 1, p->e + begin, i);
        for (int r = 0; r < ROWS; r++) {
            float s = p->s[group][r], z = p->z[group][r];
            p->q[c][r] = search_code(targets[i][r], s, z, f->bits);
            p->e[c][r] = p->w[c][r] - (s * p->q[c][r] + z);
        }
    }
}

/* --- sweeps ----------------------------------------------------------------------------------- */

/* A group on its way to something better; what changes outside of it waits for the end. */
struct turn {
    const struct strip *p;
    size_t group, begin, length;
    const float *h;          /* its block of H */
    lanes change[MAX_GROUP]; /* of e, so far */
};

/* e and its products take on a change of the group's columns first .. first + count - 1. */
static void take(struct turn *t, const lanes *change, size_t first, size_t count) {
    const struct strip *p = t->p;
    for (size_t i = 0; i < count; i++) {
        for (int r = 0; r < ROWS; r++) {
            t->change[first + i][r] += change[i][r];
            p->e[t->begin + first + i][r] += change[i][r];
        }
    }
    add_products(p->f, p->g + t->begin, t->h + first, t->length, change, count);
}

/* How e^T H e moves with the scale's and the offset's change: with d = ds q + dz on v, by
 * ds^2 qq + 2 ds dz qo + dz^2 oo - 2 (ds qg + dz og). */
struct slope {
    lanes qq, qo, oo, qg, og;
};

static void find_slope(const struct turn *t, struct slope *out) {
    const struct strip *p = t->p;
    const lanes *q = p->q + t->begin, *g = p->g + t->begin;
    lanes products[MAX_GROUP] = {{0}};
    add_products(p->f, products, t->h, t->length, q, t->length);
    memset(out, 0, sizeof *out);
    for (size_t i = 0; i < t->length; i++) {
        float ones = 0;
        for (size_t k = 0; k < t->length; k++) ones += t->h[i * p->f->cols + k];
        for (int r = 0; r < ROWS; r++) {
            out->qq[r] += q[i][r] * products[i][r];
            out->qo[r] += products[i][r];
            out->oo[r] += ones;
            out->qg[r] += q[i][r] * g[i][r];
            out->og[r] += g[i][r];
        }
    }
}

/* The best scale and offset for the codes as they are, of one row; false if they are that already.
 */
static bool improve_line(const struct slope *m, int r, enum dtype dtype, float *s, float *z) {
    double det = (double)m->qq[r] * (double)m->oo[r] - (double)m->qo[r] * (double)m->qo[r];
    double ds = 0, dz = (double)m->og[r] / (double)m->oo[r];
    if (det > 1e-6 * (double)m->qq[r] * (double)m->oo[r]) {
        ds = ((double)m->qg[r] * (double)m->oo[r] - (double)m->og[r] * (double)m->qo[r]) / det;
        dz = ((double)m->og[r] * (double)m->qq[r] - (double)m->qg[r] * (double)m->qo[r]) / det;
    }
    float new_s = search_round((float)((double)*s + ds), dtype);
    float new_z = search_round((float)((double)*z + dz), dtype);
    ds = (double)new_s - (double)*s;
    dz = (double)new_z - (double)*z;
    double change = ds * ds * (double)m->qq[r] + 2 * ds * dz * (double)m->qo[r] +
                    dz * dz * (double)m->oo[r] -
                    2 * (ds * (double)m->qg[r] + dz * (double)m->og[r]);
    if (!(change < 0)) return false; /* or not a number */
    *s = new_s;
    *z = new_z;
    return true;
}

static void improve_lines(struct turn *t) {
    const struct strip *p = t->p;
    struct slope slope;
    lanes old_s, old_z, change[MAX_GROUP];
    memcpy(old_s, p->s[t->group], sizeof old_s);
    memcpy(old_z, p->z[t->group], sizeof old_z);
    find_slope(t, &slope);
    for (int r = 0; r < ROWS; r++) {
        improve_line(&slope, r, p->f->dtype, &p->s[t->group][r], &p->z[t->group][r]);
    }
    for (size_t i = 0; i < t->length; i++) {
        for (int r = 0; r < ROWS; r++) {
            float q = p->q[t->begin + i][r];
            change[i][r] = (old_s[r] - p->s[t->group][r]) * q + (old_z[r] - p->z[t->group][r]);
        }
    }
    take(t, change, 0, t->length);
}

static void improve_codes(struct turn *t) {
    const struct strip *p = t->p;
    for (size_t i = 0; i < t->length; i++) {
        size_t c = t->begin + i;
        float own = t->h[i * p->f->cols + i];
        lanes change;
        for (int r = 0; r < ROWS; r++) {
            float s = p->s[t->group][r], z = p->z[t->group][r], q = p->q[c][r];
            float best = search_code(s * q + z + p->g[c][r] / own, s, z, p->f->bits);
            change[r] = s * (q - best);
            p->q[c][r] = best;
        }
        take(t, (const lanes *)&change, i, 1);
    }
}

static void improve_group(const struct strip *p, size_t group) {
    const struct feedback *f = p->f;
    size_t length = (size_t)f->group, begin = group * length, end = begin + length;
    struct turn t = {p, group, begin, length, f->h + begin * f->cols + begin, {{0}}};
    improve_lines(&t);
    improve_codes(&t);
    const lanes *change = (const lanes *)t.change;
    add_products(f, p->g, f->h + begin, begin, change, length);
    add_products(f, p->g + end, f->h + end * f->cols + begin, f->cols - end, change, length);
}

/* --- all of it -------------------------------------------------------------------------------- */

size_t feedback_scratch(size_t cols, int group) {
    return ROWS * (4 * cols + 2 * cols / (size_t)group);
}

static struct strip lay_out(const struct feedback *f, float *scratch) {
    lanes *at = (lanes *)scratch;
    size_t cols = f->cols, groups = cols / (size_t)f->group;
    return (struct strip){
        f, at, at + cols, at + 2 * cols, at + 3 * cols, at + 4 * cols, at + 4 * cols + groups};
}

static void load(const struct strip *p, const float *w, size_t count) {
    size_t cols = p->f->cols;
    for (size_t c = 0; c < cols; c++) {
        for (size_t r = 0; r < ROWS; r++) p->w[c][r] = r < count ? w[r * cols + c] : 0;
    }
}

static void store(const struct strip *p, size_t count, const struct feedback_rows *out) {
    size_t cols = p->f->cols, groups = cols / (size_t)p->f->group;
    for (size_t r = 0; r < count; r++) {
        for (size_t c = 0; c < cols; c++) out->q[r * cols + c] = (unsigned char)p->q[c][r];
        for (size_t g = 0; g < groups; g++) {
            out->s[r * groups + g] = p->s[g][r];
            out->z[r * groups + g] = p->z[g][r];
        }
    }
}

void feedback_encode(const struct feedback *f, const float *w, size_t count,
                     const struct feedback_rows *out, float *scratch) {
    struct strip p = lay_out(f, scratch);
    size_t groups = f->cols / (size_t)f->group;
    load(&p, w, count);
    for (size_t g = 0; g < groups; g++) round_group(&p, g);
    memset(p.g, 0, f->cols * sizeof *p.g);
    if (f->sweeps) add_products(f, p.g, f->h, f->cols, (const lanes *)p.e, f->cols);
    for (int sweep = 0; sweep < f->sweeps; sweep++) {
        for (size_t g = 0; g < groups; g++) improve_group(&p, g);
    }
    store(&p, count, out);
}
