// Text of strangers, made fit to be seen; and small things that both pages do with text.

// What is not seen, or changes how its neighbours are seen: controls, marks of direction, zero widths.
const INVISIBLE = /[\0-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]|[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/g;

/** The text with a \uXXXX in place of each character that nobody would see. */
export function visible(text) {
    return text.replace(INVISIBLE, (char) => '\\u' + char.charCodeAt(0).toString(16).padStart(4, '0'));
}

/** One line of at most so many characters. */
export function oneLine(text, max) {
    const cut = text.length > max;
    return visible(text.slice(0, max).replace(/\s+/g, ' ')) + (cut ? '…' : '');
}

/** element('p', {className: 'x', onclick: f}, 'text', child…); an attribute is written {attributes: {name: value}}. */
export function element(tag, { attributes = {}, ...properties } = {}, ...children) {
    const node = Object.assign(document.createElement(tag), properties);
    for (const name in attributes) node.setAttribute(name, attributes[name]);
    node.append(...children);
    return node;
}

export function bytesText(bytes) {
    if (bytes < 1000) return `${bytes} bytes`;
    return bytes < 1e6 ? `${(bytes / 1000).toPrecision(3)} kB` : `${(bytes / 1e6).toPrecision(3)} MB`;
}

export function durationText(seconds) {
    for (const [unit, size] of [['day', 86400], ['hour', 3600], ['minute', 60]]) {
        if (seconds >= size) return plural(Math.round(seconds / size), unit);
    }
    return plural(seconds, 'second');
}

export function plural(count, noun) {
    return `${count.toLocaleString()} ${noun}${count === 1 ? '' : 's'}`;
}

/** When an update came: the time, with the day where it was not today. Upstream's updates have no time. */
export function timeText(at) {
    if (!at) return '';
    const date = new Date(at);
    const time = date.toLocaleTimeString([], { hour: '2-digit', minute: '2-digit', second: '2-digit' });
    return date.toDateString() === new Date().toDateString() ? time : `${date.toLocaleDateString([], { month: 'short', day: 'numeric' })} ${time}`;
}

/** Puts text on the clipboard. Where the page is not https, browsers offer only the old way. */
export async function copyText(text) {
    if (navigator.clipboard) return navigator.clipboard.writeText(text);
    const focused = document.activeElement;
    const area = element('textarea', { value: text, className: 'off-screen' });
    document.body.append(area);
    area.select();
    const done = document.execCommand('copy');
    area.remove();
    focused.focus();
    if (!done) throw new Error('The browser did not let the page copy');
}

/** Says for a moment on the button what came of it. */
export function flash(button, text) {
    button.dataset.label ??= button.textContent;
    button.textContent = text;
    clearTimeout(button.flashing);
    button.flashing = setTimeout(() => (button.textContent = button.dataset.label), 1500);
}
