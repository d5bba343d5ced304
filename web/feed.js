// What a page knows of its channel: follows it with the JavaScript client and keeps the newest updates, in order and
// bounded. The page is told once a frame at the most, however many come.
//
// States: connecting → live ⇄ waiting (for the next try, after an error); paused; stopped (an error that no repetition
// helps). Only what start() began can leave paused and stopped.

import { Channel } from './longline.js';
import { root } from './channel.js';
import { readRange } from './range.js';
import { failureText, plural } from './text.js';

const FIRST_UPDATES = 100; // of those before the page was opened; the others come when they are asked for
const FIRST_LOOKED_AT = 10_000; // of them, for what meets conditions
const UPDATES_MAX = 10_000;
const CHARS_MAX = 32 << 20;
const OLDER_CHARS = 4 << 20; // asked for at once, as far as sizes can be foreseen; twice as much is too much
const UPDATE_CHARS = 64 << 10; // of a larger one only the text is kept: the value may take many times as much
const LIMIT = 1000; // of a reply, and of a look at what is older
const EMPTY_BYTES_MAX = 1000; // of a reply without updates
const ASLEEP_MS = 10_000;
// A tab that nobody has seen for a while asks now and then: a browser has six connections for all tabs of a server.
const DOZE_MS = 30_000;
const DOZE_PAUSE_MS = 10_000;

export class Feed {
    /** The updates held, oldest first, without a gap: the client's entries, each with a `number` of its own that only grows. */
    entries = [];
    /** The newest id of the channel; undefined before the first reply. */
    total;
    /** What it was when the page was opened. */
    history;
    /** Whether what was there before has come. */
    isLoaded = false;
    /** What the server keeps of a channel, {updates, seconds}; undefined before it is known. */
    keeps;
    /** The server's; undefined before it is known. */
    version;
    state = 'paused';

    /** The conditions that the server checks, and the time from which on it brings updates; undefined: from the first on. */
    where;
    since;

    #on;
    #channel;
    #dozing;
    #dozes;
    #running = new AbortController();
    #closing = new AbortController();
    #updates; // the client's loop; its `ts` is where to go on from
    #first; // how many to begin with
    #chars = 0;
    #base = 0; // what a number is more than the id: ids may begin anew
    #from; // all behind this id has been asked for
    #floor = 0; // nothing up to this id is kept, as far as this page knows
    #isFirstKnown = false; // of those since a time
    #isLoadingOlder = false;
    #olderMax = LIMIT; // ids at once: fewer where updates are large
    #deleted = 0; // all up to this id
    #changed = false;

    /**
     * on.change(); on.state(name, text, waitMs); on.notice(text). `first`: how many to begin with; dozes(): whether
     * a tab that nobody has seen for a while asks now and then only.
     */
    constructor(url, on, { where = [], since, dozes = () => true, first = where.length ? FIRST_LOOKED_AT : FIRST_UPDATES } = {}) {
        this.#on = on;
        this.where = where;
        this.#dozes = dozes;
        this.since = since;
        if (since) this.#floor = Infinity; // until the first has come
        this.#first = first;
        this.#askWhatIsKept();
        const fetch = (address, init) => this.#fetch(address, init);
        this.#channel = new Channel(url, { fetch });
        this.#dozing = new Channel(url, { fetch, backoffMs: DOZE_PAUSE_MS });
        let hiddenAt = 0; // by a clock that goes on while the machine sleeps
        let doze;
        const { signal } = this.#closing;
        const seen = () => {
            clearTimeout(doze);
            if (document.hidden) {
                hiddenAt = Date.now();
                doze = setTimeout(() => this.#wake(), DOZE_MS);
            } else if (Date.now() - hiddenAt > ASLEEP_MS) {
                this.#wake();
            }
        };
        document.addEventListener('visibilitychange', seen, { signal });
        addEventListener('online', () => this.#wake(), { signal });
        addEventListener('pageshow', (event) => event.persisted && this.#wake(), { signal });
    }

    /** Begins, or begins anew from where it was. */
    start() {
        this.#running.abort();
        this.#running = new AbortController();
        this.#tell('connecting');
        this.#run(this.#running.signal);
    }

    pause() {
        this.#running.abort();
        this.#tell('paused');
    }

    /** Ends for good. */
    close() {
        this.pause();
        this.#closing.abort();
        this.#on = undefined;
    }

    /** The machine or the tab may have slept: what is under way may be dead, and nobody would know for a while. */
    #wake() {
        if (this.state !== 'paused' && this.state !== 'stopped') this.start();
    }

    #tell(state, text = '', waitMs = 0) {
        this.state = state;
        this.#on?.state(state, text, waitMs);
    }

    async #run(signal) {
        const isDozing = document.hidden && this.#dozes();
        this.#updates = (isDozing ? this.#dozing : this.#channel).entries({
            sleep: isDozing ? 0 : undefined,
            ...this.#place(),
            epoch: this.#updates?.epoch,
            where: this.where,
            full: true,
            limit: LIMIT,
            signal,
            onReply: ({ ts, total }) => {
                if (this.state !== 'live') this.#tell('live'); // a proxy may not let HEAD through
                this.#from ??= this.since ? ts : Math.max(0, total - this.#first);
                this.#count(total);
                this.isLoaded ||= ts >= this.history;
            },
            onMissed: (count) => this.#on.notice(`${plural(count, 'update')} came and went while nobody was connected: the server no longer keeps them.`),
            onReset: (ts) => {
                this.#deleted = Math.min(this.#deleted, ts);
                this.history = Math.min(this.history, ts);
                this.#base = Math.max(this.#base, (this.entries.at(-1)?.number ?? this.#base) - ts);
                this.#floor = Infinity;
                this.#isFirstKnown = true;
                this.#on.notice(`The server has lost ${ts ? `what came after #${ts}` : 'all that came before'}: its data were emptied, replaced or restored from a backup. New updates have ids from #${ts + 1} again.`);
            },
            onError: (error, waitMs) => this.#tell('waiting', failureText(error), waitMs),
        });
        try {
            for await (const entry of this.#updates) {
                if (signal.aborted) return;
                this.#add(entry);
            }
        } catch (error) {
            if (!signal.aborted) this.#tell('stopped', failureText(error));
        }
    }

    /** Where to go on, or begin. */
    #place() {
        const ts = this.#updates?.ts;
        return ts === undefined && this.since ? { since: this.since } : { ts: ts ?? -this.#first };
    }

    /** Before it says "live", the page has had an answer of the server: a poll may have none for half a minute. */
    async #fetch(address, init) {
        if (this.state !== 'live') {
            const now = new URL(address);
            now.searchParams.set('sleep', 0);
            now.searchParams.set('limit', 1);
            now.searchParams.delete('where');
            const { ok, headers } = await fetch(now, { method: 'HEAD', signal: init.signal });
            if (ok) {
                this.#count(Number(headers.get('X-Total-Updates') ?? NaN));
                this.#tell('live');
            }
        }
        if (this.isLoaded) return fetch(address, init);
        // Where nothing of a channel is kept any more, a poll that waits has no answer.
        const now = new URL(address);
        now.searchParams.set('sleep', 0);
        const response = await fetch(now, init);
        if (!(await isEmpty(response))) return response;
        this.isLoaded = true;
        this.#change();
        return fetch(address, init);
    }

    #count(total) {
        if (Number.isNaN(total)) return;
        this.total = total;
        this.history ??= total;
        this.isLoaded ||= total === 0;
        this.#change();
    }

    /** A proxy may keep the server's health to itself. */
    async #askWhatIsKept() {
        try {
            ({ keeps: this.keeps, version: this.version } = await (await fetch(new URL('-/health', root))).json());
            this.#change();
        } catch {}
    }

    #add(entry) {
        if (entry.ts <= this.#deleted) return; // its reply was under way
        entry.number = this.#base + entry.ts;
        if (!this.entries.length && entry.ts <= this.#from) this.#from = entry.ts - 1;
        if (this.since && !this.#isFirstKnown) this.#floor = entry.ts - 1;
        this.#isFirstKnown = true;
        this.#chars += entry.text.length;
        keepText(entry);
        this.entries.push(entry);
        let drop = 0;
        while (drop < this.entries.length - 1 && (this.entries.length - drop > UPDATES_MAX || this.#chars > CHARS_MAX)) {
            this.#from = this.entries[drop].ts;
            this.#chars -= this.entries[drop++].text.length;
        }
        if (drop) this.entries.splice(0, drop);
        this.#change();
    }

    /** They are deleted on the server: all up to this id. */
    drop(ts) {
        this.#deleted = ts;
        this.#floor = Math.max(this.#floor, ts);
        this.entries = this.entries.filter((entry) => entry.ts > ts);
        this.#chars = this.entries.reduce((sum, { text }) => sum + text.length, 0);
    }

    /** The id behind which everything has been asked for; undefined before the first reply. */
    get from() {
        return this.#from;
    }

    /** Whether the server leaves some out. */
    get isNarrowed() {
        return this.where.length > 0 || this.since !== undefined;
    }

    /** What the server was when it last said. */
    get epoch() {
        return this.#updates?.epoch;
    }

    /** Whether updates up to this id may be kept; without one, whether some may be that are not here. */
    mayHave(ts = this.#from) {
        return ts > this.#floor;
    }

    /** Whether more of them would be too many. */
    get isFull() {
        return this.entries.length >= UPDATES_MAX || this.#chars >= CHARS_MAX - 2 * OLDER_CHARS;
    }

    /** Brings some of the updates before those that are here, or looks at some of them. Throws what went wrong. */
    async loadOlder() {
        if (this.#isLoadingOlder || !this.isLoaded || !this.mayHave() || this.isFull) return;
        this.#isLoadingOlder = true;
        try {
            const from = this.#from;
            const older = await this.before(from);
            if (from !== this.#from || !this.#on) return; // what was behind it is gone
            this.#from = older.from;
            this.#chars += older.entries.reduce((sum, { text }) => sum + text.length, 0);
            // A new array: a part of the old one may be shown.
            this.entries = older.entries.concat(this.entries);
            this.#change();
        } finally {
            this.#isLoadingOlder = false;
        }
    }

    /**
     * The updates up to an id, so many ids of them: {entries, from}; all behind `from` has been looked at. Throws what
     * went wrong.
     */
    async before(upto, count = this.#olderCount(), signal = this.#closing.signal) {
        const range = { from: Math.max(0, upto - count, this.since ? this.#floor : 0), upto, where: this.where, epoch: this.#updates?.epoch };
        if (range.from >= upto) return { entries: [], from: 0 }; // it was before the time that is asked for
        const read = await readRange(this.#channel.url, range, signal, 2 * OLDER_CHARS);
        if (read.isTooMuch) {
            this.#olderMax = Math.max(1, read.entries.length >> 1);
            return this.before(upto, this.#olderMax, signal);
        }
        if (read.chars < OLDER_CHARS / 2) this.#olderMax = Math.min(LIMIT, 2 * this.#olderMax);
        if (read.isGone) this.#floor = Math.max(this.#floor, upto);
        const known = read.entries.filter(({ ts }) => ts > this.#deleted);
        for (const entry of known) {
            entry.number = this.#base + entry.ts;
            keepText(entry);
        }
        return { entries: known, from: range.from };
    }

    /** The update of this id, whatever is followed; undefined: it is not kept. Throws what went wrong. */
    async one(ts) {
        const range = { from: ts - 1, upto: ts, epoch: this.#updates?.epoch };
        const [entry] = (await readRange(this.#channel.url, range, this.#closing.signal)).entries;
        if (entry) entry.number = this.#base + ts;
        return entry;
    }

    /** The same, of those held where it is one. */
    async get(ts) {
        return this.entries.findLast((entry) => entry.ts === ts) ?? this.one(ts);
    }

    #olderCount() {
        if (this.where.length) return this.#olderMax;
        const average = this.#chars / (this.entries.length || 1);
        return Math.max(1, Math.min(500, this.#olderMax, Math.floor(OLDER_CHARS / (average + 1))));
    }

    /** Whether the server may still keep updates, as far as this page knows. */
    get hasAny() {
        return this.total > this.#deleted;
    }

    /** Hands over the updates that have come, and keeps none. */
    take() {
        this.#chars = 0;
        return this.entries.splice(0);
    }

    #change() {
        if (this.#changed) return;
        this.#changed = true;
        const tell = () => {
            if (!this.#changed) return;
            this.#changed = false;
            this.#on?.change();
        };
        requestAnimationFrame(tell);
        setTimeout(tell, 250); // a tab that is not seen has no frames
    }
}

/** The value of a large update is made when it is needed. */
function keepText(entry) {
    if (entry.text.length <= UPDATE_CHARS) return;
    delete entry.update;
    Object.defineProperty(entry, 'update', { configurable: true, get: () => JSON.parse(entry.text) });
}

/** Whether it is a reply to a poll that has found nothing, and looked at everything. What is large is not read. */
async function isEmpty(response) {
    if (!response.ok || !(Number(response.headers.get('Content-Length') ?? NaN) < EMPTY_BYTES_MAX)) return false;
    try {
        const { updates, ts, total } = await response.clone().json();
        return updates.length === 0 && ts >= total;
    } catch {
        return false;
    }
}
