// What a page knows of its channel: follows it with the JavaScript client and keeps the newest updates, in order and
// bounded. The page is told once a frame at the most, however many come.
//
// States: connecting → live ⇄ waiting (for the next try, after an error); paused; stopped (an error that no repetition
// helps). Only what start() began can leave paused and stopped.

import { Channel } from './longline.js';
import { root } from './channel.js';
import { plural } from './text.js';

const FIRST_UPDATES = 1000; // of those before the page was opened
const UPDATES_MAX = 10_000; // and so many of them are looked through for what meets conditions
const CHARS_MAX = 32 << 20;
const EMPTY_BYTES_MAX = 1000; // of a reply without updates
const ASLEEP_MS = 10_000;
// A tab that nobody has seen for a while asks now and then: a browser has six connections for all tabs of a server.
const DOZE_MS = 30_000;
const DOZE_PAUSE_MS = 10_000;

export class Feed {
    /** The updates kept, oldest first: the client's entries, each with a `number` of its own that only grows. */
    entries = [];
    /** The newest id of the channel; undefined before the first reply. */
    total;
    /** What it was when the page was opened. */
    history;
    /** Whether what was there before has come. */
    isLoaded = false;
    /** What the server keeps of a channel, {updates, seconds}; undefined before it is known. */
    keeps;
    state = 'paused';

    /** The conditions that the server checks. */
    where;

    #on;
    #channel;
    #dozing;
    #running = new AbortController();
    #closing = new AbortController();
    #updates; // the client's loop; its `ts` is where to go on from
    #chars = 0;
    #number = 0;
    #deleted = 0; // all up to this id
    #changed = false;

    /** on.change(); on.state(name, text, waitMs); on.notice(text) */
    constructor(url, on, where = []) {
        this.#on = on;
        this.where = where;
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
        const isDozing = document.hidden;
        this.#updates = (isDozing ? this.#dozing : this.#channel).entries({
            sleep: isDozing ? 0 : undefined,
            ts: this.#updates?.ts ?? (this.where.length ? -UPDATES_MAX : -FIRST_UPDATES),
            epoch: this.#updates?.epoch,
            where: this.where,
            full: true,
            limit: FIRST_UPDATES,
            signal,
            onReply: ({ ts, total }) => {
                this.isLoaded ||= !this.where.length || ts >= total;
                if (this.state !== 'live') this.#tell('live'); // a proxy may not let HEAD through
                this.#count(total);
            },
            onMissed: (count) => this.#on.notice(`${plural(count, 'update')} came and went while nobody was connected: the server no longer keeps them.`),
            onReset: (ts) => {
                this.#deleted = Math.min(this.#deleted, ts);
                this.#on.notice(`The server has lost ${ts ? `what came after #${ts}` : 'all that came before'}: its data were emptied, replaced or restored from a backup. New updates have ids from #${ts + 1} again.`);
            },
            onError: (error, waitMs) => this.#tell('waiting', error.description, waitMs),
        });
        try {
            for await (const entry of this.#updates) {
                if (signal.aborted) return;
                this.#add(entry);
            }
        } catch (error) {
            if (!signal.aborted) this.#tell('stopped', error.description ?? String(error));
        }
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
            this.keeps = (await (await fetch(new URL('-/health', root))).json()).keeps;
            this.#change();
        } catch {}
    }

    #add(entry) {
        if (entry.ts <= this.#deleted) return; // its reply was under way
        entry.number = ++this.#number;
        this.#chars += entry.text.length;
        this.entries.push(entry);
        let drop = 0;
        while (drop < this.entries.length - 1 && (this.entries.length - drop > UPDATES_MAX || this.#chars > CHARS_MAX)) {
            this.#chars -= this.entries[drop++].text.length;
        }
        if (drop) this.entries.splice(0, drop);
        this.#change();
    }

    /** They are deleted on the server: all up to this id. */
    drop(ts) {
        this.#deleted = ts;
        this.entries = this.entries.filter((entry) => entry.ts > ts);
        this.#chars = this.entries.reduce((sum, { text }) => sum + text.length, 0);
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
