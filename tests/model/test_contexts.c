/* Contexts of one model on several threads at once: each tells the story that it tells alone. Of
 * worth under the thread sanitizer above all. */
#include <pthread.h>
#include <string.h>

#include "check.h"
#include "nibble.h"

enum { TELLERS = 2, TOKENS = 24, ROUNDS = 3 };

static const char *const prompts[TELLERS] = {"Once upon a time there was a king", "The fox"};

struct teller {
    const nibble_model *model;
    const char *prompt;
    uint32_t seed;
    int ids[TOKENS];
    size_t count;
    bool ok;
    nibble_error error;
};

static void keep(void *arg, const nibble_token *token) {
    struct teller *t = arg;
    t->ids[t->count++] = token->id;
}

/* Opens a context of the shared model, with worker threads of its own, and generates. */
static void *tell(void *arg) {
    struct teller *t = arg;
    nibble_ids ids = {0};
    nibble_generated done;
    nibble_context_options o = nibble_context_defaults();
    nibble_generation g = {.sampling = nibble_sampling_defaults(),
                           .max_tokens = TOKENS,
                           .ignore_end = true,
                           .arg = t,
                           .on_token = keep};
    g.sampling.seed = t->seed;
    o.context = 64;
    o.threads = 2;
    const nibble_tokenizer *tokenizer = nibble_model_tokenizer(t->model);
    nibble_context *c = nibble_context_open(t->model, &o, &t->error);
    t->ok = c &&
            nibble_tokenize(tokenizer, t->prompt, strlen(t->prompt), NIBBLE_BOS, &ids, &t->error) &&
            nibble_generate(c, &g, ids.ids, ids.count, &done, &t->error);
    nibble_free(ids.ids);
    nibble_context_close(c);
    return NULL;
}

static void make_tellers(struct teller *tellers, const nibble_model *m, int round) {
    for (int i = 0; i < TELLERS; i++)
        tellers[i] = (struct teller){.model = m, .prompt = prompts[i], .seed = (uint32_t)round};
}

static void compare(const struct teller *alone, const struct teller *together) {
    for (int i = 0; i < TELLERS; i++) {
        CHECK_MSG(alone[i].ok && together[i].ok, "%s%s", alone[i].error.message,
                  together[i].error.message);
        CHECK(alone[i].count == TOKENS && together[i].count == TOKENS);
        CHECK(memcmp(alone[i].ids, together[i].ids, sizeof alone[i].ids) == 0);
    }
}

static void test_two_contexts_at_once(void) {
    nibble_error e = {0};
    nibble_model *m = nibble_model_open("models/fairytale-4bit.npz", &e);
    CHECK_MSG(m, "%s", e.message);
    for (int round = 0; m && round < ROUNDS; round++) {
        struct teller alone[TELLERS], together[TELLERS];
        pthread_t threads[TELLERS];
        make_tellers(alone, m, round);
        make_tellers(together, m, round);
        for (int i = 0; i < TELLERS; i++) tell(&alone[i]);
        for (int i = 0; i < TELLERS; i++)
            CHECK(pthread_create(&threads[i], NULL, tell, &together[i]) == 0);
        for (int i = 0; i < TELLERS; i++) pthread_join(threads[i], NULL);
        compare(alone, together);
    }
    nibble_model_close(m);
}

/* One thread opens and closes models while another runs one. */
static void *open_and_close(void *arg) {
    bool *ok = arg;
    for (int i = 0; i < ROUNDS; i++) {
        nibble_error e;
        nibble_model *m = nibble_model_open("models/fairytale-4bit.npz", &e);
        *ok &= m != NULL;
        nibble_model_close(m);
    }
    return NULL;
}

static void test_opening_beside_a_run(void) {
    nibble_error e = {0};
    bool ok = true;
    pthread_t thread;
    struct teller t = {.model = nibble_model_open("models/fairytale-4bit.npz", &e),
                       .prompt = prompts[0]};
    CHECK_MSG(t.model, "%s", e.message);
    CHECK(pthread_create(&thread, NULL, open_and_close, &ok) == 0);
    if (t.model) tell(&t);
    pthread_join(thread, NULL);
    CHECK(ok && t.ok && t.count == TOKENS);
    nibble_model_close((nibble_model *)t.model);
}

int main(void) {
    check_run("two_contexts_at_once", test_two_contexts_at_once);
    check_run("opening_beside_a_run", test_opening_beside_a_run);
    return check_done();
}
