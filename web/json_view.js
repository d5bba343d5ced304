// JSON as a tree that folds, of any size. It is drawn from the text itself: numbers keep every digit, a name that stands
// twice is seen twice, and what is folded costs nothing. The text must be JSON; the client has checked it.

import { bytesText, element, focusOn, plural, visible } from './text.js';

const PAGE = 100; // members drawn at once
const SCALAR_MAX = 2000; // characters of a string or number drawn at once
const SCALAR_MORE = 20_000;
const OPEN_DEPTH = 4; // containers are open down to here,
const OPEN_MEMBERS = 200; // as long as no more than so many members are drawn
const COUNT_CHARS = 20_000; // of a larger one the size is told, not the count
const SUMMARY_CHARS = 60;

const SPACE = /[ \t\n\r]*/y;
const SCALAR = /[^,\]}\s]*/y;
const BRACKET_OR_STRING = /[[\]{}"]/g;

/** The tree of a JSON text. */
export function jsonView(text) {
    const budget = { members: OPEN_MEMBERS };
    return element('div', { className: 'json' }, drawValue(text, { start: skip(SPACE, text, 0), end: text.trimEnd().length }, 0, budget));
}

function skip(pattern, text, at) {
    pattern.lastIndex = at;
    pattern.test(text);
    return pattern.lastIndex;
}

/** Long strings would be too much for a pattern's stack. */
function endOfString(text, at) {
    for (at = text.indexOf('"', at + 1); ; at = text.indexOf('"', at + 1)) {
        let slashes = 0;
        while (text[at - 1 - slashes] === '\\') slashes++;
        if (slashes % 2 === 0) return at + 1;
    }
}

function endOf(text, at) {
    if (text[at] === '"') return endOfString(text, at);
    if (!isContainer(text, at)) return skip(SCALAR, text, at);
    for (let depth = 0; ; ) {
        BRACKET_OR_STRING.lastIndex = at;
        at = BRACKET_OR_STRING.exec(text).index;
        if (text[at] === '"') {
            at = endOfString(text, at);
            continue;
        }
        depth += text[at] === '{' || text[at] === '[' ? 1 : -1;
        at++;
        if (depth === 0) return at;
    }
}

function isContainer(text, at) {
    return text[at] === '{' || text[at] === '[';
}

/** The members of the container that begins at `at`: {name, start, end}, one after the other. */
function* members(text, at) {
    const isObject = text[at] === '{';
    at = skip(SPACE, text, at + 1);
    for (let index = 0; text[at] !== '}' && text[at] !== ']'; index++) {
        let name = index;
        if (isObject) {
            const end = endOfString(text, at);
            name = text.slice(at, end);
            at = skip(SPACE, text, skip(SPACE, text, end) + 1); // the colon
        }
        const end = endOf(text, at);
        yield { name, start: at, end };
        at = skip(SPACE, text, end);
        if (text[at] === ',') at = skip(SPACE, text, at + 1);
    }
}

function drawValue(text, { name, start, end }, depth, budget) {
    const label = name === undefined ? [] : [nameOf(name), ': '];
    if (!isContainer(text, start)) return element('div', { className: 'leaf' }, ...label, drawScalar(text.slice(start, end)));
    const first = members(text, start).next();
    const [open, close] = text[start] === '{' ? ['{', '}'] : ['[', ']'];
    if (first.done) return element('div', { className: 'leaf' }, ...label, open + close);

    const summary = element('summary', {}, ...label, element('span', { className: 'size' }, sizeOf(text, start, end)), ' ');
    summary.append(element('span', { className: 'glimpse' }, visible(text.slice(start, Math.min(end, start + SUMMARY_CHARS)).replace(/\s+/g, ' '))));
    const details = element('details', {}, summary);
    let drawn = false;
    const draw = (within) => {
        if (drawn) return;
        drawn = true;
        details.append(drawMembers(text, members(text, start), depth + 1, within));
    };
    details.addEventListener('toggle', () => details.open && draw({ members: 0 }));
    if (depth < OPEN_DEPTH && budget.members > 0) {
        draw(budget);
        details.open = true;
    }
    return details;
}

/** Members, and a button for more of them. */
function drawMembers(text, left, depth, budget) {
    const list = element('div', { className: 'members' });
    const draw = () => {
        for (let count = 0; count < PAGE; count++) {
            const { value, done } = left.next();
            if (done) return;
            budget.members--;
            list.append(drawValue(text, value, depth, budget));
        }
        const { value, done } = left.next();
        if (done) return;
        const more = element('button', { type: 'button', className: 'link' }, `Show ${PAGE} more`);
        more.addEventListener('click', () => {
            budget = { members: 0 };
            const first = drawValue(text, value, depth, budget);
            more.replaceWith(first);
            draw();
            focusOn(first.querySelector('summary') ?? first);
        });
        list.append(more);
    };
    draw();
    return list;
}

function nameOf(name) {
    const isIndex = typeof name === 'number';
    return element('span', { className: isIndex ? 'index' : 'name' }, isIndex ? String(name) : stringText(name.slice(0, SCALAR_MAX)));
}

function sizeOf(text, start, end) {
    if (end - start > COUNT_CHARS) return bytesText(end - start);
    let count = 0;
    for (const _ of members(text, start)) count++;
    return plural(count, text[start] === '{' ? 'member' : 'item');
}

/** A string as it is read by people: escapes that only JSON needs are gone, what is not seen is shown. */
function stringText(source) {
    try {
        return visible(JSON.stringify(JSON.parse(source)));
    } catch {
        return visible(source); // it was cut
    }
}

function drawScalar(source) {
    const isString = source[0] === '"';
    const span = element('span', { className: isString ? 'string' : /^[tfn]/.test(source) ? 'word' : 'number' });
    if (source.length <= SCALAR_MAX) {
        span.textContent = isString ? stringText(source) : source;
        return span;
    }
    let shown = 0;
    const more = element('button', { type: 'button', className: 'link' });
    const draw = (count) => {
        more.before(visible(source.slice(shown, shown + count)));
        shown += count;
        if (shown < source.length) more.textContent = `… ${(source.length - shown).toLocaleString()} more characters`;
        else more.remove();
    };
    more.addEventListener('click', () => {
        draw(SCALAR_MORE);
        if (!more.isConnected) focusOn(span);
    });
    span.append(more);
    draw(SCALAR_MAX);
    return span;
}
