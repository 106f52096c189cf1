#include <cjson/cJSON.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/bench.h"
#include "cli/output.h"

static void add_text(FILE *line, const char *text) {
    bool plain = !strpbrk(text, ",\"\r\n");
    if (!plain) fputc('"', line);
    for (const char *p = text; *p; p++) {
        if (*p == '"') fputc('"', line);
        fputc(*p, line);
    }
    if (!plain) fputc('"', line);
}

/* Counts in full, all else with as many digits as a clock is good for. */
static void add_number(FILE *line, double x) {
    if (isnan(x)) return;
    fprintf(line, x == floor(x) && fabs(x) < 1e15 ? "%.0f" : "%.9g", x);
}

void bench_write_csv(const struct bench_fields *f, bool names) {
    char *text = NULL;
    size_t size;
    FILE *line = open_memstream(&text, &size);
    if (!line) return;
    for (int i = 0; i < f->count; i++) {
        const struct bench_field *field = &f->items[i];
        if (i) fputc(',', line);
        if (names || field->text)
            add_text(line, names ? field->name : field->text);
        else
            add_number(line, field->number);
    }
    fputc('\n', line);
    if (fclose(line) == 0) output_write(text, size);
    free(text);
}

cJSON *bench_write_json(const struct bench_fields *f) {
    cJSON *o = cJSON_CreateObject();
    for (int i = 0; i < f->count; i++) {
        const struct bench_field *field = &f->items[i];
        if (field->text)
            cJSON_AddItemToObject(o, field->name,
                                  output_json_text(field->text, strlen(field->text)));
        else if (!isnan(field->number))
            cJSON_AddNumberToObject(o, field->name, field->number);
    }
    return o;
}
