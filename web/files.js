// The files of a form that came as multipart/form-data: what they are, to be downloaded, and pictures to be seen.

import { headersOf } from './describe.js';
import { pictureOf } from './pictures.js';
import { bytesText, element, plural, visible } from './text.js';

const FILES_MAX = 50; // that are listed
const PICTURES_MAX = 12;
const PICTURE_CHARS_MAX = 22 << 20; // of base64
const PICTURE = /^image\/(png|jpeg|gif|webp|avif)$/i;

/** What to show of the files of an update: elements, none where it has no files. */
export function filesOf(entry) {
    const files = filesIn(entry);
    if (!files.length) return [];
    let pictures = 0;
    const items = files.slice(0, FILES_MAX).map((file) => {
        const picture = pictures < PICTURES_MAX && pictureIn(file);
        if (picture) pictures++;
        const facts = [`field ${file.field}`, file.content_type, bytesText(file.size)];
        return element(
            'li',
            {},
            ...(picture ? [picture] : []),
            element('div', {}, element('strong', {}, nameOf(file)), element('p', { className: 'facts' }, visible(facts.join(' · '))), downloadButton(file)),
        );
    });
    const more = files.length - items.length;
    if (more > 0) items.push(element('li', { className: 'facts' }, `and ${plural(more, 'more file')}`));
    return [element('h4', {}, `Files (${files.length})`), element('ul', { className: 'files' }, ...items)];
}

/** The files in the body, each with the `field` that it came in. What is surely no form is not parsed for it. */
function filesIn(entry) {
    const type = headersOf(entry)['content-type'];
    const isForm = type ? /^multipart\/form-data\b/i.test(type) : entry.text.includes('"content_type":');
    if (!isForm || !entry.update || typeof entry.update !== 'object') return [];
    return Object.entries(entry.update).flatMap(([field, value]) => [value].flat().filter(isFile).map((file) => ({ ...file, field })));
}

function isFile(value) {
    const has = (name, type) => Object.hasOwn(value, name) && typeof value[name] === type;
    return value && typeof value === 'object' && has('content_type', 'string') && has('size', 'number') && (has('body', 'string') || has('body_base64', 'string'));
}

function nameOf({ filename }) {
    return typeof filename === 'string' && filename ? visible(filename) : 'a file without a name';
}

/** Anybody may have written it. */
function base64Decoded(text) {
    try {
        return atob(text);
    } catch {
        return '';
    }
}

function bytesOf({ body, body_base64 }) {
    if (typeof body === 'string') return new TextEncoder().encode(body);
    const text = base64Decoded(body_base64);
    const bytes = new Uint8Array(text.length);
    for (let at = 0; at < text.length; at++) bytes[at] = text.charCodeAt(at);
    return bytes;
}

function downloadButton(file) {
    const name = nameOf(file);
    return element('button', { type: 'button', ariaLabel: `Download ${name}`, onclick: () => download(name, bytesOf(file)) }, 'Download');
}

/** Downloads bytes, or a text. They must never open as a page of this server, whatever they say that they are. */
export function download(name, bytes) {
    const url = URL.createObjectURL(new Blob([bytes], { type: 'application/octet-stream' }));
    element('a', { href: url, download: name.replace(/[\\/]/g, '_') }).click();
    setTimeout(() => URL.revokeObjectURL(url), 60_000);
}

function pictureIn(file) {
    if (!PICTURE.test(file.content_type) || typeof file.body_base64 !== 'string' || file.body_base64.length > PICTURE_CHARS_MAX) return undefined;
    return pictureOf(bytesOf(file), nameOf(file));
}
