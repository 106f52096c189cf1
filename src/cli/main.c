#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/message.h"
#include "cli/options.h"
#include "cli/output.h"
#include "cli/sandbox.h"

static int print_help(void) {
    output_print("usage: nibble COMMAND ...\n\n");
    for (const struct command *const *c = options_commands; *c; c++) {
        output_print("  %-11s %s\n", (*c)->name, (*c)->summary);
    }
    output_print(
        "\nnibble COMMAND --help tells a command's options; nibble --version what this is.\n");
    return output_finish(EXIT_DONE);
}

static int print_version(void) {
    char build[1000];
    nibble_build(build, sizeof build);
    output_write(build, strlen(build));
    return output_finish(EXIT_DONE);
}

/* With --blas: OpenBLAS picks its kernels while this program is loaded. Where it does not know the
 * CPU, the program starts over with their name in the environment, once; and without the threads
 * that it would start for itself and we never use. */
static void choose_blas_core(char **argv) {
    const char *variable = "OPENBLAS_CORETYPE", *core = nibble_blas_core();
    bool asked = false;
    for (char **word = argv; *word; word++) asked |= strcmp(*word, "--blas") == 0;
    if (!asked || !core || getenv(variable)) return;
    if (setenv("OPENBLAS_NUM_THREADS", "1", 0) == 0 && setenv(variable, core, 1) == 0)
        execv("/proc/self/exe", argv);
}

static int run_command(const struct command *c, int argc, char **argv) {
    struct args args;
    choose_blas_core(argv); /* before parsing, which moves words about in argv */
    if (!options_parse(c, argc - 2, argv + 2, &args)) return EXIT_USAGE;
    if (args.version) return print_version();
    if (!args.help) return output_finish(c->run(&args));
    options_help(c);
    return output_finish(EXIT_DONE);
}

static int run(int argc, char **argv) {
    const char *word = argc > 1 ? argv[1] : "";
    if (strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0 || strcmp(word, "help") == 0)
        return print_help();
    if (strcmp(word, "--version") == 0) return print_version();
    for (const struct command *const *c = options_commands; *c; c++) {
        if (strcmp(word, (*c)->name) == 0) return run_command(*c, argc, argv);
    }
    if (argc > 1)
        message("'%s' is no command; see nibble --help", word);
    else
        message("a command is missing; see nibble --help");
    return EXIT_USAGE;
}

/* OpenBLAS waits for its threads when a program exits, and these for memory: for ever, if a limit
 * keeps them from it. There is nothing left that exit would do; instruments have. */
int main(int argc, char **argv) {
    output_open();
    int status = run(argc, argv);
    if (sandbox_by_default()) _exit(status);
    return status;
}
