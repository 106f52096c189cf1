#include "cli/generate_color.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/generate_json.h"
#include "cli/message.h"
#include "cli/output.h"

#define RESET "\033[0m"

static const char prompt_color[] = "\033[36m", answer_color[] = "\033[32m"; /* cyan, green */

/* Of the 256 colours of terminals, from red to green: below 10%, 20% and so on. */
static const int scale[] = {196, 202, 208, 214, 220, 226, 190, 154, 118, 46};
enum { STEPS = sizeof scale / sizeof *scale };

int generate_color_check(const struct args *a) {
    const char *when = a->color;
    if (!when || !strcmp(when, "auto") || !strcmp(when, "always") || !strcmp(when, "never"))
        return EXIT_DONE;
    message("--color: '%s' is not auto, always or never", when);
    return EXIT_USAGE;
}

/* NO_COLOR: see no-color.org. What is said on the command line goes before it. */
bool generate_color_wanted(const struct args *a) {
    const char *none = getenv("NO_COLOR"), *when = a->color;
    if (!when) when = a->show_probs ? "auto" : "never";
    if (strcmp(when, "auto") != 0) return strcmp(when, "always") == 0;
    return isatty(STDOUT_FILENO) && !(none && *none);
}

/* The colour ends with the text, so that nothing else takes it on. */
static void print(const char *color, const char *text, size_t size) {
    output_write(color, strlen(color));
    output_write(text, size);
    output_write(RESET, strlen(RESET));
}

void generate_color_prompt(const char *text, size_t size) {
    if (size) print(prompt_color, text, size);
}

/* --- by probability --------------------------------------------------------------------------- */

static int color_of(const struct generate_job *j, const nibble_token *t) {
    double p = exp(nibble_logprobs(t->logits, j->vocab, t->id, NULL, 0));
    int step = (int)(p * STEPS);
    return scale[step < STEPS ? step : STEPS - 1];
}

static void print_scaled(int color, const char *text, size_t size) {
    char start[24];
    snprintf(start, sizeof start, "\033[38;5;%dm", color);
    print(start, text, size);
}

/* Prints the front of what waits: the bytes of its first token, and what completes a character of
 * theirs. Returns their number. */
static size_t print_first(const struct generate_record *r, size_t at) {
    size_t end = at + r->waiting[0].size;
    if (end > r->text_size) end = r->text_size;
    while (end < r->text_size && (r->text[end] & 0xc0) == 0x80) end++;
    print_scaled(r->waiting[0].color, r->text + at, end - at);
    return end - at;
}

/* Takes size bytes off the tokens that wait. */
static void drop(struct generate_record *r, size_t size) {
    size_t done = 0;
    for (; done < r->waiting_count && size >= r->waiting[done].size; done++)
        size -= r->waiting[done].size;
    r->waiting_count -= done;
    memmove(r->waiting, r->waiting + done, r->waiting_count * sizeof *r->waiting);
    if (r->waiting_count) r->waiting[0].size -= size;
}

void generate_color_end(struct generate_job *j) {
    struct generate_record *r = &j->record;
    size_t at = 0;
    while (at < r->text_size && r->waiting_count) {
        size_t size = print_first(r, at);
        drop(r, size);
        at += size;
    }
    r->text_size = 0;
}

void generate_color_text(struct generate_job *j, const char *text, size_t size) {
    if (j->args->show_probs)
        generate_json_text(j, text, size);
    else
        print(answer_color, text, size);
}

void generate_color_token(struct generate_job *j, const nibble_token *t) {
    struct generate_record *r = &j->record;
    if (!j->args->show_probs || !t->size) return;
    struct generate_waiting *more = realloc(r->waiting, (r->waiting_count + 1) * sizeof *more);
    r->out_of_memory |= !more;
    if (!more) return;
    r->waiting = more;
    r->waiting[r->waiting_count++] = (struct generate_waiting){t->size, color_of(j, t)};
    generate_color_end(j);
}
