#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/chat.h"
#include "cli/message.h"
#include "cli/output.h"
#include "cli/stats.h"

/* An answer as it comes. */
struct answer {
    struct chat *chat;
    struct buffer text;
    size_t blank;      /* bytes of white space that it begins with, which are not shown */
    struct buffer ids; /* of its tokens, an array of int */
    nibble_ids prompt; /* of the conversation, and of the answer so far */
    size_t read;       /* tokens of it read in this pass */
    size_t context;
};

/* --- what is heard while it runs -------------------------------------------------------------- */

static void on_text(void *arg, const char *text, size_t size) {
    struct answer *a = arg;
    message_progress_end();
    buffer_add(&a->text, text, size);
    while (size && a->blank + size == a->text.size && strchr(" \n\r\t", *text)) {
        a->blank++;
        text++;
        size--;
    }
    output_write(text, size);
}

static void on_token(void *arg, const nibble_token *t) {
    struct answer *a = arg;
    buffer_add(&a->ids, &t->id, sizeof t->id);
    a->chat->turn.tokens++;
}

static bool go_on(void *arg, size_t prompt_done) {
    struct answer *a = arg;
    if (!a->chat->args->quiet && prompt_done < a->read)
        message_progress("reading", prompt_done, a->read);
    return !message_interrupted() && !output_failed() && !a->text.failed && !a->ids.failed;
}

/* --- what goes in ----------------------------------------------------------------------------- */

static bool encode(const struct chat *c, bool open, nibble_ids *ids, nibble_error *e) {
    return nibble_chat_encode(c->session.tokenizer, c->template, c->talk.messages, c->talk.count,
                              open, ids, e);
}

size_t chat_answer_tokens(const struct chat *c) {
    nibble_error e;
    nibble_ids ids = {0};
    size_t count =
        c->talk.count > chat_talk_first(&c->talk) && encode(c, false, &ids, &e) ? ids.count : 0;
    nibble_free(ids.ids);
    return count;
}

/* So many tokens at least has the conversation; known at once. */
static bool count_least(const struct chat *c, size_t *least, nibble_error *e) {
    char *text;
    size_t size;
    if (!nibble_chat_text(c->session.tokenizer, c->template, c->talk.messages, c->talk.count, true,
                          &text, &size, e))
        return false;
    nibble_free(text);
    *least = nibble_tokens_least(c->session.tokenizer, size);
    return true;
}

/* The conversation, then what has been said of its answer. Of one that is plainly too long only the
 * count is there, and it is a lower bound. */
static int make_prompt(struct answer *a) {
    nibble_error e;
    nibble_ids ids = {0};
    size_t least, said = a->ids.size / sizeof *ids.ids;
    nibble_free(a->prompt.ids);
    a->prompt = (nibble_ids){0};
    if (!count_least(a->chat, &least, &e)) return message_error(&e);
    if (least > a->context) {
        a->prompt.count = least;
        return EXIT_DONE;
    }
    bool ok = encode(a->chat, true, &ids, &e);
    int *more = ok ? realloc(ids.ids, (ids.count + said + 1) * sizeof *more) : NULL;
    if (!more) {
        nibble_free(ids.ids);
        if (!ok) return message_error(&e);
        message("not enough memory for the conversation");
        return EXIT_FAILED;
    }
    if (said) memcpy(more + ids.count, a->ids.bytes, a->ids.size);
    a->prompt = (nibble_ids){more, ids.count + said};
    return EXIT_DONE;
}

/* The same of a conversation of the last question alone, the shortest there is. */
static int make_shortest_prompt(struct answer *a) {
    struct chat_talk *talk = &a->chat->talk, whole = *talk;
    nibble_message kept[] = {whole.messages[0], whole.messages[whole.count - 1]};
    size_t first = chat_talk_first(talk);
    *talk = (struct chat_talk){kept + 1 - first, first + 1, first + 1};
    int code = make_prompt(a);
    *talk = whole;
    return code;
}

/* Drops the oldest turns until half the context is free, but never the last question. False if
 * there is none to drop. */
static bool slide(struct answer *a, int *code) {
    struct chat *c = a->chat;
    size_t first = chat_talk_first(&c->talk), dropped = 0;
    *code = EXIT_DONE;
    do {
        if (!c->generation.slide || c->talk.count < first + 3) break;
        chat_talk_drop(&c->talk, first, 2);
        dropped++;
        *code = make_prompt(a);
    } while (*code == EXIT_DONE && a->prompt.count > a->context / 2);
    c->turn.dropped += dropped;
    return dropped > 0;
}

static int refuse(const struct answer *a, bool hopeless) {
    message("%s%zu tokens do not fit the context of %zu with an answer; %s",
            a->prompt.ids ? "" : "at least ", a->prompt.count, a->context,
            hopeless ? "shorten the message, or start with a larger --ctx-size"
                     : "begin anew with /reset, or start with --overflow slide or a larger "
                       "--ctx-size");
    return EXIT_CONTEXT;
}

/* Has the conversation fit the context with room for an answer. No turn is dropped for a question
 * that does not fit even so. */
static int prepare(struct answer *a) {
    int code = make_prompt(a);
    if (code != EXIT_DONE || a->prompt.count < a->context) return code;
    code = make_shortest_prompt(a);
    bool hopeless = a->prompt.count >= a->context;
    if (code == EXIT_DONE && hopeless) return refuse(a, true);
    if (code == EXIT_DONE) code = make_prompt(a);
    if (code == EXIT_DONE) slide(a, &code);
    return code != EXIT_DONE || a->prompt.count < a->context ? code : refuse(a, false);
}

/* --- an answer -------------------------------------------------------------------------------- */

/* How much of the prompt is in the cache; the last token is always read, for its logits. */
static size_t common(const nibble_context_info *info, const nibble_ids *prompt) {
    size_t n = 0;
    while (n + 1 < prompt->count && n < info->used && info->ids[n] == prompt->ids[n]) n++;
    return n;
}

/* Ends the answer's last line. */
static void close_line(const struct answer *a) {
    if (a->text.size == a->blank || a->text.bytes[a->text.size - 1] != '\n') output_write("\n", 1);
}

/* Reads what is not in the cache and generates until something ends it. */
static int pass(struct answer *a) {
    struct chat *c = a->chat;
    struct chat_turn *turn = &c->turn;
    nibble_error e;
    nibble_generated done;
    nibble_context_info info;
    nibble_generation g = generation_options(c->args, &c->generation);
    nibble_context_describe(c->session.context, &info);
    size_t cached = common(&info, &a->prompt);
    if (g.max_tokens != SIZE_MAX) g.max_tokens -= turn->tokens;
    g.sampling.seed += c->answers++;
    g.slide = false; /* turns slide, not tokens */
    g.arg = a;
    g.on_text = on_text;
    g.on_token = on_token;
    g.go_on = go_on;
    a->read = a->prompt.count - cached;
    nibble_rewind(c->session.context, cached);
    bool ok = nibble_generate(c->session.context, &g, a->prompt.ids + cached, a->read, &done, &e);
    message_progress_end();
    if (!ok) {
        if (a->text.size) close_line(a);
        return message_error(&e);
    }
    if (!turn->prompt) {
        turn->prompt = a->prompt.count;
        turn->cached = cached;
        turn->first_ns = done.first_ns;
        turn->seed = g.sampling.seed;
    }
    turn->prompt_ns += done.prompt_ns;
    turn->tokens_ns += done.tokens_ns;
    turn->finish = done.finish;
    return EXIT_DONE;
}

static int generate(struct answer *a) {
    int code = prepare(a);
    while (code == EXIT_DONE) {
        code = pass(a);
        if (code != EXIT_DONE || a->chat->turn.finish != NIBBLE_FINISH_CONTEXT) break;
        if (a->chat->turn.tokens >= (size_t)a->chat->args->n_predict) break;
        if (!slide(a, &code) || a->prompt.count >= a->context) break;
    }
    return code;
}

/* How much of the cache a conversation begins with. */
static size_t cached_tokens(const struct chat *c) {
    nibble_error e;
    nibble_ids ids = {0};
    nibble_context_info info;
    nibble_context_describe(c->session.context, &info);
    size_t n = encode(c, false, &ids, &e) ? common(&info, &ids) : 0;
    nibble_free(ids.ids);
    return n;
}

/* Keeps the answer as its tokens are written: many begin with a space, which some templates write
 * themselves. Either way of keeping it may be the one that gives the tokens of the cache again. */
static bool keep(const struct answer *a) {
    struct chat *c = a->chat;
    if (!chat_talk_add(&c->talk, "assistant", a->text.bytes, a->text.size)) return false;
    nibble_message *last = &c->talk.messages[c->talk.count - 1];
    nibble_message whole = *last;
    size_t tokens = cached_tokens(c);
    *last = (nibble_message){whole.role, whole.text + a->blank, whole.size - a->blank};
    bool bare = cached_tokens(c) > tokens;
    *last = whole;
    if (!bare) return true;
    last->size -= a->blank;
    memmove((char *)last->text, last->text + a->blank, last->size + 1);
    return true;
}

static void tell_end(const struct answer *a) {
    const struct chat_turn *turn = &a->chat->turn;
    if (turn->dropped)
        message("note: the context of %zu tokens was full; the oldest %zu turn%s slid out of it",
                a->context, turn->dropped, turn->dropped == 1 ? "" : "s");
    if (turn->finish == NIBBLE_FINISH_CONTEXT)
        message("note: the context of %zu tokens is full, and the answer ends here; begin anew "
                "with /reset, or start with %sa larger --ctx-size",
                a->context, a->chat->generation.slide ? "" : "--overflow slide or ");
    if (turn->finish == NIBBLE_FINISH_LENGTH && !a->chat->args->quiet)
        message("note: the answer ends after %zu tokens, as -n says", turn->tokens);
}

/* Answers to the last message, and keeps the answer. */
static int answer(struct chat *c) {
    struct answer a = {.chat = c};
    nibble_context_info info;
    nibble_context_describe(c->session.context, &info);
    a.context = info.context;
    c->turn = (struct chat_turn){0};
    int code = generate(&a);
    bool said = a.text.size || c->turn.finish != NIBBLE_FINISH_INTERRUPTED;
    if (code == EXIT_DONE && (a.text.failed || a.ids.failed)) {
        message("not enough memory for the answer");
        code = EXIT_FAILED;
    }
    if (code == EXIT_DONE && said && !keep(&a)) code = EXIT_FAILED;
    if (code == EXIT_DONE && said) {
        close_line(&a);
        tell_end(&a);
    }
    if (code == EXIT_DONE && !said) code = message_interrupted_exit();
    nibble_free(a.prompt.ids);
    free(a.text.bytes);
    free(a.ids.bytes);
    return code;
}

int chat_answer(struct chat *c, const char *text, size_t size) {
    if (!chat_talk_add(&c->talk, "user", text, size)) return EXIT_FAILED;
    int code = answer(c);
    if (code == EXIT_DONE) return code;
    chat_talk_drop(&c->talk, c->talk.count - 1, 1);
    if (c->terminal && message_interrupted() && !message_terminated())
        message("note: stopped before the first word; the message is taken back");
    return code;
}

int chat_answer_again(struct chat *c) {
    nibble_message old = c->talk.messages[--c->talk.count];
    int code = answer(c);
    if (code == EXIT_DONE)
        free((char *)old.text);
    else
        c->talk.messages[c->talk.count++] = old; /* there is room: it was there */
    return code;
}

void chat_answer_stats(const struct chat *c) {
    const struct chat_turn *t = &c->turn;
    nibble_context_info info;
    nibble_context_describe(c->session.context, &info);
    double rate = t->tokens > 1 ? stats_rate(t->tokens - 1, t->tokens_ns) : 0;
    fprintf(stderr,
            "prompt     %zu tokens: %zu in the cache, %zu read, %.1f tok/s, first token after "
            "%.3f s\n"
            "answer     %zu tokens, %.1f tok/s, finish: %s\n"
            "context    %zu of %zu tokens used, seed %" PRIu64 "\n",
            t->prompt, t->cached, t->prompt - t->cached,
            stats_rate(t->prompt - t->cached, t->prompt_ns), (double)t->first_ns / 1e9, t->tokens,
            rate, stats_finish(t->finish), info.used, info.context, t->seed);
}
