/* What a Content-Type says of a body, and the body as UTF-8. */
#pragma once

#include "base/buf.h"
#include "base/slice.h"

enum media { MEDIA_NONE, MEDIA_JSON, MEDIA_FORM, MEDIA_TEXT, MEDIA_OTHER };

/* A Content-Type, taken apart. */
struct content {
    enum media media;
    struct slice charset; /* empty when it names none */
};

struct content content_of(struct slice content_type);

/*
 * Appends `body` as UTF-8 when it is a text of another charset: that of its byte-order mark, that
 * of its type, or else windows-1252. False when it is no text, or is UTF-8 already. Check
 * out->failed.
 */
bool content_decode(struct buf *out, struct slice body, const struct content *content);
