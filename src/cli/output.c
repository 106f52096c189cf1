#include "cli/output.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/message.h"

static int failure; /* errno of the first write that failed */

void output_open(void) {
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN);
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++) {
        if (fcntl(fd, F_GETFD) == -1 && open("/dev/null", O_RDONLY) != fd) exit(EXIT_FAILED);
    }
}

/* Whoever shares our stdout may have made it non-blocking. */
static void wait_for_reader(void) {
    struct pollfd reader = {.fd = STDOUT_FILENO, .events = POLLOUT};
    poll(&reader, 1, -1);
}

bool output_write(const char *bytes, size_t size) {
    while (size && !failure) {
        ssize_t n = write(STDOUT_FILENO, bytes, size);
        if (n < 0 && errno == EAGAIN)
            wait_for_reader();
        else if (n < 0 && errno != EINTR)
            failure = errno;
        if (n > 0) {
            bytes += n;
            size -= (size_t)n;
        }
    }
    return !failure;
}

bool output_print(const char *format, ...) {
    va_list args;
    char *text;
    va_start(args, format);
    int size = vasprintf(&text, format, args);
    va_end(args);
    if (size < 0) return false;
    bool ok = output_write(text, (size_t)size);
    free(text);
    return ok;
}

bool output_failed(void) {
    return failure != 0;
}

int output_finish(int code) {
    if (!failure) return code;
    if (failure == EPIPE) return code == EXIT_FAILED ? code : EXIT_DONE;
    message("stdout cannot be written: %s", strerror(failure));
    return EXIT_FAILED;
}

/* One character as JSON has it; returns the bytes of text used. */
static size_t escape(const char *text, size_t size, char **out) {
    static const char special[] = "\"\\\n\r\t", letters[] = "\"\\nrt";
    unsigned char c = (unsigned char)*text;
    const char *letter = c ? strchr(special, c) : NULL;
    if (letter || c < ' ') {
        *out +=
            letter ? sprintf(*out, "\\%c", letters[letter - special]) : sprintf(*out, "\\u%04x", c);
        return 1;
    }
    size_t n = nibble_utf8_sequence(text, size);
    const char *from = n ? text : "\xef\xbf\xbd";
    size_t length = n ? n : 3;
    memcpy(*out, from, length);
    *out += length;
    return n ? n : 1;
}

cJSON *output_json_text(const char *text, size_t size) {
    char *json = malloc(6 * size + 3), *p = json;
    if (!json) return NULL;
    *p++ = '"';
    for (size_t i = 0; i < size;) i += escape(text + i, size - i, &p);
    *p++ = '"';
    *p = 0;
    cJSON *value = cJSON_CreateRaw(json);
    free(json);
    return value;
}

cJSON *output_json_token(const nibble_tokenizer *t, int id) {
    if (!t) return cJSON_CreateNull();
    size_t size = nibble_token_text(t, id, NULL, 0);
    char *text = malloc(size + 1);
    if (!text) return NULL;
    nibble_token_text(t, id, text, size);
    cJSON *json = output_json_text(text, size);
    free(text);
    return json;
}

bool output_json(cJSON *value) {
    char *text = cJSON_PrintUnformatted(value);
    cJSON_Delete(value);
    if (!text) {
        message("not enough memory for the JSON output");
        return false;
    }
    bool ok = output_print("%s\n", text);
    cJSON_free(text);
    return ok;
}
