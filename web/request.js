// The request that an update came as, made fit to be sent once more.

import { headersOf } from './describe.js';

// What tells a receiver what an update is, and that it is genuine.
const TELLING = /^(x-(?!forwarded|real-ip)|ce-|stripe-signature$|paypal-)/;

/** What pushes an update once more: the request as it came or, where its type is not known, the update: {method, path, body, headers, query}. */
export function requestOf(entry) {
    const { 'content-type': type, ...others } = headersOf(entry);
    const method = entry.method === 'PUT' || entry.method === 'PATCH' ? entry.method : 'POST';
    const path = entry.path && !WAY_UP.test(entry.path) ? entry.path : '';
    if (!type) return { method, path, body: entry.text, headers: { 'Content-Type': 'application/json' }, query: '' };
    const telling = Object.entries(others).filter(([name]) => TELLING.test(name));
    return { method, path, body: entry.raw ?? entry.text, headers: { 'Content-Type': type, ...Object.fromEntries(telling) }, query: entry.query };
}

/** Browsers and curl read dots in a path as the way up, to another channel. */
const WAY_UP = /[?#\\]|\/(\.|%2e){1,2}(\/|$)/i;

/** Where a request goes: an address, which may have a query of its own, with the path and the query of the request. */
export function urlOf(address, { path = '', query = '' }) {
    const [base, ...own] = address.split('?');
    const queries = [own.join('?'), query].filter(Boolean);
    return (path ? base.replace(/\/+$/, '') : base) + path + (queries.length ? `?${queries.join('&')}` : '');
}

/** A text as a shell takes it. What a terminal might obey is escaped. */
export function quoted(text) {
    const escaped = (char) => (char < '\x80' ? '\\x' + char.charCodeAt(0).toString(16).padStart(2, '0') : '\\u00' + char.charCodeAt(0).toString(16));
    return /[\0-\x08\x0b-\x1f\x7f-\x9f]/.test(text) ? `$'${text.replace(/[\0-\x1f\x7f-\x9f'\\]/g, escaped)}'` : `'${text.replaceAll("'", "'\\''")}'`;
}

/** With --data-raw an @ names no file, and with -g brackets are no ranges. */
export function curlOf(entry, address) {
    const isText = typeof entry.raw !== 'object';
    const { method, body, headers, ...request } = requestOf(isText ? entry : { ...entry, headers: {} });
    const how = method === 'POST' ? '' : `-X ${method} `;
    const lines = Object.entries(headers).map(([name, value]) => `-H ${quoted(`${name}: ${value}`)} `);
    return `curl -g ${how}${lines.join('')}--data-raw ${quoted(body)} ${quoted(urlOf(address, request))}`;
}
