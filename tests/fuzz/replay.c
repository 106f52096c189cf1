/* Drives a fuzz target without libFuzzer: every seed of its corpus as it is, cut short at every
 * byte (of large ones at every 64th), and changed by its own mutator some hundred times, always the
 * same way. Crashes are what it looks for. */
#include <sys/stat.h>
#include <time.h>

#include "check.h"
#include "fuzz.h"
#include "mutate.h"

enum { CAP = 1 << 20, CHANGES = 200, LARGE = 4096 };

static const double seconds_most = 2; /* for the changes of one seed: slow builds make fewer */
static const char *program;

size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t cap) {
    if (!size || (mutate_below(4) == 0 && size < cap)) {
        uint8_t byte = (uint8_t)mutate_random();
        return mutate_splice(data, size, cap, mutate_below(size + 1), 0, &byte, 1);
    }
    size_t at = mutate_below(size), length = 1 + mutate_below(8);
    if (mutate_below(4) == 0)
        return mutate_splice(data, size, cap, at, length < size - at ? length : size - at, "", 0);
    if (mutate_below(2))
        data[at] ^= (uint8_t)(1 << mutate_below(8));
    else
        data[at] = (uint8_t)mutate_number();
    return size;
}

static uint8_t *read_seed(const char *path, size_t *size) {
    FILE *f = fopen(path, "rb");
    uint8_t *data = malloc(CAP);
    if (!f || !data) {
        perror(path);
        exit(1);
    }
    *size = fread(data, 1, CAP, f);
    fclose(f);
    return data;
}

static const char *seed_path;

static void replay_seed(void) {
    size_t seed_size;
    uint8_t *seed = read_seed(seed_path, &seed_size), *data = malloc(CAP);
    clock_t begin = clock();
    LLVMFuzzerTestOneInput(seed, seed_size);
    for (size_t cut = 0; cut<seed_size; cut += seed_size> LARGE ? 64 : 1)
        LLVMFuzzerTestOneInput(seed, cut);
    for (unsigned i = 0; i < CHANGES; i++) {
        size_t size = seed_size;
        memcpy(data, seed, size);
        for (unsigned k = 0; k <= i % 4; k++)
            size = LLVMFuzzerCustomMutator(data, size, CAP, 4 * i + k);
        LLVMFuzzerTestOneInput(data, size);
        if ((double)(clock() - begin) > seconds_most * CLOCKS_PER_SEC) break;
    }
    free(data);
    free(seed);
}

static int is_seed(const struct dirent *d) {
    return d->d_name[0] != '.';
}

static void replay_folder(const char *folder) {
    struct dirent **names;
    int count = scandir(folder, &names, is_seed, alphasort);
    check_ok = count > 0;
    if (count <= 0) printf("%s: %s holds no seeds\n", program, folder);
    for (int i = 0; i < count; i++) {
        char path[4096 + 256 + 2];
        snprintf(path, sizeof path, "%s/%s", folder, names[i]->d_name);
        seed_path = path;
        check_run(path, replay_seed);
        free(names[i]);
    }
    if (count <= 0) check_failed++;
    if (count >= 0) free(names);
}

/* Words are seeds; without any, those of the corpus, from the project's own folder. */
int main(int argc, char **argv) {
    char folder[4096];
    const char *slash = strrchr(argv[0], '/');
    program = slash ? slash + 1 : argv[0];
    snprintf(folder, sizeof folder, "tests/fuzz/corpus/%s", program);
    for (int i = 1; i < argc; i++) {
        seed_path = argv[i];
        check_run(argv[i], replay_seed);
    }
    if (argc == 1) replay_folder(folder);
    return check_done();
}
