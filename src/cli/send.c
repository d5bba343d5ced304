#include "cli/send.h"
#include "base/json.h"
#include "base/utf8.h"
#include "cli/exchange.h"
#include "cli/link.h"
#include "cli/options.h"
#include "cli/page.h"
#include "cli/stop.h"
#include "version.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sysexits.h>
#include <unistd.h>

enum {
    BODY_MAX_BYTES = 64 << 20, /* no server takes more */
    REPLY_MAX_BYTES = 64 << 10,
    ANSWER_MS = 30000,
};

/* Appends all of it; false and errno when it cannot be read, EFBIG when it is too much. */
static bool read_all(int fd, struct buf *out) {
    for (;;) {
        if (!buf_reserve(out, 65536)) {
            errno = ENOMEM;
            return false;
        }
        ssize_t got = read(fd, out->data + out->len, out->cap - out->len);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return got == 0;
        out->len += (size_t)got;
        if (out->len > BODY_MAX_BYTES) {
            errno = EFBIG;
            return false;
        }
    }
}

/* Reads a file, or standard input for "-". Returns an exit code. */
static int read_file(const char *path, struct buf *out) {
    bool is_input = strcmp(path, "-") == 0;
    int fd = is_input ? STDIN_FILENO : open(path, O_RDONLY | O_CLOEXEC);
    bool is_read = fd >= 0 && read_all(fd, out);
    int error = errno;
    if (fd >= 0 && !is_input)
        close(fd);
    return is_read ? EX_OK
                   : options_complain(EX_NOINPUT, "%s: %s", is_input ? "standard input" : path,
                                      strerror(error));
}

/* Makes an object of KEY=VALUE and KEY:=JSON. Returns an exit code. */
static int write_fields(char **words, int count, struct buf *out) {
    for (int i = 0; i < count; i++) {
        const char *equals = strchr(words[i], '=');
        if (!equals || equals == words[i])
            return options_complain(EX_USAGE, "%s: neither KEY=VALUE nor KEY:=JSON", words[i]);
        bool is_json = equals - words[i] > 1 && equals[-1] == ':';
        struct slice value = slice_of(equals + 1);
        enum json_kind kind = is_json ? json_check(value) : JSON_SCALAR;
        if (kind == JSON_INVALID || kind == JSON_TOO_DEEP)
            return options_complain(EX_USAGE, "%s: the value is not JSON", words[i]);
        if (!utf8_is_valid(slice_of(words[i])))
            return options_complain(EX_USAGE, "%s: not UTF-8", words[i]);
        buf_putc(out, i ? ',' : '{');
        json_write_string(out, (struct slice){words[i], (size_t)(equals - words[i]) - is_json});
        buf_putc(out, ':');
        if (is_json)
            buf_append(out, value.data, value.len);
        else
            json_write_string(out, value);
    }
    buf_putc(out, '}');
    return EX_OK;
}

static bool are_headers(const struct options *options) {
    for (size_t i = 0; i < options->headers.count; i++)
        if (strcspn(options->headers.items[i], ":") == 0 || !strchr(options->headers.items[i], ':'))
            return false;
    return true;
}

static int read_body(const struct options *options, struct buf *body) {
    if (options->data && options->word_count > 1)
        return options_complain(EX_USAGE, "-d and KEY=VALUE do not go together");
    if (options->data && strcmp(options->data, "@") == 0)
        return options_complain(EX_USAGE, "-d @ names no file");
    if (options->data && options->data[0] == '@')
        return read_file(options->data + 1, body);
    if (options->data) {
        enum json_kind kind = json_check(slice_of(options->data));
        buf_puts(body, options->data);
        return kind == JSON_OBJECT || kind == JSON_ARRAY || kind == JSON_SCALAR
                   ? EX_OK
                   : options_complain(EX_USAGE, "-d is not JSON; -d @FILE and standard input send "
                                                "any bytes");
    }
    if (options->word_count > 1)
        return write_fields(options->words + 1, options->word_count - 1, body);
    if (isatty(STDIN_FILENO))
        return options_complain(EX_USAGE, "nothing to send: -d JSON, -d @FILE, KEY=VALUE or "
                                          "standard input");
    return read_file("-", body);
}

static bool has_type(const struct options *options) {
    for (size_t i = 0; i < options->headers.count; i++)
        if (strncasecmp(options->headers.items[i], "Content-Type:", 13) == 0)
            return true;
    return false;
}

static bool add(struct curl_slist **list, const char *line) {
    struct curl_slist *longer = curl_slist_append(*list, line);
    if (longer)
        *list = longer;
    return longer;
}

/* curl adds some of its own, unless they are named. What is no JSON gets no type. False without
 * memory. The list is the caller's in any case. */
static bool make_headers(const struct options *options, struct slice body,
                         struct curl_slist **list) {
    static const char agent[] = "User-Agent: longline/" LONGLINE_VERSION;
    const char *const own[] = {"Expect:", "Accept:", agent};
    bool is_done = true;
    for (size_t i = 0; i < sizeof own / sizeof *own; i++)
        is_done &= add(list, own[i]);
    enum json_kind kind = json_check(body);
    if (!has_type(options))
        is_done &= add(list, kind == JSON_INVALID || kind == JSON_TOO_DEEP
                                 ? "Content-Type:"
                                 : "Content-Type: application/json");
    for (size_t i = 0; i < options->headers.count; i++)
        is_done &= add(list, options->headers.items[i]);
    return is_done;
}

static int tell_refusal(const struct exchange_reply *reply) {
    struct buf error = {0};
    page_parse_error((struct slice){reply->body.data, reply->body.len}, reply->status, &error);
    buf_putc(&error, '\0');
    const char *text = error.failed ? "" : error.data;
    int code = EX_PROTOCOL;
    if (*text && reply->status == 403)
        code = EX_NOPERM;
    else if (reply->status / 100 == 3 || reply->status == 429 ||
             (*text && strstr(text, "nothing was stored")))
        code = EX_UNAVAILABLE;
    else if (*text && reply->status >= 500)
        code = EX_TEMPFAIL;
    else if (*text)
        code = EX_DATAERR;
    if (*text)
        options_complain(code, "%s: %d %s",
                         code == EX_TEMPFAIL ? "it may be stored or not" : "not stored",
                         reply->status, text);
    else
        options_complain(code, "status %d, and not from longline: %s", reply->status,
                         code == EX_UNAVAILABLE ? "a redirect; not stored"
                                                : "it may be stored or not");
    buf_deinit(&error);
    return code;
}

static int tell(const struct exchange_reply *reply, bool is_json) {
    if (reply->end == EXCHANGE_NOT_CONNECTED)
        return options_complain(EX_UNAVAILABLE, "not stored: %s", reply->error);
    if (reply->end != EXCHANGE_REPLIED)
        return options_complain(EX_TEMPFAIL, "it may be stored or not: %s", reply->error);
    if (reply->status / 100 != 2)
        return tell_refusal(reply);
    if (!reply->has_total)
        return options_complain(EX_PROTOCOL, "the answer is not longline's: it may be stored or "
                                             "not");
    if (!is_json) {
        printf("%" PRIu64 "\n", reply->total);
    } else {
        printf("{\"ts\":%" PRIu64, reply->total);
        if (reply->has_updates)
            printf(",\"updates\":%" PRIu64, reply->updates);
        if (reply->has_duplicate)
            printf(",\"duplicate\":%" PRIu64, reply->duplicate);
        puts("}");
    }
    /* It is stored, whoever reads the id. */
    fflush(stdout);
    return EX_OK;
}

static int push(const struct options *options, struct slice body) {
    struct exchange *exchange = exchange_new();
    struct exchange_reply reply = {0};
    struct curl_slist *headers = NULL;
    bool is_made = make_headers(options, body, &headers);
    struct exchange_request request = {
        .method = "POST",
        .url = options->words[0],
        .headers = headers,
        .body = body,
        .has_body = true,
        .limit_ms = ANSWER_MS,
        .reply_max_bytes = REPLY_MAX_BYTES,
    };
    int code = EX_OSERR;
    if (exchange && is_made) {
        exchange_run(exchange, &request, &reply);
        code = tell(&reply, options->json);
    } else {
        options_complain(code, "out of memory");
    }
    buf_deinit(&reply.body);
    curl_slist_free_all(headers);
    exchange_free(exchange);
    return code;
}

int send_run(int argc, char **argv) {
    struct options options;
    char error[256];
    if (!options_parse(&options, COMMAND_SEND, argc, argv, error, sizeof error))
        return options_complain(EX_USAGE, "%s", error);
    if (options.help) {
        options_help(COMMAND_SEND);
        return EX_OK;
    }
    const char *wrong = link_read_channel(options.words[0]);
    if (!wrong && !are_headers(&options))
        wrong = "-H is NAME: VALUE";
    if (wrong)
        return link_complain(wrong);
    struct buf body = {0};
    int code = read_body(&options, &body);
    if (code == EX_OK && body.failed)
        code = options_complain(EX_OSERR, "out of memory");
    if (code == EX_OK) {
        stop_init(false);
        code = push(&options, (struct slice){body.data, body.len});
    }
    buf_deinit(&body);
    return code;
}
