#include <errno.h>
#include <histedit.h>
#include <locale.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>
#include <wchar.h>

#include "cli/chat.h"
#include "cli/message.h"

enum { HISTORY = 1000 };

static EditLine *editor;
static History *past;
static bool colored;
static bool within;                  /* a message that takes several lines */
static bool cancelled;               /* the line, by Ctrl-C */
static atomic_bool resized, resumed; /* told by signals, on any thread */

/* --- keys ------------------------------------------------------------------------------------- */

static const wchar_t interrupt_key = 3; /* Ctrl-C */
static unsigned char interrupt_byte;    /* what the terminal has for it, often the same; or 0 */

/* Makes the terminal pass on each key as it is typed, Ctrl-C too: as a signal it would overtake the
 * keys before it, and have them and what is being shown dropped. */
static void take_keys(void) {
    struct termios keys;
    el_set(editor, EL_PREP_TERM, 1);
    if (tcgetattr(STDIN_FILENO, &keys) != 0) return;
    interrupt_byte = keys.c_cc[VINTR];
    keys.c_cc[VINTR] = _POSIX_VDISABLE;
    tcsetattr(STDIN_FILENO, TCSANOW, &keys);
}

static unsigned char on_interrupt(EditLine *e, int key) {
    (void)e;
    (void)key;
    cancelled = true;
    return CC_EOF; /* ends the line without a text */
}

static void on_signal(int number) {
    if (number == SIGWINCH) resized = true;
    if (number == SIGCONT) resumed = true;
    message_wake();
}

static void catch (int number) {
    struct sigaction action = {.sa_handler = on_signal};
    sigemptyset(&action.sa_mask);
    sigaction(number, &action, NULL);
}

/* After a change of the window, or a stop, the line is drawn anew, below what the terminal made of
 * it. */
static void refresh(void) {
    bool again = resumed; /* cleared first: a signal from here on draws the line once more */
    if (!again && !resized) return;
    resumed = resized = false;
    if (again) { /* the shell has set the terminal as it likes it */
        el_set(editor, EL_PREP_TERM, 0);
        take_keys();
    }
    fputs("\r\n", stdout);
    el_resize(editor);
    el_set(editor, EL_REFRESH);
}

/* Waits for input. False if there is none, because of a signal. */
static bool wait_for_input(void) {
    struct pollfd fds[] = {{.fd = STDIN_FILENO, .events = POLLIN},
                           {.fd = message_signal_pipe(), .events = POLLIN}};
    char bytes[64];
    if (poll(fds, 2, -1) < 0) return false;
    while (fds[1].revents && read(fds[1].fd, bytes, sizeof bytes) > 0) continue;
    return fds[0].revents;
}

/* One character for libedit: 1, or 0 at the end, or -1. Bytes that are no UTF-8 are passed over. */
static int read_key(EditLine *e, wchar_t *key) {
    mbstate_t state = {0};
    (void)e;
    for (;;) {
        char byte;
        bool ready = wait_for_input();
        if (message_terminated()) return 0;
        if (message_interrupted()) {
            *key = interrupt_key;
            return 1;
        }
        refresh();
        ssize_t n = ready ? read(STDIN_FILENO, &byte, 1) : -1;
        if (n == 0 || (n < 0 && errno != EINTR && errno != EAGAIN)) return (int)n;
        if (n < 0) continue;
        if (byte && (unsigned char)byte == interrupt_byte) {
            *key = interrupt_key;
            return 1;
        }
        size_t used = mbrtowc(key, &byte, 1, &state);
        if (used == (size_t)-1) { /* perhaps it follows an unfinished character */
            state = (mbstate_t){0};
            used = mbrtowc(key, &byte, 1, &state);
        }
        if (used == (size_t)-1) state = (mbstate_t){0};
        if (used <= 1) return 1;
    }
}

/* --- lines ------------------------------------------------------------------------------------ */

#define HIDDEN "\001" /* what stands between two of these in a prompt takes no room */

static char *prompt(EditLine *e) {
    static char plain[] = "> ", more[] = "... ";
    static char bold[] = HIDDEN "\033[1m" HIDDEN "> " HIDDEN "\033[0m" HIDDEN;
    (void)e;
    return within ? more : colored ? bold : plain;
}

static bool set_up(void) {
    HistEvent event;
    setlocale(LC_CTYPE, "C.UTF-8"); /* text is UTF-8 wherever nibble runs */
    editor = el_init("nibble", stdin, stdout, stderr);
    past = history_init();
    if (!editor || !past) return false;
    history(past, &event, H_SETSIZE, HISTORY);
    history(past, &event, H_SETUNIQUE, 1);
    el_set(editor, EL_EDITOR, "emacs");
    el_set(editor, EL_SIGNAL, 0); /* libedit would pass an interrupt on to our process group */
    el_set(editor, EL_HIST, history, past);
    el_set(editor, EL_PROMPT_ESC, prompt, HIDDEN[0]);
    el_set(editor, EL_GETCFN, read_key);
    el_wset(editor, EL_ADDFN, L"interrupt", L"drop the line", on_interrupt);
    el_set(editor, EL_BIND, "^C", "interrupt", NULL);
    el_set(editor, EL_BIND, "\\e[3~", "ed-delete-next-char", NULL);
    el_set(editor, EL_BIND, "^R", "em-inc-search-prev", NULL);
    return message_signal_pipe() >= 0;
}

bool chat_line_open(bool color) {
    colored = color;
    if (set_up()) {
        catch (SIGWINCH);
        catch (SIGCONT);
        return true;
    }
    message("not enough memory for the line editor");
    chat_line_close();
    return false;
}

void chat_line_close(void) {
    if (editor) el_end(editor);
    if (past) history_end(past);
    editor = NULL;
    past = NULL;
}

/* A line without its newline, *size bytes; NULL if there is none. */
static const char *read_line(size_t *size) {
    HistEvent event;
    int count = 0;
    if (resized) el_resize(editor); /* before the line is drawn for the first time */
    resized = resumed = false;
    cancelled = false;
    take_keys(); /* before the prompt: who has seen it may type Ctrl-D */
    const char *line = el_gets(editor, &count);
    if (!line || count <= 0) return NULL;
    if (strspn(line, " \t\n\"") < strlen(line)) history(past, &event, H_ENTER, line);
    *size = strlen(line);
    if (line[*size - 1] == '\n') --*size;
    return line;
}

/* --- messages --------------------------------------------------------------------------------- */

static bool ends_with(const char *line, size_t size, const char *end) {
    size_t length = strlen(end);
    return size >= length && memcmp(line + size - length, end, length) == 0;
}

/* Adds a line to a message; whether another follows. */
static bool add_line(struct buffer *text, const char *line, size_t size, bool *quoted) {
    static const char quotes[] = "\"\"\"";
    bool opens = !within && size >= strlen(quotes) && memcmp(line, quotes, strlen(quotes)) == 0;
    if (opens) {
        *quoted = true;
        line += strlen(quotes);
        size -= strlen(quotes);
    }
    bool closes = *quoted && ends_with(line, size, quotes);
    bool goes_on = *quoted ? !closes : ends_with(line, size, "\\");
    buffer_add(text, line, size - (closes ? strlen(quotes) : goes_on && !*quoted));
    if (opens && !size) return true; /* the text begins on the next line */
    if (goes_on) buffer_add(text, "\n", 1);
    if (closes && size == strlen(quotes) && text->size) text->bytes[--text->size] = 0;
    return goes_on;
}

enum chat_line chat_line_read(struct buffer *text) {
    bool quoted = false, more = true;
    text->size = 0;
    message_forget_interrupt();
    for (within = false; more; within = true) {
        size_t size;
        const char *line = read_line(&size);
        if (line) {
            more = add_line(text, line, size, &quoted);
            continue;
        }
        puts(cancelled ? "^C" : "");
        fflush(stdout);
        return message_terminated()  ? CHAT_LINE_ENDED
               : cancelled || within ? CHAT_LINE_CANCELLED
                                     : CHAT_LINE_END;
    }
    return quoted ? CHAT_LINE_QUOTED : CHAT_LINE_MESSAGE;
}
