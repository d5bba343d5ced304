// A body that is no text: a picture as a picture, and any bytes as hex.

import { hexOf } from './kinds.js';
import { pictureOf } from './pictures.js';
import { bytesText, element, focusOn } from './text.js';

const LINE = 16; // bytes
const FIRST = 512;
const MORE = 16 << 10;

/** What to show of bytes: elements. */
export function bytesView(bytes, alt) {
    const picture = pictureOf(bytes, alt);
    return [...(picture ? [element('p', { className: 'picture' }, picture)] : []), hexView(bytes)];
}

function hexView(bytes) {
    const pre = element('pre', { className: 'hex', tabIndex: 0, role: 'region', ariaLabel: 'Bytes' });
    const more = element('button', { type: 'button', className: 'link' });
    let shown = 0;
    const draw = (count) => {
        const end = Math.min(bytes.length, shown + count);
        const lines = [];
        for (; shown < end; shown += LINE) lines.push(lineOf(bytes, shown));
        pre.append(lines.join(''));
        shown = end;
        more.textContent = `${bytesText(bytes.length - shown)} more`;
        more.hidden = shown >= bytes.length;
    };
    more.addEventListener('click', () => {
        draw(MORE);
        if (more.hidden) focusOn(pre);
    });
    draw(FIRST);
    return element('div', {}, pre, more);
}

/** Where it begins, the bytes, and those that are characters of ASCII. */
function lineOf(bytes, at) {
    const line = bytes.subarray(at, at + LINE);
    const text = Array.from(line, (byte) => (byte >= 0x20 && byte < 0x7f ? String.fromCharCode(byte) : '·')).join('');
    return `${at.toString(16).padStart(6, '0')}  ${hexOf(line).padEnd(LINE * 3)} ${text}\n`;
}
