/*
 * The files of web/: the console, the chat and what they load. They are part of the program;
 * web/embed.py writes them into its source, plain and compressed.
 */
#pragma once

#include "http/reply.h"
#include "http/request.h"

struct asset {
    struct slice path; /* as it is requested */
    const char *content_type;
    struct slice plain, gzip;
    struct slice plain_etag, gzip_etag; /* with their quotes */
};

/* NULL when there is none at this path. */
const struct asset *asset_find(struct slice path);

/* Replies with the asset in an encoding that the request accepts, or 304 if the client has it. NULL
 * when memory is out. */
struct reply *asset_reply(const struct asset *asset, const struct request *request, unsigned flags);
