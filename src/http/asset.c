#include "http/asset.h"
#include "asset_files.h"

#include <stdio.h>
#include <string.h>

/* Scripts and styles come from the page's own server and from nowhere else, and no text becomes
 * markup. The console also shows pictures that it has made of what was sent to it, and starts one
 * worker, resender.js: only that connects to other servers, and has no page. */
#define POLICY                                                                                     \
    "Content-Security-Policy: default-src 'none'; script-src 'self'; style-src 'self'; "           \
    "img-src 'self'%s; "                                                                           \
    "connect-src %s; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "                \
    "require-trusted-types-for 'script'; trusted-types %s\r\n"                                     \
    "Referrer-Policy: no-referrer\r\n"                                                             \
    "Cross-Origin-Opener-Policy: same-origin\r\n"

const struct asset *asset_find(struct slice path) {
    for (size_t i = 0; i < sizeof asset_files / sizeof *asset_files; i++)
        if (slice_equal(path, asset_files[i].path))
            return &asset_files[i];
    return NULL;
}

/* Whether an element of Accept-Encoding names `coding`, with a weight other than 0 (RFC 9110,
 * 12.5.3). */
static bool is_accepted(struct slice element, struct slice coding) {
    struct slice name;
    if (!slice_cut(&element, ';', &name) || !slice_equal_nocase(slice_trim(name), coding))
        return false;
    for (size_t i = 0; i < element.len; i++)
        if (element.data[i] >= '1' && element.data[i] <= '9')
            return true;
    return !element.data;
}

static bool takes_gzip(struct slice accepted) {
    for (struct slice element; slice_cut(&accepted, ',', &element);)
        if (is_accepted(element, SLICE("gzip")))
            return true;
    return false;
}

/* Whether If-None-Match names the ETag, which a proxy may have made weak: W/"…". */
static bool is_known(struct slice known, struct slice etag) {
    for (struct slice element; slice_cut(&known, ',', &element);) {
        element = slice_trim(element);
        if (slice_starts_with(element, SLICE("W/")))
            element = slice_after(element, 2);
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
    bool is_console = slice_equal(asset->path, SLICE("/"));
    bool is_resender = slice_equal(asset->path, SLICE("/-/web/resender.js"));
    int len = snprintf(lines, sizeof lines, POLICY "ETag: %.*s\r\nVary: Accept-Encoding\r\n%s",
                       is_console ? " blob:" : "", is_resender ? "https: http:" : "'self'",
                       is_console ? "resender" : "'none'", (int)etag.len, etag.data,
                       is_gzip ? "Content-Encoding: gzip\r\n" : "");
    struct slice headers = {lines, (size_t)len};
    flags |= REPLY_REVALIDATED;
    if (is_known(request_header(request, HEADER_IF_NONE_MATCH), etag))
        return reply_new(HTTP_NOT_MODIFIED, flags, NULL, headers, SLICE(""));
    return reply_new(HTTP_OK, flags, asset->content_type, headers,
                     is_gzip ? asset->gzip : asset->plain);
}
