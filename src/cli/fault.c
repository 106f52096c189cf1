#include "cli/fault.h"

#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <unistd.h>

#include "cli/message.h"

/* Read by a handler that may do little: the sentence is made before. */
static char sentence[4400];
static size_t length;
static const nibble_model *model;
static atomic_flag told = ATOMIC_FLAG_INIT; /* threads may fault at once */

static void on_fault(int number, siginfo_t *info, void *context) {
    (void)context;
    bool ours = info->si_code == BUS_ADRERR && length &&
                (!model || nibble_model_holds(model, info->si_addr));
    if (ours) {
        while (atomic_flag_test_and_set(&told)) pause(); /* until the thread that was first exits */
        ssize_t written = write(STDERR_FILENO, sentence, length);
        (void)written; /* there is no one else to tell */
        _exit(EXIT_FAILED);
    }
    signal(number, SIG_DFL); /* the instruction is tried again, and this time ends the process */
}

static void catch_faults(void) {
    struct sigaction action = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO};
    sigemptyset(&action.sa_mask);
    sigaction(SIGBUS, &action, NULL);
}

void fault_watch(const char *path, const nibble_model *m) {
    length = 0;
    model = m;
    if (!path) return;
    int n = snprintf(sentence, sizeof sentence,
                     "nibble: %.4096s cannot be read any more: it was cut short while it was in "
                     "use, or its disk fails; put the whole file back and start again\n",
                     path);
    for (char *c = sentence; c < sentence + n - 1; c++) {
        if ((unsigned char)*c < ' ' || *c == 0x7f) *c = '?';
    }
    length = (size_t)n;
    catch_faults();
}
