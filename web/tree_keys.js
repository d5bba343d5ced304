// What one can do with a row of a JSON tree: go to the next by the arrows, open and close it, and copy its path or value.
// The tree is one stop of the Tab key, and the buttons of the row that has the focus are the next ones.

import { copyText, element, flash } from './text.js';

const known = new WeakMap(); // row → () => {path, value}

/** The row stands for a value; tell() says {path, value}, both texts. */
export function stand(row, tell) {
    known.set(row, tell);
    row.classList.add('tree-row');
    row.tabIndex = -1;
}

/** Makes the rows in `tree` work. The buttons stand behind all rows, as a row that opens may hold none, and are shown at one. */
export function onTree(tree) {
    let row = tree.querySelector('.tree-row'); // of the buttons, and the stop
    const buttons = ['path', 'value'].map((what) => {
        const copy = () => copyText(known.get(row)()[what]).then(() => flash(button, 'Copied'), (error) => flash(button, error.message));
        const button = element('button', { type: 'button', title: `Copy this ${what}`, onclick: copy }, what === 'path' ? 'Path' : 'Value');
        return button;
    });
    const tools = element('span', { className: 'tools', role: 'group', ariaLabel: 'Copy', hidden: true }, ...buttons);
    tree.append(tools);
    const place = () => {
        const [box, { top, right }] = [tree.getBoundingClientRect(), row.getBoundingClientRect()];
        tools.style.top = `${top - box.top + tree.scrollTop}px`;
        tools.style.left = `${Math.max(0, Math.min(right - box.left, tree.clientWidth - tools.offsetWidth)) + tree.scrollLeft}px`;
    };
    const show = (next) => {
        if (!next) return;
        row.tabIndex = -1;
        row = next;
        row.tabIndex = 0;
        tools.hidden = false;
        place();
    };
    row.tabIndex = 0;
    const rowOf = (node) => node.closest('.tree-row');
    tree.addEventListener('pointerover', ({ target }) => !tree.querySelector(':focus-visible') && show(rowOf(target))); // who uses the keys keeps them
    tree.addEventListener('focusin', ({ target }) => show(rowOf(target)));
    tree.addEventListener('keydown', (event) => {
        const { target, key } = event;
        if (!known.has(target) || event.altKey || event.ctrlKey || event.metaKey) return;
        const isCopying = key === 'Enter' && !target.matches('summary');
        if (isCopying) buttons[0].focus();
        if (isCopying || act(tree, target, key)) event.preventDefault();
    });
    new ResizeObserver(() => !tools.hidden && place()).observe(tree);
}

/** What a key does on a row; whether it did. */
function act(tree, row, key) {
    const rows = [...tree.querySelectorAll('.tree-row')].filter((each) => each.checkVisibility());
    const index = rows.indexOf(row);
    const details = row.matches('summary') && row.parentNode;
    const above = () => (details ? row.parentNode : row).parentNode.closest('details')?.firstElementChild;
    const next = { ArrowDown: () => rows[index + 1], ArrowUp: () => rows[index - 1], Home: () => rows[0], End: () => rows.at(-1) };
    if (key === 'ArrowRight' && details && !details.open) return (details.open = true);
    if (key === 'ArrowLeft' && details?.open) return !(details.open = false);
    const to = key === 'ArrowLeft' ? above() : key === 'ArrowRight' ? details && rows[index + 1] : next[key]?.();
    to?.focus();
    return Boolean(to);
}
