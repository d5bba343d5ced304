// The files of a form that came as multipart/form-data: what they are, to be downloaded, and pictures to be seen.

import { headersOf } from './describe.js';
import { bytesText, element, plural, visible } from './text.js';

const FILES_MAX = 50; // that are listed
const PICTURES_MAX = 12;
const PICTURE_BYTES_MAX = 16 << 20;
const PIXELS_MAX = 40e6; // a small file can be a huge picture, and each pixel takes four bytes
const PICTURE = /^image\/(png|jpeg|gif|webp|avif)$/i; // none of which can script

/** What to show of the files of an update: elements, none where it has no files. */
export function filesOf(entry) {
    const files = filesIn(entry);
    if (!files.length) return [];
    let pictures = 0;
    const items = files.slice(0, FILES_MAX).map((file) => {
        const picture = pictures < PICTURES_MAX && pictureOf(file);
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

/** The file must never open as a page of this server, whatever it says that it is. */
function downloadButton(file) {
    const name = nameOf(file);
    const onclick = () => {
        const url = URL.createObjectURL(new Blob([bytesOf(file)], { type: 'application/octet-stream' }));
        element('a', { href: url, download: name.replace(/[\\/]/g, '_') }).click();
        setTimeout(() => URL.revokeObjectURL(url), 60_000);
    };
    return element('button', { type: 'button', ariaLabel: `Download ${name}`, onclick }, 'Download');
}

function pictureOf(file) {
    if (!PICTURE.test(file.content_type) || typeof file.body_base64 !== 'string' || file.body_base64.length * 0.75 > PICTURE_BYTES_MAX) return undefined;
    const bytes = bytesOf(file);
    const { type, width, height } = readPicture(bytes) ?? {};
    if (!(width * height > 0) || width * height > PIXELS_MAX) return undefined;
    const url = URL.createObjectURL(new Blob([bytes], { type }));
    const image = element('img', { alt: nameOf(file), decoding: 'async', width, height, src: url });
    image.onload = () => URL.revokeObjectURL(url);
    image.onerror = () => {
        URL.revokeObjectURL(url);
        image.remove();
    };
    return image;
}

/** {type, width, height} of a picture, by its first bytes; undefined where they are not those of one. */
function readPicture(bytes) {
    const view = new DataView(bytes.buffer);
    const at = (start, text) => [...text].every((char, index) => bytes[start + index] === char.charCodeAt(0));
    try {
        if (at(0, '\x89PNG\r\n\x1a\n')) return { type: 'image/png', width: view.getUint32(16), height: view.getUint32(20) };
        if (at(0, 'GIF8')) return { type: 'image/gif', width: view.getUint16(6, true), height: view.getUint16(8, true) };
        if (at(0, '\xff\xd8')) return { type: 'image/jpeg', ...sizeOfJpeg(view) };
        if (at(0, 'RIFF') && at(8, 'WEBP')) return { type: 'image/webp', ...sizeOfWebp(view, at) };
        if (at(4, 'ftypavi')) return { type: 'image/avif', ...sizeOfAvif(view, at) };
    } catch {} // it is too short
}

/** In the first segment that begins a frame. */
function sizeOfJpeg(view) {
    for (let at = 2; view.getUint8(at) === 0xff; ) {
        const marker = view.getUint8(at + 1);
        if (marker >= 0xc0 && marker <= 0xcf && ![0xc4, 0xc8, 0xcc].includes(marker)) return { height: view.getUint16(at + 5), width: view.getUint16(at + 7) };
        at += 2 + view.getUint16(at + 2);
    }
}

function sizeOfWebp(view, at) {
    if (at(12, 'VP8 ')) return { width: view.getUint16(26, true) & 0x3fff, height: view.getUint16(28, true) & 0x3fff };
    const bits = view.getUint32(21, true);
    if (at(12, 'VP8L')) return { width: (bits & 0x3fff) + 1, height: ((bits >> 14) & 0x3fff) + 1 };
    if (at(12, 'VP8X')) return { width: (view.getUint32(24, true) & 0xffffff) + 1, height: (view.getUint32(26, true) >>> 8) + 1 };
}

/** The largest of the sizes that it names: it may be made of tiles. */
function sizeOfAvif(view, at) {
    let size;
    for (let start = 0; start < Math.min(view.byteLength, 4096); start++) {
        if (!at(start, 'ispe')) continue;
        const [width, height] = [view.getUint32(start + 8), view.getUint32(start + 12)];
        if (!size || width * height > size.width * size.height) size = { width, height };
    }
    return size;
}
