// Text of strangers, made fit to be seen; and small things that both pages do with text.

// What is not seen, or changes how its neighbours are seen: controls, marks of direction, zero widths, halves of pairs.
const UNSEEN = /[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}\p{Default_Ignorable_Code_Point}]/gu;
const JOINED = /[\p{L}\p{M}\p{Extended_Pictographic}\p{Emoji_Modifier}]/u;
const NEVER_JOINED = /[\p{Script=Latin}\p{Script=Cyrillic}\p{Script=Greek}]/u;
const VARIED = /[\p{Emoji}\p{Script=Han}]/u;

/** The text with a \uXXXX in place of each character that nobody would see. */
export function visible(text) {
    return text.replace(UNSEEN, (char, at) => {
        const before = [...text.slice(Math.max(0, at - 2), at)].at(-1) ?? '';
        const after = String.fromCodePoint(text.codePointAt(at + char.length) ?? 0);
        if (isNeeded(char, before, after)) return char;
        const code = char.codePointAt(0).toString(16);
        return code.length > 4 ? `\\u{${code}}` : `\\u${code.padStart(4, '0')}`;
    });
}

/** Whether writing needs it here: joiners in Persian, Hindi and emoji, and what picks the look of an emoji or a Chinese character. */
function isNeeded(char, before, after) {
    if (char === '\u200c' || char === '\u200d') return JOINED.test(before) && JOINED.test(after) && !NEVER_JOINED.test(before + after);
    if (char >= '\ufe00' && char <= '\ufe0f') return VARIED.test(before);
    return char === '\t' || char === '\n';
}

/** One line of at most so many characters. */
export function oneLine(text, max) {
    const cut = text.length > max;
    return visible(text.slice(0, max).replace(/\s+/g, ' ')) + (cut ? '…' : '');
}

const ADDRESS = /\bhttps?:\/\/[^\s<>"\p{Cc}\p{Cf}\p{Cs}\p{Default_Ignorable_Code_Point}]+/giu;
// Of a host whose characters look like no other's, without a user name, which can look like a host.
const SOUND = /^https?:\/\/[a-z\d][a-z\d.-]*(?::\d+)?(?:[/?#]|$)/i;

/** The text, made visible, with its addresses as links: they open elsewhere, and tell nobody where from. */
export function linked(text) {
    const parts = [];
    let end = 0;
    for (const { 0: found, index } of text.matchAll(ADDRESS)) {
        const address = found.replace(/[.,;:!?'*)\]}]+$/, ''); // the sentence's
        if (!SOUND.test(address) || !URL.canParse(address)) continue;
        parts.push(visible(text.slice(end, index)), element('a', { href: address, target: '_blank', rel: 'noopener noreferrer nofollow' }, visible(address)));
        end = index + address.length;
    }
    return [...parts, visible(text.slice(end))].filter((part) => part !== '');
}

/** element('p', {className: 'x', onclick: f}, 'text', child…) */
export function element(tag, properties = {}, ...children) {
    const node = Object.assign(document.createElement(tag), properties);
    node.append(...children);
    return node;
}

/** Moves the focus to what is no control. */
export function focusOn(node) {
    node.tabIndex = -1;
    node.focus();
}

export function bytesText(bytes) {
    if (bytes < 1000) return `${bytes} bytes`;
    return bytes < 1e6 ? `${(bytes / 1000).toPrecision(3)} kB` : `${(bytes / 1e6).toPrecision(3)} MB`;
}

export function durationText(seconds) {
    for (const [unit, size] of [['day', 86400], ['hour', 3600], ['minute', 60]]) {
        if (seconds >= 2 * size || seconds === size) return plural(Math.floor(seconds / size), unit);
    }
    return plural(seconds, 'second');
}

/** What went wrong with a request, as people say it: each browser has words of its own for a server that it cannot reach. */
export function failureText(error) {
    if (error.name === 'TimeoutError' || error.cause?.name === 'AbortError') return 'The server did not answer in time';
    if (isUnreached(error)) return 'The server cannot be reached';
    return error.description ?? error.message;
}

/** Whether no answer came at all. */
export function isUnreached(error) {
    return error.status === 0 || error instanceof TypeError || error.name === 'TimeoutError'; // fetch() says all by TypeErrors
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

/** Says for a moment on the button what came of it, and to who listens to the page. */
export function flash(button, text) {
    const said = document.getElementById('said');
    if (said) said.textContent = text;
    button.dataset.label ??= button.textContent;
    button.textContent = text;
    clearTimeout(button.flashing);
    button.flashing = setTimeout(() => (button.textContent = button.dataset.label), 1500);
}
