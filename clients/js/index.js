// The client of longline, for Node and browsers: push updates to a channel, and read them as an endless loop.
//
// A subscription is a loop around GET ?ts=CURSOR. The cursor moves in two places only: to just before a reply's first
// update when the reply is there, and over an update when the user's loop asks for the next one. So whatever breaks
// in between (network, server, the loop's body), asking with the cursor brings the same updates again.

const SLEEP_MAX_S = 60; // the longest that a server waits
const SILENCE_MAX_MS = 15_000; // so much longer than it waits, no byte may come before a request counts as lost
const RETRY_AFTER_MAX_S = 60;
const DEPTH_MAX = 520; // the server's 500 levels, and what it wraps around an update

/**
 * A request that failed. `status` is 0 where no whole reply came, and 200 where the reply was not longline's, or not of
 * one that knows batches.
 */
export class LonglineError extends Error {
    constructor(status, description, { retryAfter, cause } = {}) {
        super(status ? `${status} ${description}` : description, { cause });
        Object.assign(this, { name: 'LonglineError', status, description, retryAfter });
    }
}

export class Channel {
    #settings;
    #running = new Set(); // its loops' AbortControllers: of one signal for all, Node warns that it has many listeners

    constructor(url, { fetch, headers, backoffMs = 500, backoffMaxMs = 30_000 } = {}) {
        url = parseAddress(url);
        this.url = url.href;
        this.#settings = { url, fetch, headers, backoffMs, backoffMaxMs };
    }

    /** Stores an object or array; a string is sent as the JSON that it is. Never tries twice. */
    async push(update, { signal } = {}) {
        return this.#send('application/json', jsonOf(update), signal);
    }

    /** Stores many, all or none: an iterable of what push() takes. Never tries twice. */
    async pushBatch(updates, { signal } = {}) {
        const lines = Array.from(updates, lineOf);
        return this.#send('application/x-ndjson', lines.join('\n'), signal, lines.length);
    }

    async #send(type, body, signal, batchSize) {
        const init = { method: 'POST', headers: { 'Content-Type': type }, body };
        const { response, text } = await request(this.#settings, this.url, init, SLEEP_MAX_S, signal);
        const ts = Number(response.headers.get('X-Total-Updates'));
        // A redirect can make a GET of the POST, and a GET's reply is no receipt.
        if (text !== 'OK' || !ts) throw new LonglineError(response.status, "The reply is not longline's receipt");
        if (batchSize !== undefined) checkBatch(response, batchSize);
        return { ts };
    }

    updates(options) {
        return new Subscription(this.#settings, this.#running, options, (entry) => entry.update);
    }

    entries(options) {
        return new Subscription(this.#settings, this.#running, options, (entry) => entry);
    }

    /** Ends the loops that run over this channel. */
    close() {
        for (const stop of this.#running) stop.abort();
        this.#running.clear();
    }
}

function jsonOf(update) {
    const text = typeof update === 'string' ? update : JSON.stringify(update);
    if (text === undefined) throw new TypeError('An update is an object or an array');
    return text;
}

function lineOf(update) {
    const text = jsonOf(update);
    if (!text.trim()) throw new TypeError('An update is an object or an array'); // the server would skip the line
    // White space in a string that is JSON: a line break there would end the update's line.
    return text.replace(/[\r\n]/g, ' ');
}

/** Throws if the server did not take the batch for one. */
function checkBatch({ status, headers }, size) {
    const count = headers.get('X-Updates');
    if (count && count <= size) return; // fewer: the address has .once, and some had come before
    if (count) throw new LonglineError(status, `The server has stored ${count} updates, not ${size}`);
    throw new LonglineError(status, 'The server does not know batches; it has stored the text as one update');
}

/** The iterator of updates() and entries(). `ts` is the cursor. */
class Subscription {
    #stop = new AbortController();
    #running;
    #loop;

    constructor(settings, running, options = {}, pick) {
        const { ts = 0, sleep = SLEEP_MAX_S } = options;
        if (!Number.isSafeInteger(ts)) throw new RangeError('ts is the id of an update, or -K for the last K');
        if (!(sleep >= 0)) throw new RangeError('sleep is a number of seconds from 0 to 60');
        this.ts = ts;
        this.#running = running.add(this.#stop);
        this.#loop = this.#run(settings, options, Math.min(sleep, SLEEP_MAX_S), pick);
    }

    [Symbol.asyncIterator]() {
        return this;
    }

    next() {
        return this.#loop.next();
    }

    return(value) {
        this.#stop.abort(); // A generator's own return() would first let a waiting poll end.
        this.#running.delete(this.#stop); // One that never ran has no finally.
        return this.#loop.return(value);
    }

    async *#run(settings, options, sleep, pick) {
        const { signal, limit = 100, full = false, onMissed, onReset, onError, onReply } = options;
        const { backoffMs, backoffMaxMs } = settings;
        const stop = this.#stop.signal;
        const abort = () => this.#stop.abort();
        if (signal?.aborted) abort();
        signal?.addEventListener('abort', abort);
        try {
            let stepMs = backoffMs;
            while (!stop.aborted) {
                const asked = this.ts;
                const url = new URL(settings.url);
                const query = { ts: asked, sleep, limit, ...(full && { view: 'full' }) };
                for (const name in query) url.searchParams.set(name, query[name]);

                const began = performance.now();
                let reply;
                try {
                    reply = readReply(await request(settings, url.href, {}, sleep, stop), full);
                } catch (error) {
                    if (stop.aborted) return;
                    const { status, retryAfter } = error;
                    if (status >= 300 && status < 500 && status !== 408 && status !== 429) throw error;
                    let waitMs = jitter(stepMs);
                    if (retryAfter > 0 && (status === 429 || status === 503)) {
                        waitMs = Math.min(retryAfter, RETRY_AFTER_MAX_S) * 1000;
                    } else {
                        stepMs = Math.min(stepMs * 2, backoffMaxMs);
                    }
                    onError?.(error, waitMs);
                    await pause(waitMs, stop);
                    continue;
                }
                if (stop.aborted) return;
                stepMs = backoffMs;
                onReply?.({ ts: reply.ts, total: reply.total });
                if (reply.missed) onMissed?.(reply.missed);
                if (reply.reset) onReset?.(reply.ts);

                this.ts = reply.ts - reply.entries.length;
                for (const entry of reply.entries) {
                    if (stop.aborted) return;
                    yield pick(entry);
                    this.ts = entry.ts;
                }
                // Nothing, and at once (sleep: 0, a server that stops, a proxy that does not wait): do not spin.
                if (this.ts === asked && performance.now() - began < backoffMs) await pause(jitter(backoffMs), stop);
            }
        } finally {
            signal?.removeEventListener('abort', abort);
            this.#running.delete(this.#stop);
        }
    }
}

function parseAddress(text) {
    try {
        const url = new URL(text, globalThis.location?.href);
        if (/^https?:$/.test(url.protocol) && !url.username && !url.password) return url;
    } catch {} // This error shows the path, which is the channel's secret.
    throw new TypeError('A channel is an http or https URL without a user and password');
}

/** Half to all of it: clients that failed together must not come back together. */
function jitter(ms) {
    return ms * (0.5 + Math.random() / 2);
}

/** Waits, but not after the signal is aborted. */
function pause(ms, signal) {
    return new Promise((resolve) => {
        const done = () => {
            clearTimeout(timer);
            signal.removeEventListener('abort', done);
            resolve();
        };
        const timer = setTimeout(done, ms);
        signal.addEventListener('abort', done);
        if (signal.aborted) done();
    });
}

/** One request, up to the last byte of its reply. Throws a LonglineError, or the signal's reason. */
async function request({ fetch = globalThis.fetch, headers }, url, init, waitS, signal) {
    const aborter = new AbortController();
    const abort = () => aborter.abort();
    let timer;
    const heard = () => {
        clearTimeout(timer);
        timer = setTimeout(abort, waitS * 1000 + SILENCE_MAX_MS);
    };
    if (signal?.aborted) abort();
    signal?.addEventListener('abort', abort);
    try {
        heard();
        const response = await fetch(url, { ...init, headers: { ...headers, ...init.headers }, signal: aborter.signal });
        const reader = response.body?.getReader();
        const decoder = new TextDecoder('utf-8', { fatal: true });
        let text = '';
        for (let chunk; reader && !(chunk = await reader.read()).done; ) {
            heard();
            text += decoder.decode(chunk.value, { stream: true });
        }
        text += decoder.decode();
        if (response.ok) return { response, text };

        let description;
        try {
            description = JSON.parse(text).error_description;
        } catch {} // a proxy's page
        const retryAfter = Number(response.headers.get('Retry-After')) || undefined; // as a date it is not used
        throw new LonglineError(response.status, description ?? response.statusText, { retryAfter });
    } catch (error) {
        if (signal?.aborted) throw signal.reason;
        if (error instanceof LonglineError) throw error;
        const why = aborter.signal.aborted ? 'it did not come in time' : error.cause?.message || error.message;
        throw new LonglineError(0, `No reply: ${why}`, { cause: error });
    } finally {
        clearTimeout(timer);
        signal?.removeEventListener('abort', abort);
        abort(); // A reply that was not read to its end would keep its connection.
    }
}

/** What a poll brought: {ts, total, missed, reset, entries}. The updates are checked, but not parsed yet. */
function readReply({ response, text }, full) {
    try {
        const { parts } = locate(text, full ? 3 : 2);
        const value = (name) => parts[name] && JSON.parse(cut(text, parts[name]));
        const ts = value('ts');
        const items = parts.updates.parts;
        if (!Number.isSafeInteger(ts) || !Array.isArray(items)) throw new SyntaxError('no ts, or no updates');
        const entries = items.map((item, i) => readEntry(text, item, ts - items.length + i + 1, full));
        const total = Number(response.headers.get('X-Total-Updates'));
        return { ts, total, missed: value('missed'), reset: value('reset'), entries };
    } catch (cause) {
        throw new LonglineError(response.status, `The reply is not longline's: ${cause.message}`, { cause });
    }
}

function readEntry(text, item, ts, full) {
    const { parts } = item;
    const entry = { ts, text: cut(text, full ? parts.body : item) };
    lazy(entry, 'update', () => JSON.parse(entry.text));
    if (!full) return entry;
    for (const name of ['at', 'method', 'query', 'headers']) lazy(entry, name, () => JSON.parse(cut(text, parts[name])));
    for (const name of ['path', 'from', 'same_as']) if (parts[name]) lazy(entry, name, () => JSON.parse(cut(text, parts[name])));
    lazy(entry, 'raw', () => {
        if (parts.raw) return JSON.parse(cut(text, parts.raw));
        return Uint8Array.from(atob(JSON.parse(cut(text, parts.raw_base64))), (byte) => byte.charCodeAt(0));
    });
    return entry;
}

/** Gives the object a property that is made when it is first read. */
function lazy(object, name, make) {
    const define = (how) => Object.defineProperty(object, name, { enumerable: true, configurable: true, ...how });
    define({ get: () => define({ value: make(), writable: true })[name] });
}

function cut(text, { start, end }) {
    return text.slice(start, end);
}

const CLOSE = { '{': '}', '[': ']' };
const SPACE = /[ \t\n\r]*/y;
const CHARS = /[^"\\\0-\x1f]*/y;
const ESCAPE = /\\(?:["\\/bfnrt]|u[\da-fA-F]{4})/y;
const SCALAR = /(?:true|false|null|-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][-+]?\d+)?)/y;

/**
 * Checks that a text is JSON and finds its values, without reading them. A node is {start, end}; down to `levels` it
 * has parts, an array of nodes or an object of them by name. Throws a SyntaxError. One pass, whatever the text.
 */
function locate(text, levels) {
    let at = 0;
    const fail = () => {
        throw new SyntaxError(`no JSON at character ${at}`);
    };
    const take = (pattern) => {
        pattern.lastIndex = at;
        if (!pattern.test(text)) fail();
        at = pattern.lastIndex;
    };
    const string = () => {
        if (text[at++] !== '"') fail();
        for (take(CHARS); text[at] !== '"'; take(CHARS)) take(ESCAPE);
        at++;
    };
    const value = (level) => {
        take(SPACE);
        const node = { start: at };
        const close = CLOSE[text[at]];
        if (close) {
            if (level < levels) node.parts = close === ']' ? [] : Object.create(null);
            container(level, close, node.parts);
        } else if (text[at] === '"') {
            string();
        } else {
            take(SCALAR);
        }
        node.end = at;
        take(SPACE);
        return node;
    };
    const container = (level, close, parts) => {
        if (level > DEPTH_MAX) fail();
        at++;
        take(SPACE);
        if (text[at] === close) return at++;
        do {
            let name = parts?.length;
            if (close === '}') {
                take(SPACE);
                const start = at;
                string();
                if (parts) name = JSON.parse(text.slice(start, at));
                take(SPACE);
                if (text[at++] !== ':') fail();
            }
            const part = value(level + 1);
            if (parts) parts[name] = part;
        } while (text[at++] === ',');
        if (text[at - 1] !== close) fail();
    };
    const root = value(0);
    if (at < text.length) fail();
    return root;
}
