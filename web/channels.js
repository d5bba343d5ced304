// The channels that this browser keeps in local storage, and how many updates of each nobody has seen. A feed follows the
// one that the page shows; of the others, one poll for all asks now and then for the newest ids.

import { accessOf, memory, root } from './channel.js';
import { oneLine } from './text.js';

const CHANNELS_MAX = 64; // as many as the server answers at once
export const TITLE_MAX = 40;
const POLL_MS = 4000;
const POLL_HIDDEN_MS = 10_000;
const POLL_FAILED_MAX_MS = 60_000;
const POLL_GAP_MS = 1000; // between two that wait
const WAIT_S = 25;
const ANSWER_MS = 45_000; // no answer for so long is none
const SAVE_MS = 500;

/** What a channel is called: by its reader, else by what cannot read it. */
export function titleOf({ name, title }) {
    const { kind, sendAddress } = accessOf(name);
    return title || (kind ? `${sendAddress.slice(root.href.length).slice(0, 8)}…` : `${[...oneLine(name, 256)].slice(0, 3).join('')}…`);
}

export class Channels {
    /** The one that the page shows; undefined: none. */
    current;

    #on;
    #kept = []; // {name, title, seen, isOwn}, in the order in which they were kept; seen: the newest id that was seen
    #stored = null; // as it stands in local storage
    #newest = new Map(); // name → the newest id, as far as it is known
    #unseen = 0; // updates of the current one that came while nobody saw the page
    #unsaved; // {name, seen}
    #saving;
    #polling;
    #waiting = new AbortController();
    #failures = 0;

    /**
     * on.change(): something of this is other than before; on.came(name): updates of one that the page does not show;
     * on.isAway(): whether to leave the server alone for now; on.waits(): whether to be told at once.
     */
    constructor(on) {
        this.#on = on;
        addEventListener('storage', () => {
            if (this.#known(this.current)?.seen >= this.#newest.get(this.current)) this.#unseen = 0; // in another tab
            this.#begin();
        });
        document.addEventListener('visibilitychange', () => {
            if (!document.hidden) this.#unseen = 0;
            this.#see();
            this.#save();
            this.#begin();
        });
    }

    /** Those that are kept, and the one that is shown: {name, title, isKept, unseen}. */
    get all() {
        const all = this.#read().map(({ name, title, seen = Infinity }) => {
            const unseen = name === this.current ? this.#unseen : Math.max(0, (this.#newest.get(name) ?? 0) - seen);
            return { name, title, isKept: true, unseen };
        });
        if (this.current && !this.#known(this.current)) all.push({ name: this.current, title: '', isKept: false, unseen: this.#unseen });
        return all;
    }

    /** The page shows another channel, or none. What its reader made or typed is kept; false: there is no room for it. */
    show(name) {
        this.#save();
        this.current = name;
        this.#unseen = 0;
        const isOwn = name !== undefined && memory.get('channel') === name;
        const known = this.#known(name);
        if (known?.isOwn) memory.set('channel', name);
        if (isOwn && !known) this.#write([...this.#read(), { name, title: '', isOwn }]);
        this.#begin();
        return !isOwn || Boolean(this.#known(name));
    }

    /** Keeps these from now on, and no others: [{name, title}]. */
    keep(wanted) {
        this.#save();
        this.#write(wanted.map(({ name, title }) => ({ ...this.#known(name), name, title: oneLine(title.trim(), TITLE_MAX) })));
        this.#see();
        // The next visit does not begin with what was forgotten.
        if (!this.#known(memory.get('channel'))) memory.set('channel', this.#kept.find(({ isOwn }) => isOwn)?.name ?? '');
        this.#begin();
    }

    /** So many updates of the current channel have come, up to this id. */
    came(count, newest) {
        if (document.hidden) this.#unseen += count;
        if (newest !== undefined) this.#newest.set(this.current, newest);
        this.#see();
        if (document.hidden && count) this.#on.change();
    }

    #begin() {
        this.#on.change();
        this.poll();
    }

    /** Asks what has come to the others: now, and then now and then. */
    async poll() {
        this.#waiting.abort();
        const { signal } = (this.#waiting = new AbortController());
        clearTimeout(this.#polling);
        const asked = this.#others();
        if (!asked.size) return;
        let pause = document.hidden ? POLL_HIDDEN_MS : POLL_MS;
        try {
            if (!this.#on.isAway()) {
                this.#take(asked, await ask([...asked.keys()].map((name) => [name, 'now']), 0, signal));
                this.#failures = 0;
                if (this.#on.waits()) {
                    const since = performance.now();
                    await ask([...asked.keys()].map((name) => [name, this.#newest.get(name) ?? 'now']), WAIT_S, signal);
                    pause = POLL_GAP_MS + since - performance.now();
                }
            }
        } catch {
            if (signal.aborted) return;
            this.#failures++;
        }
        if (signal.aborted) return;
        // A tab that is not seen has few timers.
        if (pause <= 0) this.poll();
        else this.#polling = setTimeout(() => this.poll(), Math.min(pause * 2 ** this.#failures, POLL_FAILED_MAX_MS));
    }

    /** The names to ask about, each with all names of its channel: the server takes one. */
    #others() {
        const byAddress = new Map();
        for (const { name } of this.#read()) {
            if (name === this.current) continue;
            const { sendAddress } = accessOf(name);
            byAddress.set(sendAddress, [...(byAddress.get(sendAddress) ?? []), name]);
        }
        return new Map([...byAddress.values()].map((names) => [names[0], names]));
    }

    #take(asked, answers) {
        const grown = [];
        for (const [asker, names] of asked) {
            const newest = answers[asker]?.ts;
            if (!Number.isSafeInteger(newest)) continue;
            for (const name of names) {
                const channel = this.#known(name);
                if (newest > (this.#newest.get(name) ?? channel?.seen ?? newest)) grown.push(name);
                this.#newest.set(name, newest);
                // What was there before it was kept is known; and ids may begin anew.
                if (channel && !(channel.seen <= newest)) this.#mark(name, channel.seen === undefined ? newest : 0);
            }
        }
        this.#on.change();
        for (const name of grown) this.#on.came(name);
    }

    /** What the page shows is seen. */
    #see() {
        const seen = this.#newest.get(this.current);
        if (document.hidden || seen === undefined || !this.#known(this.current)) return;
        this.#unsaved = { name: this.current, seen };
        this.#saving ??= setTimeout(() => this.#save(), SAVE_MS);
    }

    #save() {
        clearTimeout(this.#saving);
        this.#saving = undefined;
        if (this.#unsaved) this.#mark(this.#unsaved.name, this.#unsaved.seen);
        this.#unsaved = undefined;
    }

    #mark(name, seen) {
        if (this.#known(name)?.seen !== seen) this.#write(this.#read().map((channel) => (channel.name === name ? { ...channel, seen } : channel)));
    }

    #known(name) {
        return this.#read().find((channel) => channel.name === name);
    }

    #write(kept) {
        this.#kept = kept.slice(0, CHANNELS_MAX);
        this.#stored = JSON.stringify(this.#kept);
        memory.set('channels', this.#stored);
    }

    /** Another tab may have written; a browser may store nothing. */
    #read() {
        const stored = memory.get('channels');
        if (stored !== null && stored !== this.#stored) {
            this.#stored = stored;
            this.#kept = channelsIn(stored);
        }
        return this.#kept;
    }
}

function channelsIn(text) {
    try {
        return JSON.parse(text).filter(({ name, title }) => typeof title === 'string' && accessOf(name).mayRead);
    } catch {
        return [];
    }
}

/** The server's answers by name. Throws what went wrong. */
async function ask(cursors, sleep, signal) {
    const response = await fetch(new URL(`-/poll?sleep=${sleep}&limit=1`, root), {
        method: 'POST',
        body: JSON.stringify(Object.fromEntries(cursors)),
        signal: AbortSignal.any([signal, AbortSignal.timeout(ANSWER_MS)]),
    });
    if (!response.ok) throw new Error(`The server answered ${response.status}`);
    return (await response.json()).channels;
}
