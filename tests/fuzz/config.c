/* config.json, params.json, generation_config.json: the numbers of a model of any family. */
#include "model/arch.h"

#include "model/config.h"
#include "mutate.h"

static void see(void *arg, const char *name, const char *value, bool neutral) {
    *(size_t *)arg += strlen(name) + strlen(value) + neutral;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct config c = {0};
    struct spec *spec = calloc(1, sizeof *spec);
    const struct arch *arch;
    struct error e = {0};
    int ids[16], count = 0;
    size_t sum = 0;
    bool opened = config_open(&c, (struct span){data, size}, "config.json", &e), ok = opened;
    if (ok) {
        struct config text = config_inner(&c, "text_config");
        ok = arch_find(&arch, &text, &e) && arch_read(arch, spec, &text, &e) &&
             config_ids(&c, "eos_token_id", ids, 16, &count, &e);
    }
    fuzz_check(ok, &e);
    if (ok) spec_each(spec, see, &sum);
    if (opened) config_close(&c);
    free(spec);
    return 0;
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t cap, unsigned seed) {
    mutate_state = seed;
    return mutate_json(data, size, cap);
}
