// Why a webhook does not arrive: the pushes to a channel that its server has refused in the last hour, why, and what to
// do about it. Where there are none, nothing is shown.

import { bytesText, element, timeText, visible } from './text.js';

const ASK_MS = 30_000;
const TOLD_MAX = 20; // the server keeps no more

const STORE = 'The server could not keep it. Its log and /-/health say why: a full disk, for example, or Redis that is away. Senders that repeat what failed will get through once that is mended.';
const ADVICE = {
    body_size: 'Raise MAX_BODY on this server, or let the sender send less.',
    rate_limit: 'The sender makes more requests than RATE_LIMIT_LIMIT allows. Raise it; if all senders seem to have one address, see TRUST_PROXY.',
    request_timeout: 'The sender began, but did not send all of it in time (REQUEST_TIMEOUT): a slow or broken line, or a Content-Length that is larger than the body.',
    busy: 'The server had more under way than BUFFER_SIZE allows. If it happens often, raise BUFFER_SIZE.',
    json: 'STRICT_JSON is on, and the body is no JSON object or array. Have the sender send one, or switch STRICT_JSON off.',
    json_depth: 'STRICT_JSON is on, and the body is nested too deep. Switch it off to have it kept as text.',
    method: 'That path only takes GET. Paste the address itself, without /getUpdates or /refused.',
    key_reads: 'The sender has the reading address, which begins with v_. Give it the sending one, which begins with w_.',
    target_size: 'The address with its query is too long. Put what is sent into the body.',
    head_size: 'The request has too many headers, or too long ones; cookies, often. The sender or a proxy in between adds them.',
    merge_size: 'The query replaces a member that the body has very often. Rename it in the address.',
    batch_empty: 'The body is NDJSON by its type, and has no line. Change the Content-Type, if it was not meant as a batch.',
    batch_count: 'Send fewer lines at once.',
    batch_size: 'Send fewer lines at once, or fewer headers.',
    store_unsure: 'The server cannot tell whether it is kept. Look for it below.',
    store_not_replicated: 'It is kept, and is below; but too few replicas of Redis have it.',
};
const OTHERWISE = 'The request is not sound HTTP. Look at the sender, or at the proxy between it and this server.';


export class Refused {
    #box;
    #say;
    #address;
    #askedAt = -ASK_MS;
    #turn = 0; // of the newest question
    #shownTurn = 0; // of that whose answer is shown
    #told = '[]';
    #newest = 0;
    #isLeftAlone = true; // by the reader

    /** Fills a <details>, hidden while there is none. say(text) tells who does not see it. */
    constructor(box, say) {
        this.#box = box;
        this.#say = say;
        box.addEventListener('click', () => (this.#isLeftAlone = false));
        setInterval(() => this.#askIfSeen(), ASK_MS);
        document.addEventListener('visibilitychange', () => this.#askIfSeen());
    }

    /** Looks after this channel from now on; undefined: after none. */
    watch(address) {
        this.#address = address;
        this.#newest = 0;
        this.#isLeftAlone = true;
        this.#box.open = false;
        this.#show([]);
        this.ask();
    }

    /** Nothing else has come: it opens, unless the reader has closed it. */
    open() {
        if (this.#isLeftAlone) this.#box.open = true;
    }

    /** Where no answer comes, what is shown stays. */
    async ask() {
        const address = this.#address;
        if (!address) return;
        this.#askedAt = performance.now();
        const turn = ++this.#turn;
        try {
            const response = await fetch(`${address}/refused`);
            const { refused } = await response.json();
            if (address !== this.#address || turn < this.#shownTurn || !Array.isArray(refused)) return; // a later one was answered first
            this.#shownTurn = turn;
            this.#show(refused);
        } catch {}
    }

    #askIfSeen() {
        if (!document.hidden && performance.now() - this.#askedAt >= ASK_MS / 2) this.ask();
    }

    #show(refused) {
        const told = JSON.stringify(refused);
        if (told === this.#told) return;
        this.#told = told;
        const box = this.#box;
        if (!refused.length) {
            box.hidden = true;
            box.replaceChildren();
            return;
        }
        box.hidden = false;
        const groups = groupsOf(refused);
        const count = `${refused.length < TOLD_MAX ? '' : 'At least '}${refused.length} ${refused.length === 1 ? 'push was' : 'pushes were'} refused in the last hour`;
        const why = groups.length === 1 ? `: ${reasonOf(refused[0])}` : '';
        box.replaceChildren(element('summary', {}, element('strong', {}, count), why), element('ul', {}, ...groups.map((group) => drawGroup(group, groups.length === 1))));
        if (refused[0].at > this.#newest) this.#say(`${count}${why}`);
        this.#newest = refused[0].at;
    }
}

/** By their reason, in words; the one that came last is first. */
function groupsOf(refused) {
    const groups = new Map();
    for (const push of refused) groups.set(push.error, [...(groups.get(push.error) ?? []), push]);
    return [...groups.values()];
}

function reasonOf({ error, status }) {
    return `${visible(String(error))} (${status})`;
}

/** Those of one reason, newest first. Where there is no other reason, it is said above. */
function drawGroup(group, isOnly) {
    const [{ at, method, path = '', from, size, reason }] = group;
    const request = [`${method} ${path}`.trim(), from && `from ${from}`].filter(Boolean).join(' ') + (size === undefined ? '' : `, ${bytesText(size)}`);
    const times = group.length === 1 ? timeText(at) : `${group.length} times, last ${timeText(at)}`;
    const advice = Object.hasOwn(ADVICE, reason) ? ADVICE[reason] : String(reason).startsWith('store') ? STORE : OTHERWISE;
    const why = isOnly ? [] : [element('strong', {}, reasonOf(group[0]))];
    return element('li', {}, ...why, element('p', { className: 'facts' }, `${times}: ${visible(request)}`), element('p', {}, advice));
}
