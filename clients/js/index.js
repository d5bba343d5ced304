// The client of longline, for Node and browsers: push updates to a channel, and read them as an endless loop.
//
// A loop asks GET ?ts=CURSOR (of many channels: POST /-/poll) again and again. The cursor moves in two places only: to
// just before a reply's first update when the reply is there, and over an update when the user's loop asks for the next
// one. So whatever breaks in between (network, server, the loop's body), asking with the cursor brings the same again.

const SLEEP_S = 25; // many proxies cut what is silent for 30 s
const SLEEP_MAX_S = 3600;
const PUSH_S = 60;
const CHANNELS_MAX = 64; // of one request
const UNIT_S = { s: 1, m: 60, h: 3600, d: 86400 };
const SILENCE_MAX_MS = 15_000; // so much longer than it waits, no byte may come before a request counts as lost
const RETRY_AFTER_MAX_S = 60;
const CUT_MIN_MS = 500; // a poll that dies earlier has not waited;
const CUT_LATE_MS = 5000; // and one that dies so long after its time was not cut for its length
const CUT_SLEEP_MIN_S = 1;
const CUT_PAUSE_MS = 500; // before the next, from the third in a row on
const LARGE_CHARS = 2 << 20; // a reply that is longer has one large update
const KEY_PREFIXES = ['r_', 'v_', 'w_']; // may do everything, reads, sends
const KEY_LETTERS = 'abcdefghijklmnopqrstuvwxyz234567';
const KEY_SIZE = 26;

/**
 * A request that failed. `status` is 0 where no whole reply came, and 200 where the reply was not longline's, or not of
 * one that knows batches. `isOwn`: longline said so itself, not a proxy before it.
 */
export class LonglineError extends Error {
    constructor(status, description, { retryAfter, isOwn = false, cause } = {}) {
        super(status ? `${status} ${description}` : description, { cause });
        Object.assign(this, { name: 'LonglineError', status, description, retryAfter, isOwn });
    }
}

/** What reads: its settings, and its loops that run. */
class Reader {
    _settings;
    _running = new Set(); // its loops' AbortControllers: of one signal for all, Node warns that it has many listeners

    constructor(url, { fetch, headers, backoffMs = 500, backoffMaxMs = 30_000 } = {}) {
        url = parseAddress(url);
        this.url = url.href;
        this._settings = { url, fetch, headers, backoffMs, backoffMaxMs };
    }

    /** Ends the loops that run. */
    close() {
        for (const stop of this._running) stop.abort();
        this._running.clear();
    }
}

export class Channel extends Reader {
    /** The address that only reads; null if this one only sends, or is a plain secret. */
    get readOnlyUrl() {
        return urlOfKind(this.url, 'v_');
    }

    /** The address that only sends; null if this one is a plain secret. */
    get sendOnlyUrl() {
        return urlOfKind(this.url, 'w_');
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
        const { response, text } = await request(this._settings, this.url, init, PUSH_S, signal);
        const ts = Number(response.headers.get('X-Total-Updates'));
        // A redirect can make a GET of the POST, and a GET's reply is no receipt.
        if (text !== 'OK' || !ts) throw new LonglineError(response.status, "The reply is not longline's receipt");
        if (batchSize !== undefined) checkBatch(response, batchSize);
        return { ts };
    }

    updates(options) {
        return new Subscription(this._settings, this._running, options, (entry) => entry.update);
    }

    entries(options) {
        return new Subscription(this._settings, this._running, options, (entry) => entry);
    }

    /** The consumers that the server knows by their names. */
    async consumers({ signal } = {}) {
        const { consumers } = await this.#ask('consumers', '', 'GET', signal);
        return consumers;
    }

    async forgetConsumer(name, { signal } = {}) {
        await this.#ask('', `?as=${encodeURIComponent(name)}`, 'DELETE', signal);
    }

    /** Removes all updates for good, or those up to `upto`. A slip must not remove more than was meant. */
    async purge(options = {}) {
        if (typeof options !== 'object') throw new TypeError('purge() takes its options as an object');
        const { signal, ...which } = options;
        if (Object.keys(which).some((name) => name !== 'upto')) throw new TypeError('purge() has the options upto and signal');
        if ('upto' in which && !(Number.isSafeInteger(which.upto) && which.upto >= 0)) throw new RangeError('upto is the id of an update');
        const { gone } = await this.#ask('', new URLSearchParams(which), 'DELETE', signal, ({ gone }) => Number.isInteger(gone));
        return { gone };
    }

    async #ask(path, query, method, signal, fits = () => true) {
        const url = path ? below(this.url, path) : new URL(this.url);
        url.search = query;
        // A redirect may lose the query, and a DELETE without one purges everything.
        const redirect = method === 'DELETE' ? 'error' : 'follow';
        const { response, text } = await request(this._settings, url.href, { method, redirect }, PUSH_S, signal);
        const reply = parsed(text);
        if (reply?.ok !== true || !fits(reply)) throw new LonglineError(response.status, "The reply is not longline's");
        return reply;
    }
}

/** Many channels of one server. Positions: {name: ts, or 'now', or {ts, epoch}}. */
export class Channels extends Reader {
    updates(positions, options) {
        return new ManySubscription(this._settings, this._running, positions, options, (entry, { name }) => [name, entry.update]);
    }

    entries(positions, options) {
        return new ManySubscription(this._settings, this._running, positions, options, (entry, { name }) => Object.assign(entry, { channel: name }));
    }
}

/** The server would keep anything else as text, and skip a blank line of a batch. */
function jsonOf(update) {
    const isText = typeof update === 'string';
    const text = isText ? update : (JSON.stringify(update) ?? '');
    if (!/^\s*[{[]/.test(text) || (isText && parsed(text) === undefined)) throw new TypeError('An update is an object or an array, or its JSON text');
    return text;
}

function lineOf(update) {
    // White space in a string that is JSON: a line break there would end the update's line.
    return jsonOf(update).replace(/[\r\n]/g, ' ');
}

/** Throws if the server did not take the batch for one. */
function checkBatch({ status, headers }, size) {
    const count = headers.get('X-Updates');
    if (count && count <= size) return; // fewer: the address has .once, and some had come before
    if (count) throw new LonglineError(status, `The server has stored ${count} updates, not ${size}`);
    throw new LonglineError(status, 'The server does not know batches; it has stored the text as one update');
}

/** The callbacks of a loop. What has none is a warning, without the path: that is the channel's secret. */
function listenersOf({ host }, { onMissed, onReset, onError }) {
    const warn = (text) => console.warn(`longline (${host}): ${text}`);
    return {
        onMissed: onMissed ?? ((count) => warn(`${count} updates are no longer kept and have been missed`)),
        onReset: onReset ?? ((ts) => warn(`the channel's data is not what it was; going on from ts ${ts}`)),
        onError: onError ?? ((error, waitMs) => warn(`${error.message}; the next try is in ${(waitMs / 1000).toFixed(1)} s`)),
    };
}

/** An endless loop as an iterator. Of a place that it reads, {ts, epoch, lag}, `ts` is the cursor. */
class Loop {
    #stop = new AbortController();
    #running;
    #loop;

    /** ask(poller, stop) resolves with a [place, reply] of each channel that had something, or with nothing. */
    constructor(settings, running, options, ask, pick) {
        const { sleep = SLEEP_S } = options;
        if (!(sleep >= 0)) throw new RangeError('sleep is a number of seconds');
        this.#running = running.add(this.#stop);
        const listeners = listenersOf(settings.url, options);
        this.#loop = this.#run(settings, { ...options, ...listeners, sleep: Math.min(sleep, SLEEP_MAX_S) }, ask, pick);
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

    async *#run(settings, options, ask, pick) {
        const { signal, onMissed, onReset, onReply, onError } = options;
        const stop = this.#stop.signal;
        const abort = () => this.#stop.abort();
        if (signal?.aborted) abort();
        signal?.addEventListener('abort', abort);
        try {
            const poller = new Poller(settings, options, stop);
            while (!stop.aborted) {
                const began = performance.now();
                let isMoved = false;
                for (const [place, reply] of (await ask(poller, stop)) ?? []) {
                    if (reply.error) {
                        onError(reply.error, 0, place.name);
                        continue;
                    }
                    const { ts, epoch } = place;
                    onReply?.({ ts: reply.ts, total: reply.total, lag: reply.lag, skipped: reply.skipped }, place.name);
                    if (reply.missed) onMissed(reply.missed, place.name);
                    if (reply.reset) onReset(reply.ts, place.name);

                    place.epoch = reply.epoch ?? place.epoch;
                    place.lag = reply.lag;
                    place.ts = reply.start;
                    for (const entry of reply.entries) {
                        if (stop.aborted) return;
                        yield pick(entry, place);
                        place.ts = entry.ts;
                    }
                    place.ts = reply.ts; // What a filter left out may stand behind the last.
                    isMoved ||= place.ts !== ts || place.epoch !== epoch;
                }
                // Nothing, and at once (sleep: 0, a server that stops, a proxy that does not wait): do not spin.
                if (!isMoved && performance.now() - began < settings.backoffMs) await pause(jitter(settings.backoffMs), stop);
            }
        } finally {
            signal?.removeEventListener('abort', abort);
            this.#running.delete(this.#stop);
        }
    }
}

// For `using` and `await using`, where they are known.
if (Symbol.dispose) Reader.prototype[Symbol.dispose] = Reader.prototype.close;
if (Symbol.asyncDispose) Loop.prototype[Symbol.asyncDispose] = async function () { await this.return(); };

/** The iterator of a channel. */
class Subscription extends Loop {
    epoch;
    lag;
    #beganAt; // when its first poll was sent

    constructor(settings, running, options = {}, pick) {
        const { since, name } = options;
        const { ts = since === undefined && name === undefined ? 0 : undefined } = options;
        if (ts !== undefined && ts !== 'now' && !Number.isSafeInteger(ts)) throw new RangeError("ts is the id of an update, -K for the last K, or 'now'");
        if (ts !== undefined && since !== undefined) throw new TypeError('ts or since, not both');
        super(settings, running, options, (poller, stop) => this.#ask(settings, options, poller, stop), pick);
        this.ts = ts;
        this.epoch = options.epoch;
    }

    #ask(settings, { since, name, ...options }, poller, stop) {
        const isPlaced = this.ts >= 0 || (this.ts === undefined && since === undefined);
        // "Now" and "10 minutes ago" are asked for without waiting: after a poll that was cut they would be others.
        return poller.poll(isPlaced, async (sleep) => {
            const url = new URL(settings.url);
            const start = this.ts === undefined && since !== undefined ? { since: this.#sinceText(since) } : { ts: this.ts };
            const isFull = addQuery(url, { ...start, as: name, sleep, epoch: this.epoch ?? '' }, options);
            const { response, text } = await request(settings, url.href, {}, sleep, stop);
            const total = Number(response.headers.get('X-Total-Updates'));
            return readable(response, () => [[this, { total, ...readReply(text, text.length > LARGE_CHARS ? largeReplyOf(text, isFull) : replyOf(text), () => partsAt(text).updates.start, isFull) }]]);
        });
    }

    /** The start in time. A span of time up to now grows while nobody answers. */
    #sinceText(since) {
        if (since instanceof Date) return since.toISOString();
        const now = performance.now();
        this.#beganAt ??= now;
        const grownS = Math.ceil((now - this.#beganAt) / 1000);
        const [, count, unit] = /^(\d+)([smhd])$/.exec(since) ?? [];
        if (unit && grownS) return `${count * UNIT_S[unit] + grownS}s`;
        return String(since).replace(' ', 'T'); // A blank would be sent as a +, which the server takes for one.
    }
}

/** The iterator of many channels. */
class ManySubscription extends Loop {
    #places; // of each channel, by its name
    #hasReply = false;

    constructor(settings, running, positions, options = {}, pick) {
        const places = Object.entries(positions).map(([name, position]) => {
            const { ts, epoch } = typeof position === 'object' ? position : { ts: position };
            if (ts !== 'now' && !Number.isSafeInteger(ts)) throw new RangeError("A position is the id of an update, -K, 'now', or {ts, epoch}");
            return { name, ts, epoch };
        });
        if (!places.length || places.length > CHANNELS_MAX) throw new RangeError(`1 to ${CHANNELS_MAX} channels can be read at once`);
        super(settings, running, options, (poller, stop) => this.#ask(settings, options, poller, stop), pick);
        this.#places = new Map(places.map((place) => [place.name, place]));
    }

    get positions() {
        return Object.fromEntries(Array.from(this.#places.values(), ({ name, ts, epoch }) => [name, { ts, epoch }]));
    }

    async #ask(settings, options, poller, stop) {
        // One that does not wait tells the epochs early, and where "now" is before a poll can be cut.
        const isKnown = ({ ts, epoch }) => ts === 0 || (ts > 0 && (epoch || this.#hasReply));
        const canWait = Array.from(this.#places.values()).every(isKnown);
        const replies = await poller.poll(canWait, (sleep) => this.#askAll(settings, options, sleep, stop));
        this.#hasReply = true;
        return replies;
    }

    async #askAll(settings, options, sleep, stop) {
        const url = below(settings.url, '-/poll');
        const isFull = addQuery(url, { sleep, epoch: '' }, options);
        const init = { method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify(this.positions) };
        const { response, text } = await request(settings, url.href, init, sleep, stop);
        return readable(response, () => {
            const channels = Object.entries(replyOf(text).channels);
            const spans = once(() => partsAt(text, partsAt(text).channels.start));
            const read = (name, reply) => readReply(text, reply, () => partsAt(text, spans()[name].start).updates.start, isFull);
            return channels.filter(([name]) => this.#places.has(name)).map(([name, reply]) => [this.#places.get(name), read(name, reply)]);
        });
    }
}

/** Returns whether the updates come with their requests, and so with their ts: behind a filter nothing else tells it. */
function addQuery({ searchParams }, query, { where = [], limit = 100, full = false }) {
    for (const condition of [].concat(where)) searchParams.append('where', condition);
    const isFull = full || searchParams.has('where');
    Object.assign(query, { limit, view: isFull ? 'full' : undefined });
    for (const name in query) if (query[name] !== undefined) searchParams.set(name, query[name]);
    return isFull;
}

/** Asks until there is a reply, and decides how long to wait: at the server, and after a failure. */
class Poller {
    #settings;
    #onError;
    #stop;
    #sleepMax;
    #sleep;
    #stepMs;
    #cuts = 0; // in a row

    constructor(settings, { sleep, onError }, stop) {
        this.#settings = settings;
        this.#onError = onError;
        this.#stop = stop;
        this.#sleepMax = this.#sleep = sleep;
        this.#stepMs = settings.backoffMs;
    }

    /** Resolves with what ask(sleep) does; with undefined when the loop is stopped. */
    async poll(canWait, ask) {
        while (!this.#stop.aborted) {
            const sleep = canWait ? Math.floor(this.#sleep * 100) / 100 : 0;
            const began = performance.now();
            try {
                const replies = await ask(sleep);
                if (this.#stop.aborted) return undefined;
                this.#cuts = 0;
                this.#stepMs = this.#settings.backoffMs;
                // The server may end a wait a little early.
                if (sleep > 0 && performance.now() - began >= sleep * 800) this.#sleep = Math.min(this.#sleep * 1.25, this.#sleepMax);
                return replies;
            } catch (error) {
                if (this.#stop.aborted) return undefined;
                if (isFinal(error)) throw error;
                const reachedMs = performance.now() - began;
                const isInTime = reachedMs >= CUT_MIN_MS && reachedMs <= sleep * 1000 + CUT_LATE_MS;
                const isProxys = sleep > 0 && isInTime && isCut(error);
                if (isProxys || (sleep > 0 && isSilence(error))) this.#shorten(Math.min(reachedMs / 1000, sleep));
                if (isProxys) {
                    this.#stepMs = this.#settings.backoffMs;
                    this.#cuts++;
                    // While the server is there, shorter polls are hardly ever cut. So it may be away, after all.
                    if (this.#cuts === 2) this.#onError(error, 0);
                    if (this.#cuts > 2) await pause(jitter(CUT_PAUSE_MS), this.#stop);
                } else {
                    await this.#backOff(error);
                }
            }
        }
        return undefined;
    }

    /** Something between does not let polls wait for so long. */
    #shorten(reachedS) {
        this.#sleep = Math.min(Math.max(reachedS * 0.75, CUT_SLEEP_MIN_S), this.#sleep);
    }

    async #backOff(error) {
        const { status, retryAfter } = error;
        let waitMs = jitter(this.#stepMs);
        if (retryAfter > 0 && (status === 429 || status === 503)) {
            waitMs = Math.min(retryAfter, RETRY_AFTER_MAX_S) * 1000 * (1 + Math.random() / 2);
        } else {
            this.#stepMs = Math.min(this.#stepMs * 2, this.#settings.backoffMaxMs);
        }
        this.#onError(error, waitMs);
        await pause(waitMs, this.#stop);
    }
}

/** Whether asking again will not help. What a proxy or a login page says will pass. */
function isFinal({ status, isOwn }) {
    return isOwn && status >= 400 && status < 500 && ![408, 425, 429].includes(status);
}

/** Whether it may be a proxy's end of a poll that waited for too long for it: that is no failure. */
function isCut(error) {
    const { status, isOwn, retryAfter } = error;
    return status === 0 ? !isSilence(error) : !isOwn && !retryAfter && (status === 408 || status >= 500);
}

/** Whether no byte came in time: something between may have forgotten the connection. */
function isSilence({ status, cause }) {
    return status === 0 && cause?.name === 'AbortError';
}

/** The URL of a path below another. */
function below(url, path) {
    url = new URL(url);
    url.pathname = url.pathname.replace(/\/*$/, '/') + path;
    return url;
}

function parseAddress(text) {
    try {
        const url = new URL(text, globalThis.location?.href);
        if (/^https?:$/.test(url.protocol) && !url.username && !url.password) return url;
    } catch {} // This error shows the path, which is the channel's secret.
    throw new TypeError('A channel is an http or https URL without a user and password');
}

/** The addresses of a new channel of the server at `base`, which is not asked. `random` is Web Crypto's `crypto`. */
export function newKeys(base, random = globalThis.crypto) {
    const letters = Array.from(random.getRandomValues(new Uint8Array(KEY_SIZE)), (byte) => KEY_LETTERS[byte % 32]);
    const address = below(parseAddress(base), `r_${letters.join('')}`);
    address.hash = '';
    const url = address.href;
    return { url, readOnlyUrl: urlOfKind(url, 'v_'), sendOnlyUrl: urlOfKind(url, 'w_') };
}

/** The same address with the channel's key of this kind; null if it cannot be told from this one. */
function urlOfKind(address, prefix) {
    const url = new URL(address);
    let [, before, key, after] = /^(.*\/)([rvw]_[a-z2-7]{26})(\/*)$/.exec(url.pathname) ?? [];
    if (!key || key.slice(0, 2) > prefix) return null;
    while (!key.startsWith(prefix)) key = nextKey(key);
    url.pathname = before + key + after;
    url.hash = ''; // No server is told it, and it may be a key.
    return url.href;
}

/** The key that may do less: of r_ the v_, of v_ the w_. None can be derived back. */
function nextKey(key) {
    const words = sha256(`longline:${key}`);
    const bits = Array.from(words, (word) => word.toString(2).padStart(32, '0')).join('');
    const letters = Array.from({ length: KEY_SIZE }, (_, i) => KEY_LETTERS[parseInt(bits.slice(5 * i, 5 * i + 5), 2)]);
    return KEY_PREFIXES[KEY_PREFIXES.indexOf(key.slice(0, 2)) + 1] + letters.join('');
}

/**
 * SHA-256 of an ASCII text of one block (55 characters at most), as eight words. crypto.subtle has it on https pages
 * only, and not at once.
 */
function sha256(text) {
    const primes = [];
    for (let n = 2; primes.length < 64; n++) if (primes.every((prime) => n % prime)) primes.push(n);
    const fraction = (number) => (number % 1) * 2 ** 32; // its first 32 bits, once it is in a Uint32Array
    const constants = Uint32Array.from(primes, (prime) => fraction(Math.cbrt(prime)));
    const hash = Uint32Array.from(primes.slice(0, 8), (prime) => fraction(Math.sqrt(prime)));

    const words = new Uint32Array(64);
    for (let i = 0; i < text.length; i++) words[i >> 2] |= text.charCodeAt(i) << (24 - 8 * (i % 4));
    words[text.length >> 2] |= 0x80 << (24 - 8 * (text.length % 4));
    words[15] = 8 * text.length;
    const turn = (word, ...counts) => counts.reduce((all, n) => all ^ ((word >>> n) | (word << (32 - n))), 0);
    for (let i = 16; i < 64; i++) {
        const [x, y] = [words[i - 15], words[i - 2]];
        words[i] = words[i - 16] + words[i - 7] + (turn(x, 7, 18) ^ (x >>> 3)) + (turn(y, 17, 19) ^ (y >>> 10));
    }

    let [a, b, c, d, e, f, g, h] = hash;
    for (let i = 0; i < 64; i++) {
        const first = h + turn(e, 6, 11, 25) + ((e & f) ^ (~e & g)) + constants[i] + words[i];
        const second = turn(a, 2, 13, 22) + ((a & b) ^ (a & c) ^ (b & c));
        [a, b, c, d, e, f, g, h] = [(first + second) | 0, a, b, c, (d + first) | 0, e, f, g];
    }
    return hash.map((word, i) => word + [a, b, c, d, e, f, g, h][i]);
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
async function request(settings, url, init, waitS, signal) {
    const { fetch = globalThis.fetch, headers } = settings;
    const aborter = new AbortController();
    const abort = () => aborter.abort();
    let isWhole = false;
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
        isWhole = true;
        text += decoder.decode();
        if (response.ok) return { response, text };

        const { ok, error_code: code, error_description: description } = parsed(text) ?? {};
        const retryAfter = Number(response.headers.get('Retry-After')) || undefined; // as a date it is not used
        const isOwn = ok === false && code === response.status;
        throw new LonglineError(response.status, description ?? response.statusText, { retryAfter, isOwn });
    } catch (error) {
        if (signal?.aborted) throw signal.reason;
        if (error instanceof LonglineError) throw error;
        const why = aborter.signal.aborted ? 'it did not come in time' : error.cause?.message || error.message;
        throw new LonglineError(0, `No reply: ${why}`, { cause: error });
    } finally {
        clearTimeout(timer);
        signal?.removeEventListener('abort', abort);
        if (!isWhole) abort(); // A reply that was not read to its end would keep its connection.
    }
}

/** The value of a JSON text; undefined if it is none, as a proxy's page. */
function parsed(text) {
    try {
        return JSON.parse(text);
    } catch {}
}

/** What read() makes of a reply. */
function readable(response, read) {
    try {
        return read();
    } catch (cause) {
        throw new LonglineError(response.status, `The reply is not longline's: ${cause.message}`, { cause });
    }
}

/** The value of a reply's text. The error does not show the text, as that of JSON.parse does. */
function replyOf(text) {
    const reply = parsed(text);
    if (reply === undefined) throw new SyntaxError('no JSON');
    return reply;
}

/**
 * The same of a large reply, each part made when it is asked for: an object of a million members takes JSON.parse() seconds,
 * in which a page does nothing else, and whoever knows an address can push one.
 */
function largeReplyOf(text, isFull) {
    const objectOf = (parts) => {
        const object = Object.create(null);
        for (const [name, span] of Object.entries(parts)) lazy(object, name, () => replyOf(cut(text, span)));
        return object;
    };
    const parts = partsAt(text);
    const itemOf = (span) => objectOf(isFull ? partsAt(text, span.start) : { body: span });
    return Object.defineProperty(objectOf(parts), 'updates', { value: parts.updates && partsAt(text, parts.updates.start).map(itemOf) });
}

/** What a channel's poll brought. updatesAt() is where the array of its updates stands in the text. */
function readReply(text, reply, updatesAt, full) {
    if (reply.error_code) return { error: new LonglineError(reply.error_code, reply.error_description, { isOwn: true }) };
    const { ts, epoch, lag, missed, reset, skipped = 0, updates } = reply;
    if (!Number.isSafeInteger(ts) || !Array.isArray(updates)) throw new SyntaxError('no ts, or no updates');
    const spans = once(() => partsAt(text, updatesAt()));
    const textOf = (i) => cut(text, full ? partsAt(text, spans()[i].start).body : spans()[i]);
    // Of what stands among others that were left out, the least that the ts can be: who goes on there misses nothing.
    const least = ts - updates.length - skipped;
    const tsOf = (item, i) => (full ? item.ts : i + 1 < updates.length ? least + i + 1 : ts);
    const isLarge = text.length > LARGE_CHARS;
    const entries = updates.map((item, i) => readEntry(item, tsOf(item, i), () => textOf(i), full, isLarge));
    const start = !updates.length ? ts : full ? entries[0].ts - 1 : least; // behind the update before the first
    return { ts, start, epoch, lag, missed, reset, skipped, entries };
}

function readEntry(item, ts, textOf, full, isLarge) {
    const entry = { ts };
    lazy(entry, 'text', textOf);
    if (isLarge) lazy(entry, 'update', () => item.body);
    else entry.update = full ? item.body : item;
    if (!full) return entry;
    for (const name of ['at', 'method', 'query', 'headers', 'path', 'from', 'same_as']) if (name in item) entry[name] = item[name];
    lazy(entry, 'raw', () => item.raw ?? readBytes(item.raw_base64));
    if (item.coded_base64) lazy(entry, 'coded', () => readBytes(item.coded_base64));
    return entry;
}

const readBytes = (base64) => Uint8Array.from(atob(base64), (byte) => byte.charCodeAt(0));

/** Gives the object a property that is made when it is first read. */
function lazy(object, name, make) {
    const define = (how) => Object.defineProperty(object, name, { enumerable: true, configurable: true, ...how });
    return define({ get: () => define({ value: make(), writable: true })[name] });
}

function once(make) {
    let made;
    return () => (made ??= make());
}

const cut = (text, { start, end }) => text.slice(start, end);
const SPACE = /[ \t\n\r]*/y;
const SCALAR = /[^,\]}\s]*/y;
const [QUOTE, BACKSLASH] = [34, 92];

/**
 * Where the parts of the array or object at `at` stand, {start, end}, by index or name. Of what is known to be JSON this
 * need not look at much: JSON.parse is fast, and anything that reads JSON in JavaScript is not. Throws where it has no end.
 */
function partsAt(text, at = 0) {
    const skip = (pattern, from) => {
        pattern.lastIndex = from;
        pattern.test(text);
        return pattern.lastIndex;
    };
    at = skip(SPACE, at);
    const isArray = text[at] === '[';
    if (!isArray && text[at] !== '{') throw new SyntaxError('no JSON');
    const parts = isArray ? [] : Object.create(null);
    for (at = skip(SPACE, at + 1); text[at] !== ']' && text[at] !== '}'; ) {
        if (at >= text.length) throw new SyntaxError('no JSON');
        let name = parts.length;
        if (!isArray) {
            const end = stringEnd(text, at);
            name = replyOf(text.slice(at, end));
            at = skip(SPACE, skip(SPACE, end) + 1); // over the colon
        }
        const isScalar = !'"[{'.includes(text[at]);
        const end = isScalar ? skip(SCALAR, at) : valueEnd(text, at);
        if (end === at) throw new SyntaxError('no JSON');
        parts[name] = { start: at, end };
        at = skip(SPACE, end);
        if (text[at] === ',') at = skip(SPACE, at + 1);
    }
    return parts;
}

/** Where the string, array or object at `at` ends. */
function valueEnd(text, at) {
    for (let depth = 0; at < text.length; ) {
        const code = text.charCodeAt(at);
        if (code === QUOTE) at = stringEnd(text, at);
        else at++;
        // With this bit [ is {, and ] is }.
        if ((code | 0x20) === 0x7b) depth++;
        else if ((code | 0x20) === 0x7d) depth--;
        if (depth === 0) return at;
    }
    throw new SyntaxError('no JSON');
}

function stringEnd(text, at) {
    for (;;) {
        at = text.indexOf('"', at + 1);
        if (at < 0) throw new SyntaxError('no JSON');
        let first = at; // of the backslashes before the quote: an odd one out makes it part of the string
        while (text.charCodeAt(first - 1) === BACKSLASH) first--;
        if ((at - first) % 2 === 0) return at + 1;
    }
}
