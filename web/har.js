// What an update is in a file of many: a line of NDJSON, or an entry of HAR 1.2, the format of recorded requests
// (http://www.softwareishard.com/blog/har-12-spec/). Every digit and byte of it is there.

import { headersOf } from './describe.js';
import { urlOf } from './request.js';

const CHUNK = 0x8000; // bytes that a call takes as its arguments

/** The forms of such a file: head, then what write(entry, sendAddress) says of each, with `between` in between, then tail. */
export const FORMS = {
    ndjson: { head: () => '', between: '\n', tail: '\n', write: lineOf },
    har: {
        head: (version) => `{"log":{"version":"1.2","creator":${JSON.stringify({ name: 'longline', version })},"entries":[\n`,
        between: ',\n',
        tail: '\n]}}\n',
        write: (entry, address) => JSON.stringify(harEntryOf(entry, address)),
    },
};

/** The update with its request, as view=full has it, on one line. */
function lineOf(entry) {
    const { ts, at, method, path, from, same_as, query, headers, text, raw, coded } = entry;
    const before = JSON.stringify({ ts, at, method, path, from, same_as, query, headers });
    const after = JSON.stringify({ ...(typeof raw === 'object' ? { raw_base64: base64Of(raw) } : { raw }), coded_base64: coded && base64Of(coded) });
    // A line break in JSON stands between its values only.
    const body = `,"body":${text.replace(/[\r\n]+/g, ' ')}`;
    return `${before.slice(0, -1)}${body}${after === '{}' ? '}' : `,${after.slice(1)}`}`;
}

/** The request was made to the sending address: what reads is not given away. */
function harEntryOf(entry, address) {
    const { ts, at, path = '', query = '', method } = entry;
    const headers = Object.entries(headersOf(entry)).map(([name, value]) => ({ name, value: String(value) }));
    return {
        startedDateTime: new Date(at || 0).toISOString(),
        time: 0,
        request: {
            method: method || 'POST',
            url: urlOf(address, { path, query }),
            httpVersion: 'HTTP/1.1',
            cookies: [],
            headers,
            queryString: [...new URLSearchParams(query)].map(([name, value]) => ({ name, value })),
            postData: postDataOf(entry),
            headersSize: -1,
            bodySize: entry.coded?.length ?? sizeOf(entry),
        },
        response: {
            status: 200,
            statusText: 'OK',
            httpVersion: 'HTTP/1.1',
            cookies: [],
            headers: [],
            content: { size: 0, mimeType: 'x-unknown' },
            redirectURL: '',
            headersSize: -1,
            bodySize: -1,
            comment: 'It was stored; what was answered is not kept.',
        },
        cache: {},
        timings: { send: 0, wait: 0, receive: 0 },
        comment: `#${ts}${entry.from ? ` from ${entry.from}` : ''}`,
    };
}

/** HAR has no field for how bytes are encoded; names of one's own begin with a line. */
function postDataOf(entry) {
    const mimeType = headersOf(entry)['content-type'] ?? '';
    const coding = entry.coded && `It came with Content-Encoding: ${headersOf(entry)['content-encoding']}; this is what it holds.`;
    const { raw = entry.text } = entry;
    if (typeof raw === 'string') return { mimeType, text: raw, comment: coding };
    return { mimeType, text: base64Of(raw), _encoding: 'base64', comment: ['The text is base64.', coding].filter(Boolean).join(' ') };
}

function sizeOf({ raw, text }) {
    return typeof raw === 'object' ? raw.length : new Blob([raw ?? text]).size;
}

function base64Of(bytes) {
    let text = '';
    for (let at = 0; at < bytes.length; at += CHUNK) text += String.fromCharCode(...bytes.subarray(at, at + CHUNK));
    return btoa(text);
}
