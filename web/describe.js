// Who sent an update and what it is about, as far as it tells: by the headers of common senders, else by its members.

import { kindText, previewOf } from './kinds.js';
import { oneLine } from './text.js';

const BODY_MAX = 64 << 10; // characters of an update that is read for a line in the list
const PREVIEW = 200;
const PATH_MAX = 300;

const EVENT_HEADERS = ['x-github-event', 'x-gitlab-event', 'x-gitea-event', 'x-event-key', 'x-shopify-topic', 'x-wc-webhook-topic', 'ce-type'];
const EVENT_MEMBERS = ['event', 'type', 'event_type', 'event_name', 'action', 'text', 'message', 'cmd'];
const SENDER_MEMBERS = ['appname', 'name', 'sender', 'source', 'from'];
const SENDER_HEADERS = {
    'x-github-event': 'GitHub',
    'x-gitea-event': 'Gitea',
    'x-gitlab-event': 'GitLab',
    'x-hook-uuid': 'Bitbucket',
    'stripe-signature': 'Stripe',
    'x-slack-signature': 'Slack',
    'x-shopify-topic': 'Shopify',
    'x-telegram-bot-api-secret-token': 'Telegram',
    'x-twilio-signature': 'Twilio',
    'paypal-transmission-id': 'PayPal',
    'x-wc-webhook-topic': 'WooCommerce',
};
// A program's own name for itself says more of it than these do.
const PLAIN_AGENTS = /^(mozilla|okhttp|node|undici|python-requests|axios|go-http-client)$/i;

const known = new WeakMap();

/** {sender, event, preview} of an entry, each one line of text; the sender may be ''. Where no event is known, it is what the body is. */
export function describe(entry) {
    let description = known.get(entry);
    if (!description) {
        const body = updateOf(entry);
        description = { sender: senderOf(entry), event: eventOf(entry) || kindText(entry, body), preview: previewOf(entry, body, PREVIEW) };
        known.set(entry, description);
    }
    return description;
}

function senderOf(entry) {
    const named = ownText(bodyOf(entry), ['appname']);
    if (named) return named;
    const headers = headersOf(entry);
    for (const name in SENDER_HEADERS) if (Object.hasOwn(headers, name)) return SENDER_HEADERS[name];
    if (Number.isInteger(bodyOf(entry).update_id)) return 'Telegram';
    const agent = ownText(headers, ['user-agent'])?.split(/[/ ]/)[0] ?? '';
    return ownText(bodyOf(entry), SENDER_MEMBERS) ?? (PLAIN_AGENTS.test(agent) ? '' : agent);
}

function eventOf(entry) {
    const body = bodyOf(entry);
    const event = ownText(headersOf(entry), EVENT_HEADERS);
    if (event) {
        const action = ownText(body, ['action']);
        return action ? `${event}.${action}` : event;
    }
    if (Number.isInteger(body.update_id)) return Object.keys(body).find((name) => name !== 'update_id' && body[name] && typeof body[name] === 'object') ?? '';
    return ownText(body, EVENT_MEMBERS) ?? '';
}

/** Its method, and its path below the channel. */
export function requestText({ method, path = '' }) {
    return oneLine(`${method} ${path}`.trim(), PATH_MAX);
}

export function headersOf(entry) {
    return entry.headers && typeof entry.headers === 'object' ? entry.headers : {};
}

/** The update; undefined where it is too large to be read for a line. */
function updateOf(entry) {
    const update = entry.text.length <= BODY_MAX ? entry.update : undefined;
    return update && typeof update === 'object' ? update : undefined;
}

function bodyOf(entry) {
    return updateOf(entry) ?? {};
}

/** The first of these members that is a text. What is inherited is none. */
function ownText(object, names) {
    for (const name of names) {
        if (Object.hasOwn(object, name) && typeof object[name] === 'string' && object[name]) return oneLine(object[name], 60);
    }
}
