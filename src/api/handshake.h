/*
 * Handshakes: how services ask whether an address is theirs to send to, and what they want to hear.
 *
 *     Slack             POST of JSON whose `type` is url_verification: its `challenge`
 *     Twitch            POST with Twitch-Eventsub-Message-Type: webhook_callback_verification:
 *                       the `challenge` of its JSON
 *     Meta, WebSub      GET with `hub.mode` and `hub.challenge`: the latter
 *     Microsoft Graph   `validationToken` in the query: it
 *     Dropbox, others   GET with `challenge`, and no parameter of a poll: it
 *     Okta              GET with X-Okta-Verification-Challenge: JSON with `verification`
 *     Asana             POST with X-Hook-Secret: the same header
 *     Smartsheet        POST with Smartsheet-Hook-Challenge: Smartsheet-Hook-Response, and JSON
 *     CloudEvents       OPTIONS with WebHook-Request-Origin: WebHook-Allowed-Origin
 */
#pragma once

#include "api/wanted.h"
#include "http/request.h"

enum { HANDSHAKE_HEADER_MAX_BYTES = 512 }; /* of a header that is echoed: visible ASCII only */

/*
 * Reads what the sender of a complete request wants to hear; `query` is what follows the `?` of its
 * target. False when it is no handshake, or one whose echo would be too long; otherwise check
 * wanted_failed(), and wanted_deinit() it. `*wanted` is zeroed. Pure.
 */
bool handshake_read(const struct request *request, struct slice query, struct wanted *wanted);

/* The same for OPTIONS, whose reply has no body: appends the header lines of consent. */
bool handshake_consent(const struct request *request, struct buf *lines);
