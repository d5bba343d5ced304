// Updates of a range of ids, with their requests: read once, from the oldest on.

import { Channel } from './longline.js';

const LIMIT = 1000; // of a reply

/**
 * Each update behind `from` (or, with `since`, of that time on) up to the id `upto` that is kept and meets the conditions.
 * on.reached(ts): all up to there has come; on.missed(count): so many were not kept; on.reset(): the server's data are
 * others, which ends it. Throws what went wrong.
 */
export async function* eachOf(url, { from = 0, since, upto, where, epoch }, signal, on = {}) {
    const stop = new AbortController();
    const abort = () => stop.abort();
    signal.addEventListener('abort', abort);
    let reached = since ? 0 : from;
    let asked; // what had been reached at the last question: a reply that brings no further is the last
    // The client's loop would go on to what comes.
    const ask = (address, init) => {
        if (reached > from) on.reached?.(reached);
        if (reached >= upto || reached === asked) stop.abort();
        asked = reached;
        return fetch(address, init);
    };
    const loop = new Channel(url, { fetch: ask }).entries({
        ...(since ? { since } : { ts: from }),
        epoch,
        where,
        full: true,
        limit: Math.min(LIMIT, upto - from),
        sleep: 0,
        signal: stop.signal,
        onReply: ({ ts }) => (reached = ts),
        onMissed: (count) => on.missed?.(count),
        onReset: () => {
            on.reset?.();
            stop.abort();
        },
        onError: (error) => {
            throw error;
        },
    });
    try {
        for await (const entry of loop) {
            if (entry.ts > upto) break;
            yield entry;
        }
        signal.throwIfAborted();
    } finally {
        signal.removeEventListener('abort', abort);
        stop.abort();
    }
}

/**
 * The updates of such a range: {entries, chars, isGone}; `isGone`: none of it is kept. It ends early, `isTooMuch`, where
 * several have more than so many characters.
 */
export async function readRange(url, range, signal, charsMax = Infinity) {
    const entries = [];
    let isGone = false;
    let chars = 0;
    const on = { missed: (count) => (isGone = count >= range.upto - range.from), reset: () => (isGone = true) };
    for await (const entry of eachOf(url, range, signal, on)) {
        entries.push(entry);
        chars += entry.text.length;
        if (chars > charsMax && range.upto - range.from > 1) return { entries, chars, isGone, isTooMuch: true };
    }
    return { entries, chars, isGone };
}
