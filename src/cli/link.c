#include "cli/link.h"
#include "cli/curl.h"
#include "cli/options.h"

#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

static const char no_memory[] = "out of memory";
#define CHAT "/-/chat"

/* NULL when it is no address of a web server, or `*wrong` is set: memory is out. */
static CURLU *parse(const char *text, const char **wrong) {
    char *scheme = NULL;
    CURLU *url = curl_url();
    CURLUcode code =
        url ? curl_url_set(url, CURLUPART_URL, text, CURLU_PATH_AS_IS) : CURLUE_OUT_OF_MEMORY;
    if (code == CURLUE_OK)
        code = curl_url_get(url, CURLUPART_SCHEME, &scheme, 0);
    bool is_web =
        code == CURLUE_OK && (strcmp(scheme, "http") == 0 || strcmp(scheme, "https") == 0);
    curl_free(scheme);
    if (is_web)
        return url;
    if (code == CURLUE_OUT_OF_MEMORY)
        *wrong = no_memory;
    curl_url_cleanup(url);
    return NULL;
}

/*
 * A page, the console or the chat, has the channel in its fragment, with what it shows of it behind
 * a slash. Moves the name to the path, which makes the address shorter. NULL, or what is wrong.
 */
static const char *leave_page(char *text) {
    size_t path_len = strcspn(text, "?#"), base_len = path_len;
    size_t query_len = strcspn(text + path_len, "#"), chat_len = strlen(CHAT);
    const char *name = text + path_len + query_len;
    size_t name_len = *name ? strcspn(++name, "/") : 0;
    if (path_len > chat_len && strncmp(text + path_len - chat_len, CHAT, chat_len) == 0)
        base_len -= chat_len - 1;
    if (!name_len || !base_len || text[base_len - 1] != '/')
        return NULL;
    if (strcspn(name, "?#") < name_len)
        return "URL has a ? or # in its name: they are %3F and %23";
    char *copy = strdup(text);
    if (!copy)
        return no_memory;
    memmove(text + base_len, name, name_len);
    memcpy(text + base_len + name_len, copy + path_len, query_len);
    text[base_len + name_len + query_len] = '\0';
    free(copy);
    return NULL;
}

int link_complain(const char *wrong) {
    return options_complain(strcmp(wrong, no_memory) == 0 ? EX_OSERR : EX_USAGE, "%s", wrong);
}

const char *link_read_channel(char *text) {
    const char *wrong = leave_page(text);
    if (wrong)
        return wrong;
    CURLU *url = parse(text, &wrong);
    char *path = NULL;
    if (!url)
        return wrong ? wrong : "URL is the address of a channel: http://… or https://…";
    bool has_memory = curl_url_get(url, CURLUPART_PATH, &path, 0) == CURLUE_OK; /* it has one */
    bool is_channel = has_memory && strspn(path, "/") < strlen(path);
    curl_free(path);
    curl_url_cleanup(url);
    return is_channel    ? NULL
           : !has_memory ? no_memory
                         : "URL has no channel: it is https://server/channel";
}

bool link_write_poll(const char *text, struct slice query, struct buf *out) {
    buf_reset(out, SIZE_MAX);
    buf_append(out, text, strcspn(text, "?#"));
    buf_putc(out, '?');
    buf_append(out, query.data, query.len);
    buf_putc(out, '\0');
    return !out->failed;
}

const char *link_redirect_hint(const char *url, int status) {
    bool is_plain = strncasecmp(url, "https:", 6) != 0;
    return status / 100 != 3 ? "" : is_plain ? ": is it https://?" : ": is it another address?";
}

/* False without memory. */
static bool lower_host(CURLU *url) {
    char *host = NULL;
    CURLUcode code = curl_url_get(url, CURLUPART_HOST, &host, 0);
    if (code == CURLUE_OK) {
        for (char *c = host; *c; c++)
            *c = slice_lower(*c);
        code = curl_url_set(url, CURLUPART_HOST, host, 0);
    }
    curl_free(host);
    return code != CURLUE_OUT_OF_MEMORY;
}

void link_write_identity(const char *text, struct buf *out) {
    const char *wrong = NULL;
    CURLU *url = parse(text, &wrong);
    char *whole = NULL;
    if (url && lower_host(url)) {
        curl_url_set(url, CURLUPART_QUERY, NULL, 0);
        curl_url_set(url, CURLUPART_FRAGMENT, NULL, 0);
        curl_url_get(url, CURLUPART_URL, &whole, CURLU_NO_DEFAULT_PORT);
    }
    size_t len = whole ? strlen(whole) : 0;
    while (len && whole[len - 1] == '/')
        len--;
    buf_append(out, whole, len);
    out->failed |= !whole;
    curl_free(whole);
    curl_url_cleanup(url);
}

void link_escape(struct buf *out, const char *text) {
    char *escaped = curl_easy_escape(NULL, text, 0);
    if (escaped)
        buf_puts(out, escaped);
    else
        out->failed = true;
    curl_free(escaped);
}

/* A copy that free() takes; "" when there is nothing, NULL without memory. */
static char *part_of(CURLU *url, CURLUPart part) {
    char *text = NULL, *copy = NULL;
    if (curl_url_get(url, part, &text, 0) != CURLUE_OUT_OF_MEMORY)
        copy = strdup(text ? text : "");
    curl_free(text);
    return copy;
}

const char *link_parse_target(const char *text, struct link_target *target) {
    *target = (struct link_target){0};
    const char *wrong = NULL;
    CURLU *url = parse(text, &wrong);
    if (!url)
        return wrong ? wrong : "TARGET is the address of a web server: http://localhost:8080/hooks";
    target->path = part_of(url, CURLUPART_PATH);
    target->query = part_of(url, CURLUPART_QUERY);
    target->is_plain = strncasecmp(text, "https:", 6) != 0;
    curl_url_cleanup(url);
    if (!target->path || !target->query) {
        link_target_deinit(target);
        return no_memory;
    }
    return NULL;
}

void link_target_deinit(struct link_target *target) {
    free(target->path);
    free(target->query);
    *target = (struct link_target){0};
}

/* The first character as a server may read it: `/` for `\`, `%2f` and `%5c`, `.` for `%2e`. */
static char read_character(struct slice *path) {
    static const struct {
        struct slice code;
        char c;
    } codes[] = {{SLICE("%2e"), '.'}, {SLICE("%2f"), '/'}, {SLICE("%5c"), '/'}, {SLICE("\\"), '/'}};
    for (size_t i = 0; i < sizeof codes / sizeof *codes; i++) {
        struct slice start = {path->data, codes[i].code.len};
        if (path->len >= start.len && slice_equal_nocase(start, codes[i].code)) {
            *path = slice_after(*path, start.len);
            return codes[i].c;
        }
    }
    char c = *path->data;
    *path = slice_after(*path, 1);
    return c;
}

/* Whether a segment is `..`, also with parameters (`..;a=b`), or encoded. */
static bool climbs(struct slice path) {
    size_t dots = 0, others = 0;
    bool is_name = true; /* not the parameters of a segment */
    while (path.len) {
        char c = read_character(&path);
        if (c == '/') {
            if (dots == 2 && !others)
                return true;
            dots = others = 0;
            is_name = true;
        } else if (c == ';') {
            is_name = false;
        } else if (is_name) {
            dots += c == '.';
            others += c != '.';
        }
    }
    return dots == 2 && !others;
}

bool link_write_target(const struct link_target *target, struct slice path, struct slice query,
                       struct buf *out) {
    size_t len = strlen(target->path);
    bool has_path = path.len && !climbs(path);
    buf_reset(out, SIZE_MAX);
    bool ends_with_slash = len && target->path[len - 1] == '/';
    bool begins_with_slash = has_path && *path.data == '/';
    buf_append(out, target->path, ends_with_slash && begins_with_slash ? len - 1 : len);
    if (has_path && !ends_with_slash && !begins_with_slash)
        buf_putc(out, '/');
    if (has_path)
        buf_append(out, path.data, path.len);
    if (*target->query || query.len)
        buf_printf(out, "?%s%s", target->query, *target->query && query.len ? "&" : "");
    buf_append(out, query.data, query.len);
    buf_putc(out, '\0');
    return !out->failed;
}
