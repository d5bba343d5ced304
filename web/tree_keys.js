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

/** Makes the rows in `tree` work. */
export function onTree(tree) {
    const buttons = ['path', 'value'].map((what) => {
        const button = element('button', { type: 'button', title: `Copy this ${what}` }, what === 'path' ? 'Path' : 'Value');
        button.addEventListener('click', (event) => {
            event.preventDefault(); // a row that opens would
            copyText(known.get(tools.parentNode)()[what]).then(() => flash(button, 'Copied'), (error) => flash(button, error.message));
        });
        return button;
    });
    const tools = element('span', { className: 'tools' }, ...buttons);
    tools.setAttribute('role', 'group');
    tools.ariaLabel = 'Copy';
    const rowOf = (node) => node.closest('.tree-row');
    const show = (row) => row && tools.parentNode !== row && row.append(tools);
    let stop = tree.querySelector('.tree-row');
    const stopAt = (row) => {
        stop.tabIndex = -1;
        stop = row;
        stop.tabIndex = 0;
    };
    stopAt(stop);
    tree.addEventListener('pointerover', ({ target }) => {
        if (tools.querySelector(':focus-visible')) return; // who uses the keys keeps them
        if (tools.contains(document.activeElement) && rowOf(target) !== tools.parentNode) stop.focus({ preventScroll: true });
        show(rowOf(target));
    });
    tree.addEventListener('focusin', ({ target }) => {
        const row = rowOf(target);
        if (!row) return;
        stopAt(row);
        show(row);
    });
    tree.addEventListener('keydown', (event) => {
        const { target, key } = event;
        if (!known.has(target) || event.altKey || event.ctrlKey || event.metaKey) return;
        if (act(tree, target, key)) event.preventDefault();
    });
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
    if (key === 'Enter' && !details) return row.querySelector('.tools button').focus() ?? true;
    const to = key === 'ArrowLeft' ? above() : key === 'ArrowRight' ? details && rows[index + 1] : next[key]?.();
    to?.focus();
    return Boolean(to);
}
