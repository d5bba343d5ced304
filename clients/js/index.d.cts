declare global {
    // Older libraries of TypeScript do not have them.
    interface SymbolConstructor {
        readonly dispose: unique symbol;
        readonly asyncDispose: unique symbol;
    }
}

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
    /** Whether longline said so itself, not a proxy before it. */
    isOwn: boolean;
    constructor(status: number, description: string, more?: { retryAfter?: number; isOwn?: boolean; cause?: unknown });
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
    /** Node only: the proxy's address; false: none. By default what HTTP_PROXY, HTTPS_PROXY and NO_PROXY say. */
    proxy?: string | false;
}

/** What the loops over one channel and over many have in common. */
export interface LoopOptions {
    /** Only updates that meet this condition, or all of these: `body.action:opened`, `!header.x-github-event:ping`. */
    where?: string | string[];
    /** Ends the loop when it is aborted, without an error. */
    signal?: AbortSignal;
    /**
     * How long a poll waits at the server, in seconds (25). Behind a proxy that cuts polls earlier it becomes as short as
     * that needs.
     */
    sleep?: number;
    /** The most updates of one poll, up to 10000 (100). */
    limit?: number;
    /** Read each update's whole request (headers, exact body) too. */
    full?: boolean;
    /**
     * A poll failed and is asked again in `waitMs`. Of polls that were cut after they had waited, only the second in a
     * row is told. Errors that waiting does not mend are thrown in the loop instead. Without this, onMissed or
     * onReset, what it would be told is a console.warn(), which does not show the path.
     */
    onError?(error: LonglineError, waitMs: number): void;
}

export interface ReadOptions extends LoopOptions {
    /**
     * The id of the last update seen: those after it are read. 0 (the default): all that are kept. -K: the last K.
     * 'now': only what comes.
     */
    ts?: number | 'now';
    /** With `ts`: the epoch that it belongs to. Then also a loss of data while this program was away is a reset. */
    epoch?: string;
    /** In place of `ts`, the time to begin at: '10m', '36h', '7d', an ISO 8601 text, seconds since 1970. */
    since?: string | number | Date;
    /**
     * The server keeps the cursor under this name: without `ts` and `since` it goes on there. An update is confirmed by
     * the poll that follows its turn of the loop.
     */
    name?: string;
    /** So many updates were no longer kept when they were asked for. Called before the updates that follow. */
    onMissed?(count: number): void;
    /**
     * What was seen behind `ts` is not in the server's data any more: they were lost, replaced or restored from a backup.
     * Reading goes on behind `ts`.
     */
    onReset?(ts: number): void;
    /**
     * A poll was answered, also without updates. `ts` is the reply's, `total` the channel's newest id, `skipped` how many
     * did not meet `where`, `lag` how many a consumer with a name has not confirmed.
     */
    onReply?(reply: { ts: number; total: number; skipped: number; lag?: number }): void;
}

/** A place in a channel. */
export interface Position {
    ts: number | 'now';
    epoch?: string;
}

export interface ReadManyOptions extends LoopOptions {
    onMissed?(count: number, channel: string): void;
    onReset?(ts: number, channel: string): void;
    /** `channel`: the error is that of one channel; the others go on. */
    onError?(error: LonglineError, waitMs: number, channel?: string): void;
    onReply?(reply: { ts: number; skipped: number }, channel: string): void;
}

/** A named consumer. */
export interface Consumer {
    name: string;
    /** What it has confirmed. */
    ts: number;
    /** How many updates it has not confirmed. */
    lag: number;
    /** When it last polled: milliseconds since 1970. */
    at: number;
}

export interface Entry<T = any> {
    /** The update's id. */
    readonly ts: number;
    /** The update. */
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
    /** The push's body, exactly: what a sender signs. Bytes where it is not UTF-8. Of a compressed one, the plain body. */
    readonly raw: string | Uint8Array;
    /** The body as it came, if it was compressed and the server has kept it: some senders sign that. */
    readonly coded?: Uint8Array;
}

interface Loop<T> extends AsyncIterableIterator<T> {
    next(): Promise<IteratorResult<T, undefined>>;
    /** Ends the loop, also from outside and while a poll waits. */
    return(value?: any): Promise<IteratorResult<T, any>>;
    [Symbol.asyncIterator](): this;
    /** The same as return(), for `await using`. */
    [Symbol.asyncDispose](): Promise<void>;
}

export interface Subscription<T> extends Loop<T> {
    /**
     * The cursor: the last update whose turn of the loop has ended. Give it as `ts` to go on.
     * A turn left by `break`, `return` or `throw` has not ended. Undefined while only the server knows it.
     */
    readonly ts: number | 'now' | undefined;
    /** The epoch that `ts` belongs to. Give it as `epoch` to go on. */
    readonly epoch: string | undefined;
    /** With `name`: how many updates the consumer had not confirmed at the last reply. */
    readonly lag: number | undefined;
}

export interface ManySubscription<T> extends Loop<T> {
    /** The cursor of each channel. Give it to updates() or entries() to go on. */
    readonly positions: Record<string, Position>;
}

export class Channel {
    constructor(url: string | URL, options?: ChannelOptions);
    readonly url: string;
    /**
     * The address that only reads: this one with another key; the rest, the query too, stays. Null if this one only
     * sends, or is a plain secret.
     */
    readonly readOnlyUrl: string | null;
    /** The address that only sends, for a service. Null if this one is a plain secret. */
    readonly sendOnlyUrl: string | null;
    /**
     * Stores an update: an object or an array, or a string that is its JSON text. Resolves with its id when it is on
     * the server's disk. Does not try again by itself: after an error of status 0 it may have been stored all the same.
     * Rejects with a TypeError, before anything is sent, if it is neither.
     */
    push(update: object | string, options?: { signal?: AbortSignal }): Promise<{ ts: number }>;
    /**
     * Stores up to 10,000 updates, all or none, with ids in a row. Resolves with the id of the last. Rejects with a
     * TypeError, before anything is sent, if one is neither; and with a LonglineError of status 200 if
     * the server does not know batches: it has then stored the text as one update. Otherwise like push().
     */
    pushBatch(updates: Iterable<object | string>, options?: { signal?: AbortSignal }): Promise<{ ts: number }>;
    /** The channel's updates, oldest first, without an end. */
    updates<T = any>(options?: ReadOptions): Subscription<T>;
    /** The same with each update's id and exact text. */
    entries<T = any>(options: ReadOptions & { full: true }): Subscription<FullEntry<T>>;
    entries<T = any>(options?: ReadOptions): Subscription<Entry<T>>;
    /** The consumers that the server knows by their names, sorted. */
    consumers(options?: { signal?: AbortSignal }): Promise<Consumer[]>;
    /** Forgets a consumer's cursor, if there is one. */
    forgetConsumer(name: string, options?: { signal?: AbortSignal }): Promise<void>;
    /**
     * Removes all updates from the server for good, or those with ids up to `upto`. Resolves with the id up to which they
     * are gone: 0 if there were none. The channel counts on, and loops that have not read them are told by `onMissed`.
     * Rejects with a TypeError or RangeError, before anything is sent, if it is not clear what to remove.
     */
    purge(options?: { upto?: number; signal?: AbortSignal }): Promise<{ gone: number }>;
    /** Ends all loops over this channel that run now. */
    close(): void;
    /** The same, for `using`. */
    [Symbol.dispose](): void;
}

/** The addresses of a channel. */
export interface Keys {
    /** It may do everything. Keep it. */
    url: string;
    /** It reads. For those who may see the updates. */
    readOnlyUrl: string;
    /** It sends. For the service whose webhooks you want. */
    sendOnlyUrl: string;
}

/** The addresses of a new channel of the server at `base`, which is not asked. In browsers it may be relative to the page. */
export function newKeys(base: string | URL): Keys;

/** Up to 64 channels of one server, read in one loop. */
export class Channels {
    /** `url` is the server's: what stands before the channels' names. */
    constructor(url: string | URL, options?: ChannelOptions);
    readonly url: string;
    /** The channels' updates, each with its channel's name. Those of one channel come in order. */
    updates<T = any>(positions: Record<string, Position['ts'] | Position>, options?: ReadManyOptions): ManySubscription<[channel: string, update: T]>;
    entries<T = any>(positions: Record<string, Position['ts'] | Position>, options: ReadManyOptions & { full: true }): ManySubscription<FullEntry<T> & { channel: string }>;
    entries<T = any>(positions: Record<string, Position['ts'] | Position>, options?: ReadManyOptions): ManySubscription<Entry<T> & { channel: string }>;
    /** Ends all loops over these channels that run now. */
    close(): void;
    /** The same, for `using`. */
    [Symbol.dispose](): void;
}
