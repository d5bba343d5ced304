// What a page knows of its channel: follows it with the JavaScript client and keeps the newest updates, in order and
// bounded. The page is told once a frame at the most, however many come.
//
// States: connecting → live ⇄ waiting (for the next try, after an error); paused; stopped (an error that no repetition
// helps). Only what start() began can leave paused and stopped.

import { Channel } from './longline.js';
import { root } from './channel.js';

const FIRST_UPDATES = 1000; // of those before the page was opened
const UPDATES_MAX = 10_000;
const CHARS_MAX = 32 << 20;
const ASLEEP_MS = 10_000;

export class Feed {
    /** The updates kept, oldest first: the client's entries, each with a `number` of its own that only grows. */
    entries = [];
    /** The newest id of the channel; undefined before the first reply. */
    total;
    /** What the server keeps of a channel, {updates, seconds}; undefined before it is known. */
    keeps;
    state = 'paused';

    #on;
    #channel;
    #running = new AbortController();
    #closing = new AbortController();
    #updates; // the client's loop; its `ts` is where to go on from
    #chars = 0;
    #number = 0;
    #changed = false;

    /** on.change(); on.state(name, text, waitMs); on.notice(text) */
    constructor(url, on) {
        this.#on = on;
        this.#askWhatIsKept();
        this.#channel = new Channel(url, { fetch: (address, init) => this.#fetch(address, init) });
        let hiddenAt = 0;
        const { signal } = this.#closing;
        const seen = () => {
            if (document.hidden) hiddenAt = performance.now();
            else if (performance.now() - hiddenAt > ASLEEP_MS) this.#wake();
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

    /** The machine or the tab may have slept: what is under way may be dead, and nobody would know for a minute. */
    #wake() {
        if (this.state !== 'paused' && this.state !== 'stopped') this.start();
    }

    #tell(state, text = '', waitMs = 0) {
        this.state = state;
        this.#on?.state(state, text, waitMs);
    }

    async #run(signal) {
        this.#updates = this.#channel.entries({
            ts: this.total === 0 ? 0 : (this.#updates?.ts ?? -FIRST_UPDATES),
            full: true,
            limit: FIRST_UPDATES,
            signal,
            onReply: ({ total }) => {
                this.total = total;
                this.#change();
            },
            onMissed: (count) => this.#on.notice(`${count.toLocaleString()} updates came and went while nobody was connected: the server no longer keeps them.`),
            onReset: () => this.#on.notice('The channel began anew: its ids count from 1 again.'),
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

    /** Before it says "live", the page has had an answer of the server: a poll may have none for a minute. */
    async #fetch(address, init) {
        if (this.state !== 'live') {
            const now = new URL(address);
            now.searchParams.set('sleep', 0);
            now.searchParams.set('limit', 1);
            const { ok, headers } = await fetch(now, { method: 'HEAD', signal: init.signal });
            if (ok) {
                this.total = Number(headers.get('X-Total-Updates'));
                this.#change();
                this.#tell('live');
            }
        }
        return fetch(address, init);
    }

    /** A proxy may keep the server's health to itself. */
    async #askWhatIsKept() {
        try {
            this.keeps = (await (await fetch(new URL('-/health', root))).json()).keeps;
            this.#change();
        } catch {}
    }

    #add(entry) {
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

    #change() {
        if (this.#changed) return;
        this.#changed = true;
        const tell = () => {
            this.#changed = false;
            this.#on?.change();
        };
        // A tab that is not seen has no frames.
        if (document.hidden) setTimeout(tell, 250);
        else requestAnimationFrame(tell);
    }
}
