#include "http/asset.h"
#include "asset_files.h"

#include <stdio.h>
#include <string.h>

/* Scripts and styles come from the page's own server and from nowhere else, and no text becomes markup. */
#define POLICY                                                                                     \
    "Content-Security-Policy: default-src 'none'; script-src 'self'; style-src 'self'; img-src "   \
    "'self'; "                                                                                     \
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "            \
    "require-trusted-types-for 'script'; trusted-types 'none'\r\n"                                 \
    "Referrer-Policy: no-referrer\r\n"                                                             \
    "Cross-Origin-Opener-Policy: same-origin\r\n"

const struct asset *asset_find(struct slice path) {
    for (size_t i = 0; i < sizeof asset_files / sizeof *asset_files; i++)
        if (slice_equal(path, asset_files[i].path))
            return &asset_files[i];
    return NULL;
}

/* Takes the next element off a comma-separated list; false at its end. */
static bool next_element(struct slice *list, struct slice *element) {
    if (!list->len)
        return false;
    const char *comma = memchr(list->data, ',', list->len);
    size_t len = comma ? (size_t)(comma - list->data) : list->len;
    *element = slice_trim((struct slice){list->data, len});
    len += comma != NULL;
    *list = (struct slice){list->data + len, list->len - len};
    return true;
}

/* Whether an element of Accept-Encoding is that coding, with a weight other than 0. */
static bool is_accepted(struct slice element, struct slice coding) {
    const char *semicolon = memchr(element.data, ';', element.len);
    size_t len = semicolon ? (size_t)(semicolon - element.data) : element.len;
    if (!slice_equal_nocase(slice_trim((struct slice){element.data, len}), coding))
        return false;
    for (size_t i = len; i < element.len; i++)
        if (element.data[i] >= '1' && element.data[i] <= '9')
            return true;
    return !semicolon;
}

static bool takes_gzip(struct slice accepted) {
    for (struct slice element; next_element(&accepted, &element);)
        if (is_accepted(element, SLICE("gzip")))
            return true;
    return false;
}

/* Whether If-None-Match names the ETag; a proxy may have made it weak (W/"…"). */
static bool is_known(struct slice known, struct slice etag) {
    for (struct slice element; next_element(&known, &element);) {
        if (element.len > 2 && memcmp(element.data, "W/", 2) == 0)
            element = (struct slice){element.data + 2, element.len - 2};
        if (slice_equal(element, etag) || slice_equal(element, SLICE("*")))
            return true;
    }
    return false;
}

struct reply *asset_reply(const struct asset *asset, const struct request *request,
                          unsigned flags) {
    bool is_gzip = takes_gzip(request_header(request, HEADER_ACCEPT_ENCODING));
    struct slice etag = is_gzip ? asset->gzip_etag : asset->plain_etag;
    char lines[1024];
    int len = snprintf(lines, sizeof lines, POLICY "ETag: %.*s\r\nVary: Accept-Encoding\r\n%s",
                       (int)etag.len, etag.data, is_gzip ? "Content-Encoding: gzip\r\n" : "");
    struct slice headers = {lines, (size_t)len};
    flags |= REPLY_REVALIDATED;
    if (is_known(request_header(request, HEADER_IF_NONE_MATCH), etag))
        return reply_new(HTTP_NOT_MODIFIED, flags, NULL, headers, SLICE(""));
    return reply_new(HTTP_OK, flags, asset->content_type, headers,
                     is_gzip ? asset->gzip : asset->plain);
}
