/* The thread pool: every index once, each part where it belongs, no wake-up lost. */
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

#include "base/pool.h"
#include "check.h"

enum { LONGEST = 1000 };

struct job {
    size_t n, grain;
    int threads;
    atomic_int parts, wrong;
    unsigned char times[LONGEST]; /* not atomic: an index that two threads take is a race to TSan */
    atomic_uchar busy[POOL_MAX_THREADS]; /* who runs a chunk */
};

static void note(void *arg, size_t begin, size_t end, int thread) {
    struct job *j = arg;
    atomic_fetch_add(&j->parts, 1);
    bool sound = begin < end && end <= j->n && thread >= 0 && thread < j->threads;
    bool large = end - begin >= j->grain || (begin == 0 && end == j->n);
    if (!sound || !large || atomic_exchange(&j->busy[thread], 1) != 0) {
        atomic_fetch_add(&j->wrong, 1);
        return;
    }
    for (size_t i = begin; i < end; i++) j->times[i]++;
    atomic_store(&j->busy[thread], 0);
}

typedef void split_fn(struct pool *pool, size_t n, size_t grain, pool_fn *fn, void *arg);

/* How many chunks it takes. */
static int check_split(split_fn *split, struct pool *pool, size_t n, size_t grain) {
    static struct job j;
    memset(&j, 0, sizeof j);
    j.n = n;
    j.grain = grain;
    j.threads = pool_threads(pool);
    split(pool, n, grain, note, &j);
    size_t most = n / (grain ? grain : 1), once = 0;
    bool alone = j.threads == 1 || most <= 1;
    bool parted = alone ? j.parts == (n > 0) : j.parts > 1 && (size_t)j.parts <= most;
    for (size_t i = 0; i < n; i++) once += j.times[i] == 1;
    CHECK_MSG(once == n && !j.wrong && parted,
              "%zu by %zu over %d threads: %zu right, %d parts, %d of them wrong", n, grain,
              j.threads, once, j.parts, j.wrong);
    return j.parts;
}

static void test_every_index_once(void) {
    static const int threads[] = {1, 2, 3, 4, 7, 12};
    static const size_t grains[] = {0, 1, 2, 3, 10, 64, 100000};
    struct error e;
    for (size_t t = 0; t < sizeof threads / sizeof *threads; t++) {
        struct pool *pool;
        CHECK(pool_open(&pool, threads[t], &e) && pool_threads(pool) == threads[t]);
        for (size_t n = 0; n <= LONGEST; n = n < 20 ? n + 1 : n * 2 + 1) {
            for (size_t g = 0; g < sizeof grains / sizeof *grains; g++) {
                check_split(pool_split, pool, n, grains[g]);
                check_split(pool_split_long, pool, n, grains[g]);
            }
        }
        int chunks = check_split(pool_split, pool, LONGEST, 1);
        int few = check_split(pool_split_long, pool, LONGEST, 1);
        bool fewer = threads[t] == 2; /* more are seldom equally fast */
        CHECK_MSG(fewer ? few < chunks : few == chunks, "%d long chunks, %d others", few, chunks);
        /* a small loop, too: who is early finds a second chunk */
        CHECK(threads[t] != 2 || check_split(pool_split_long, pool, 8, 1) > 2);
        pool_close(pool);
    }
}

static void add(void *arg, size_t begin, size_t end, int thread) {
    size_t *sums = arg;
    (void)thread;
    for (size_t i = begin; i < end; i++) sums[i] += i;
}

/* What a job wrote is seen by the caller and by the next job, whoever does it. */
static void test_many_tiny_jobs(void) {
    enum { JOBS = 5000, N = 8 };
    struct error e;
    for (int threads = 2; threads <= 4; threads++) {
        struct pool *pool;
        size_t sums[N] = {0};
        CHECK(pool_open(&pool, threads, &e));
        for (size_t job = 1; job <= JOBS; job++) {
            pool_split(pool, job % 5 == 0 ? N / 2 : N, 1, add, sums);
            if (job % 5 == 0) pool_split(pool, N, 2, add, sums);
        }
        for (size_t i = 0; i < N; i++) {
            size_t times = JOBS + (i < N / 2 ? JOBS / 5 : 0);
            CHECK_MSG(sums[i] == i * times, "%d threads: %zu, not %zu", threads, sums[i],
                      i * times);
        }
        pool_close(pool);
    }
}

static void wait_a_little(void *arg, size_t begin, size_t end, int thread) {
    atomic_size_t *done = arg;
    if (thread % 2) usleep(300);
    atomic_fetch_add(done, end - begin);
}

/* Jobs and pauses longer than anyone spins: workers and caller fall asleep and are woken. */
static void test_sleepers_wake(void) {
    struct error e;
    struct pool *pool;
    atomic_size_t done = 0;
    CHECK(pool_open(&pool, 4, &e));
    for (int job = 0; job < 300; job++) {
        if (job % 3 == 0) usleep(500);
        pool_split(pool, 100, 1, wait_a_little, &done);
        CHECK(done == 100 * (size_t)(job + 1));
    }
    pool_close(pool);
}

static void test_open_and_close(void) {
    struct error e;
    struct pool *pool;
    for (int i = 0; i < 100; i++) { /* at once, while workers spin, and after they sleep */
        CHECK(pool_open(&pool, 1 + i % 5, &e));
        if (i % 10 == 0) usleep(1000);
        pool_close(pool);
    }
    pool_close(NULL);
    static const int bad[] = {0, -1, POOL_MAX_THREADS + 1, 1 << 30};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        CHECK(!pool_open(&pool, bad[i], &e) && !pool && e.status == STATUS_ARGUMENT);
        CHECK(strstr(e.message, "threads"));
    }
    CHECK(pool_open(&pool, POOL_MAX_THREADS, &e));
    check_split(pool_split, pool, LONGEST, 1);
    pool_close(pool);
}

int main(void) {
    check_run("every index once", test_every_index_once);
    check_run("many tiny jobs", test_many_tiny_jobs);
    check_run("sleepers wake", test_sleepers_wake);
    check_run("open and close", test_open_and_close);
    return check_done();
}
