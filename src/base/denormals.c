#include "base/denormals.h"

#if defined(__x86_64__)
enum { FLUSH_RESULTS = 1 << 15, FLUSH_OPERANDS = 1 << 6 }; /* FTZ and DAZ of MXCSR */

unsigned long denormals_flush(void) {
    unsigned before = __builtin_ia32_stmxcsr();
    __builtin_ia32_ldmxcsr(before | FLUSH_RESULTS | FLUSH_OPERANDS);
    return before;
}

void denormals_restore(unsigned long before) {
    __builtin_ia32_ldmxcsr((unsigned)before);
}
#elif defined(__aarch64__)
enum { FLUSH = 1 << 24 }; /* FZ of FPCR */

static void set_fpcr(unsigned long value) {
    __asm__ volatile("msr fpcr, %0" : : "r"(value));
}

unsigned long denormals_flush(void) {
    unsigned long before;
    __asm__ volatile("mrs %0, fpcr" : "=r"(before));
    set_fpcr(before | FLUSH);
    return before;
}

void denormals_restore(unsigned long before) {
    set_fpcr(before);
}
#else
unsigned long denormals_flush(void) {
    return 0;
}

void denormals_restore(unsigned long before) {
    (void)before;
}
#endif
