// What of a feed a text lets through: of what the page holds, of what comes, and of what is older, which is looked through
// from the newest on and not kept. `#N` is the one update of that id.

import { describe, headersOf, requestText } from './describe.js';
import { failureText } from './text.js';

const FRAME_MS = 12; // of a frame
const FOUND_MAX = 1000; // of what is older
const UPDATES_AT_ONCE = 20_000; // looked through before the reader is asked whether to go on
const CHARS_AT_ONCE = 64 << 20;
const OLDER_MAX = 10_000; // kept of what it has found, beside what the feed holds;
const OLDER_CHARS_MAX = 64 << 20; // and this is their text

export class Search {
    /** What went wrong with looking further back; undefined: nothing. */
    error;
    isLooking = false;
    /** Whether what is here has been looked at. */
    hasLooked = false;

    #feed;
    #matches; // (entry) → whether the text lets it through; undefined: there is no text
    #id;
    #changed;
    #stop = new AbortController();
    #current = []; // of what the feed holds
    #older = []; // of what is older
    #upto; // all behind this id has been looked at
    #newest = 0; // the number of the newest that was here when it began

    /** changed() is called when there is more to show or to tell. */
    constructor(feed, text, changed) {
        this.#feed = feed;
        this.#changed = changed;
        this.#id = idIn(text);
        this.#matches = matcherOf(text);
        this.hasLooked = !this.#matches;
    }

    close() {
        this.#stop.abort();
    }

    /** Whether there is a text. */
    get isOn() {
        return Boolean(this.#matches);
    }

    /** What to show, oldest first. */
    get items() {
        if (!this.#matches) return this.#feed.entries;
        return this.#older.length ? this.#older.concat(this.#current) : this.#current;
    }

    /** The id behind which everything has been looked at; undefined: it has not begun. */
    get upto() {
        return this.#upto;
    }

    /** Whether all that is kept has been looked at. */
    get isComplete() {
        return !this.#matches || (this.#upto !== undefined && !this.#feed.mayHave(this.#upto));
    }

    /** They have come. */
    add(entries) {
        if (!this.#matches) return;
        for (const entry of entries) if (entry.number > this.#newest && this.#matches(entry)) this.#current.push(entry);
        const [oldest] = this.#feed.entries;
        if (!oldest) return;
        const kept = this.#current.findIndex(({ number }) => number >= oldest.number);
        this.#older.push(...this.#current.splice(0, kept < 0 ? this.#current.length : kept));
        this.#boundOlder();
    }

    /** Of too many that are older the oldest go: then it has not looked so far. */
    #boundOlder() {
        let chars = this.#older.reduce((sum, { text }) => sum + text.length, 0);
        let gone = 0;
        for (; this.#older.length - gone > OLDER_MAX || chars > OLDER_CHARS_MAX; gone++) chars -= this.#older[gone].text.length;
        if (!gone) return;
        this.#upto = this.#older[gone - 1].ts;
        this.#older = this.#older.slice(gone);
    }

    /** Looks at what is here, a part of a frame at a time, and then at what is older. */
    async run() {
        if (!this.#matches) return;
        const { entries, from, isLoaded } = this.#feed;
        this.isLooking = true;
        const found = [];
        this.#newest = entries.at(-1)?.number ?? 0;
        let began = performance.now();
        let isLate = false;
        for (const entry of entries.slice()) {
            if (this.#matches(entry)) found.push(entry);
            if (performance.now() - began < FRAME_MS) continue;
            await new Promise(requestAnimationFrame);
            if (this.#stop.signal.aborted) return;
            began = performance.now();
            isLate = true;
        }
        this.hasLooked = true;
        this.#current = found.concat(this.#current);
        if (isLoaded) this.#upto = from;
        this.isLooking = false;
        if (isLate) this.#changed();
        await this.lookBack();
    }

    /** Looks through what is older, so much at a time. */
    async lookBack() {
        if (!this.#matches || this.isLooking || !this.#feed.isLoaded || this.#stop.signal.aborted) return;
        this.isLooking = true;
        this.error = undefined;
        this.#upto ??= this.#feed.from ?? 0;
        this.#changed();
        try {
            if (this.#id === undefined) await this.#lookAtOlder();
            else await this.#lookAtOne();
        } catch (error) {
            if (this.#stop.signal.aborted) return;
            this.error = failureText(error);
        }
        this.isLooking = false;
        this.#changed();
    }

    async #lookAtOlder() {
        let updates = UPDATES_AT_ONCE;
        let chars = CHARS_AT_ONCE;
        const found = this.#older.length;
        while (!this.isComplete && updates > 0 && chars > 0 && this.#older.length - found < FOUND_MAX) {
            const upto = this.#upto;
            const { entries, from } = await this.#feed.before(upto, undefined, this.#stop.signal);
            if (upto !== this.#upto) continue; // some have gone
            updates -= upto - from;
            this.#upto = from;
            for (const { text } of entries) chars -= text.length;
            this.#older = entries.filter(this.#matches).concat(this.#older);
            this.#changed();
            await new Promise((resolve) => setTimeout(resolve)); // to who scrolls
        }
    }

    async #lookAtOne() {
        if (this.#id > this.#upto) return (this.#upto = 0);
        this.#older = (await this.#feed.before(this.#id, 1, this.#stop.signal)).entries;
        this.#upto = 0;
    }
}

function idIn(text) {
    const [, id] = /^#(\d{1,15})$/.exec(text) ?? [];
    return id && Number(id);
}

/** (entry) → whether the text lets it through; undefined where there is no text. */
export function matcherOf(text) {
    if (!text) return undefined;
    const id = idIn(text);
    if (id !== undefined) return ({ ts }) => ts === id;
    const pattern = new RegExp(text.replace(/[.*+?^${}()|[\]\\]/g, '\\$&'), 'i');
    return (entry) => {
        if (pattern.test(entry.text) || pattern.test(`#${entry.ts} ${entry.query} ${entry.from} ${requestText(entry)}`)) return true;
        if (Object.entries(headersOf(entry)).some((header) => pattern.test(header.join(': ')))) return true;
        const { sender, event } = describe(entry);
        return pattern.test(`${sender} ${event}`);
    };
}
