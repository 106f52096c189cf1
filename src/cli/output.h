/* Standard output: results and nothing else. */
#ifndef NIBBLE_CLI_OUTPUT_H
#define NIBBLE_CLI_OUTPUT_H

#include <stdbool.h>
#include <stddef.h>

#include "nibble.h"

struct cJSON;

/* Keeps the three standard descriptors occupied, so that no file of ours takes the place of a
 * closed stdout, and turns the signals of a broken pipe and of a file size limit into write errors.
 * Before anything else is opened. */
void output_open(void);

/* Writes bytes at once. False from the first failure on: the reader has gone, or the disk is full.
 */
bool output_write(const char *bytes, size_t size);
bool output_print(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* True once writing has failed. */
bool output_failed(void);

/* The exit code that output asks for, given the code of all else: a reader that has gone is no
 * failure, any other write error is one and is printed. */
int output_finish(int code);

/* A JSON string of bytes that need not be UTF-8 and may hold NUL: what is invalid becomes U+FFFD.
 */
struct cJSON *output_json_text(const char *text, size_t size);

/* The same of a token as it stands inside a text; null if there is no tokenizer. */
struct cJSON *output_json_token(const nibble_tokenizer *t, int id);

/* Prints and deletes a JSON value, with a newline. */
bool output_json(struct cJSON *value);

#endif
