/** A request that failed. */
export class LonglineError extends Error {
    name: 'LonglineError';
    /**
     * The reply's status; 0 where no whole reply came; 200 where the reply was not longline's, or not of one that knows
     * batches.
     */
    status: number;
    /** The server's own words, where it has any. */
    description: string;
    /** Seconds that the server asks to wait. */
    retryAfter?: number;
    constructor(status: number, description: string, more?: { retryAfter?: number; cause?: unknown });
}

export interface ChannelOptions {
    /** In place of the global `fetch`; it must heed `signal`. */
    fetch?: typeof globalThis.fetch;
    /** Sent with every request, for example `{ Authorization: 'Basic …' }`. */
    headers?: Record<string, string>;
    /** The first wait after an error, in milliseconds (500). It doubles with every further one. */
    backoffMs?: number;
    /** The longest such wait (30000). */
    backoffMaxMs?: number;
}

export interface ReadOptions {
    /** The id of the last update seen: those after it are read. 0 (the default): all that are kept. -K: the last K. */
    ts?: number;
    /** Ends the loop when it is aborted, without an error. */
    signal?: AbortSignal;
    /** How long a poll waits at the server, in seconds, 0 to 60 (60). */
    sleep?: number;
    /** The most updates of one poll, up to 10000 (100). */
    limit?: number;
    /** Read each update's whole request (headers, exact body) too. */
    full?: boolean;
    /** So many updates were no longer kept when they were asked for. Called before the updates that follow. */
    onMissed?(count: number): void;
    /** The cursor was ahead of the channel (a lost or another database). Reading goes on behind `ts`. */
    onReset?(ts: number): void;
    /** A poll failed and is asked again in `waitMs`. Errors that waiting does not mend are thrown in the loop instead. */
    onError?(error: LonglineError, waitMs: number): void;
    /** A poll was answered, also without updates. `ts` is the reply's, `total` the channel's newest id. */
    onReply?(reply: { ts: number; total: number }): void;
}

export interface Entry<T = any> {
    /** The update's id. */
    readonly ts: number;
    /** The update, parsed when it is first read. */
    readonly update: T;
    /** The update's exact JSON text: every digit of a number, the order of keys, white space inside. */
    readonly text: string;
}

export interface FullEntry<T = any> extends Entry<T> {
    /** When it was stored: milliseconds since 1970, for `new Date(at)`. 0: not known. */
    readonly at: number;
    readonly method: string;
    /** What stands below the channel in the push's path, if anything does. */
    readonly path?: string;
    /** The sender's address, if it is known. */
    readonly from?: string;
    /** The `ts` of the first update of the same delivery, if this one repeats it. */
    readonly same_as?: number;
    /** The push's query, undecoded. */
    readonly query: string;
    /** The push's headers, their names in lower case. */
    readonly headers: Record<string, string>;
    /** The push's body, exactly: what a sender signs. Bytes where it is not UTF-8. */
    readonly raw: string | Uint8Array;
}

export interface Subscription<T> extends AsyncIterableIterator<T> {
    /**
     * The cursor: the last update whose turn of the loop has ended. Give it as `ts` to go on.
     * A turn left by `break`, `return` or `throw` has not ended.
     */
    readonly ts: number;
    next(): Promise<IteratorResult<T, undefined>>;
    /** Ends the loop, also from outside and while a poll waits. */
    return(value?: any): Promise<IteratorResult<T, any>>;
    [Symbol.asyncIterator](): this;
}

export class Channel {
    constructor(url: string | URL, options?: ChannelOptions);
    readonly url: string;
    /**
     * Stores an update: an object or an array, or a string that is its JSON text. Resolves with its id when it is on
     * the server's disk. Does not try again by itself: after an error of status 0 it may have been stored all the same.
     */
    push(update: object | string, options?: { signal?: AbortSignal }): Promise<{ ts: number }>;
    /**
     * Stores up to 10,000 updates, all or none, with ids in a row. Resolves with the id of the last. Rejects with a
     * TypeError, before anything is sent, if one is an empty or blank string; and with a LonglineError of status 200 if
     * the server does not know batches: it has then stored the text as one update. Otherwise like push().
     */
    pushBatch(updates: Iterable<object | string>, options?: { signal?: AbortSignal }): Promise<{ ts: number }>;
    /** The channel's updates, oldest first, without an end. */
    updates<T = any>(options?: ReadOptions): Subscription<T>;
    /** The same with each update's id and exact text. */
    entries<T = any>(options: ReadOptions & { full: true }): Subscription<FullEntry<T>>;
    entries<T = any>(options?: ReadOptions): Subscription<Entry<T>>;
    /** Ends all loops over this channel that run now. */
    close(): void;
}
