// Pictures, from bytes that anybody may have sent: of kinds that cannot script, and not larger than a page can bear.

import { element } from './text.js';

const BYTES_MAX = 16 << 20;
const PIXELS_MAX = 40e6; // a small file can be a huge picture, and each pixel takes four bytes

/** The picture that these bytes are; undefined: they are none, or none to be shown. */
export function pictureOf(bytes, alt) {
    if (bytes.length > BYTES_MAX) return undefined;
    const { type, width, height } = readPicture(bytes) ?? {};
    if (!(width * height > 0) || width * height > PIXELS_MAX) return undefined;
    const url = URL.createObjectURL(new Blob([bytes], { type }));
    const image = element('img', { alt, decoding: 'async', width, height, src: url });
    image.onload = () => {
        URL.revokeObjectURL(url);
        // What the first bytes say need not be so: a GIF grows with its frames.
        if (image.naturalWidth * image.naturalHeight > PIXELS_MAX) image.remove();
    };
    image.onerror = () => {
        URL.revokeObjectURL(url);
        image.remove();
    };
    return image;
}

/** {type, width, height} of a picture, by its first bytes; undefined where they are not those of one. */
function readPicture(bytes) {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
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
