#include "ops/blas.h"

#include <cblas.h>
#include <strings.h>

#include "base/cpu.h"

void blas_init(void) {
    openblas_set_num_threads(1);
}

void blas_product(float *y, size_t y_stride, const float *x, size_t n, const float *w, size_t rows,
                  size_t cols) {
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, (blasint)n, (blasint)rows, (blasint)cols,
                1, x, (blasint)cols, w, (blasint)cols, 0, y, (blasint)y_stride);
}

/* Whether OpenBLAS runs as one of its cores for x86 with FMA; any other is a generation behind. */
static bool fits(void) {
#ifdef __x86_64__
    static const char *const cores[] = {"Haswell",        "Zen",      "SkylakeX", "Cooperlake",
                                        "Sapphirerapids", "Excavator"};
    for (size_t i = 0; i < sizeof cores / sizeof *cores; i++) {
        if (strcasecmp(openblas_get_corename(), cores[i]) == 0) return true;
    }
    return false;
#else
    return true;
#endif
}

const char *blas_better_core(void) {
    const uint32_t haswell = CPU_AVX2 | CPU_FMA;
    const uint32_t skylakex = haswell | CPU_AVX512F | CPU_AVX512BW | CPU_AVX512DQ | CPU_AVX512VL;
    struct cpu cpu;
    if (fits()) return NULL;
    cpu_probe(&cpu);
    if ((cpu.features & skylakex) == skylakex) return "SkylakeX";
    return (cpu.features & haswell) == haswell ? "Haswell" : NULL;
}

const char *blas_version(void) {
    return openblas_get_config(); /* ends with the core */
}
