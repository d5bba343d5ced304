// Which channel a page shows. Its secret stands in the fragment of the page's address, which browsers send to nobody.
// (Polls and pushes do carry it, in their path: a proxy in front must not log paths.)

import { Channel, newKeys } from './longline.js';

/** Where channels are: this file is at /-/web/channel.js, or below the path that a proxy serves longline at. */
export const root = new URL('../../', import.meta.url);

/** A key that may do everything, as `longline new --keys` makes them. */
export function freshName() {
    return newKeys(root.href).url.slice(root.href.length);
}

/** The address that a channel is pushed to and polled at. It may stand between quotes of any language. */
export function addressOf(name) {
    return root.href + encodeURIComponent(name).replace(/[!'()*]/g, (char) => '%' + char.charCodeAt(0).toString(16));
}

const accesses = new Map(); // name → access

/**
 * What a name may do, and what to hand out: a key (r_, v_, w_) and what is derived of it. A plain secret may do
 * everything, and so may whoever has its address.
 */
export function accessOf(name) {
    if (!accesses.has(name)) accesses.set(name, deriveAccess(name));
    return accesses.get(name);
}

function deriveAccess(name) {
    const address = addressOf(name);
    const { readOnlyUrl, sendOnlyUrl } = new Channel(address);
    const kind = sendOnlyUrl ? name.slice(0, 2) : '';
    return {
        kind,
        address,
        sendAddress: sendOnlyUrl ?? address,
        readAddress: kind === 'w_' ? undefined : (readOnlyUrl ?? address),
        /** What follows the # in a link for who shall read only; undefined: there is none. */
        readName: readOnlyUrl?.slice(root.href.length),
        mayRead: kind !== 'w_',
        maySend: kind !== 'v_',
        mayDelete: kind === 'r_' || !kind,
    };
}

/** The name that somebody typed: as it is, or in an address of it or of a page of it. Throws what is wrong with it. */
export function nameFrom(text) {
    text = text.trim();
    if (!/^https?:\/\//i.test(text)) return checked(text);
    const url = new URL(text);
    if (!url.href.startsWith(root.href)) throw new Error(`That is another server. This page reads from ${root.host} alone.`);
    return checked(decoded(url.hash.slice(1).split('/')[0] || url.pathname.slice(root.pathname.length).split('/')[0]));
}

/** The name to begin with where the address has none: the last one that this reader made or typed. */
export function ownName() {
    const name = memory.get('channel') || freshName();
    rememberName(name);
    return name;
}

/**
 * Never a name that came with a link: who sent it would read what is sent to "your address" from then on. Nor one that
 * only sends: a key is not given up for what it gave out.
 */
export function rememberName(name) {
    if (accessOf(name).mayRead) memory.set('channel', name);
}

/** What this page's own address says: #name/room/filter/id; {name: ''} when it names none. Throws what is wrong with it. */
export function nameInFragment() {
    const [name, room, filter, id] = location.hash.slice(1).split('/');
    return { name: name && checked(decoded(name)), room: room && decoded(room), filter: filter && decoded(filter), id: /^[1-9]\d{0,14}$/.test(id) ? Number(id) : undefined };
}

/** What follows the # in the address of a page: of a channel, a room, a filter, an update. */
export function fragmentOf(name, { room = '', filter = '', id = '' } = {}) {
    return '#' + [name, room, filter, id].map(encodeURIComponent).join('/').replace(/\/+$/, '');
}

/** Puts the name into the page's address; `replace` leaves no entry in the history, another one gets `state`. */
export function putInFragment(name, { replace, state = null, ...more } = {}) {
    const hash = fragmentOf(name, more);
    if (location.hash === hash) return;
    if (replace) history.replaceState(history.state, '', hash);
    else history.pushState(state, '', hash);
}

function decoded(text) {
    try {
        return decodeURIComponent(text);
    } catch {
        throw new Error('Its percent-encoding is broken.');
    }
}

function checked(name) {
    const bytes = new TextEncoder().encode(name).length;
    if (!bytes) throw new Error('Type a secret, or the whole address.');
    if (bytes > 256) throw new Error('It is longer than 256 bytes.');
    if (/[\0-\x1f\x7f/]/.test(name)) throw new Error('It holds a slash or a control character.');
    if (name === '-' || name === '.' || name === '..' || name === 'favicon.ico' || name === 'robots.txt') throw new Error('That path is not a channel.');
    return name;
}

/** localStorage, or nothing where the browser forbids it. */
export const memory = {
    get(key) {
        try {
            return localStorage.getItem(`longline.${key}`);
        } catch {
            return null;
        }
    },
    set(key, value) {
        try {
            localStorage.setItem(`longline.${key}`, value);
        } catch {} // it is a convenience
    },
};
