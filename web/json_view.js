// JSON as a tree that folds, of any size. It is drawn from the text itself: numbers keep every digit, a name that stands
// twice is seen twice, and what is folded costs nothing. The text must be JSON; the client has checked it.

import { isContainer, members, pathTo, rootOf } from './json_text.js';
import { onTree, stand } from './tree_keys.js';
import { bytesText, element, focusOn, plural, visible } from './text.js';

const PAGE = 100; // members drawn at once
const SCALAR_MAX = 2000; // characters of a string or number drawn at once
const SCALAR_MORE = 20_000;
const OPEN_DEPTH = 4; // containers are open down to here,
const OPEN_MEMBERS = 200; // as long as no more than so many members are drawn
const COUNT_CHARS = 20_000; // of a larger one the size is told, not the count
const SUMMARY_CHARS = 60;

/** The tree of a JSON text, and how its whole is called in the paths of its parts. */
export function jsonView(text, path = 'body') {
    const budget = { members: OPEN_MEMBERS };
    const tree = element('div', { className: 'json' }, drawValue(text, rootOf(text), () => path, 0, budget));
    onTree(tree);
    return tree;
}

function drawValue(text, { name, start, end }, path, depth, budget) {
    const label = name === undefined ? [] : [nameOf(name), ': '];
    const tell = () => ({ path: path(), value: valueText(text.slice(start, end)) });
    if (!isContainer(text, start)) return leaf(tell, ...label, drawScalar(text.slice(start, end)));
    const first = members(text, start).next();
    const [open, close] = text[start] === '{' ? ['{', '}'] : ['[', ']'];
    if (first.done) return leaf(tell, ...label, open + close);

    const summary = element('summary', {}, ...label, element('span', { className: 'size' }, sizeOf(text, start, end)), ' ');
    summary.append(element('span', { className: 'glimpse' }, visible(text.slice(start, Math.min(end, start + SUMMARY_CHARS)).replace(/\s+/g, ' '))));
    stand(summary, tell);
    const details = element('details', {}, summary);
    let drawn = false;
    const draw = (within) => {
        if (drawn) return;
        drawn = true;
        details.append(drawMembers(text, members(text, start), path, depth + 1, within));
    };
    details.addEventListener('toggle', () => details.open && draw({ members: 0 }));
    if (depth < OPEN_DEPTH && budget.members > 0) {
        draw(budget);
        details.open = true;
    }
    return details;
}

function leaf(tell, ...parts) {
    const row = element('div', { className: 'leaf' }, ...parts);
    stand(row, tell);
    return row;
}

/** A string as it is, anything else as it was written. */
function valueText(source) {
    return source[0] === '"' ? JSON.parse(source) : source;
}

/** Members of the value at path(), and a button for more of them. */
function drawMembers(text, left, path, depth, budget) {
    const list = element('div', { className: 'members' });
    const draw = () => {
        for (let count = 0; count < PAGE; count++) {
            const { value, done } = left.next();
            if (done) return;
            budget.members--;
            list.append(drawValue(text, value, () => pathTo(path(), value.name), depth, budget));
        }
        const { value, done } = left.next();
        if (done) return;
        const more = element('button', { type: 'button', className: 'link' }, `Show ${PAGE} more`);
        more.addEventListener('click', () => {
            budget = { members: 0 };
            const first = drawValue(text, value, () => pathTo(path(), value.name), depth, budget);
            more.replaceWith(first);
            draw();
            (first.querySelector('summary') ?? first).focus();
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
