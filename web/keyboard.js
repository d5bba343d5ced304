// Keys that work wherever the focus is, but where one types. Those of a single character can be switched off: who speaks to
// the computer, or presses keys by accident, would do what was not meant.

import { memory } from './channel.js';

const TYPED_IN = 'input:not([type=checkbox]), textarea, select, [contenteditable]';

/** act: {key: () => whether it did something}; `letters` is the checkbox for the keys of a single character. */
export function onKeys(act, letters) {
    letters.checked = memory.get('keys') !== 'off';
    letters.addEventListener('change', () => memory.set('keys', letters.checked ? '' : 'off'));
    addEventListener('keydown', (event) => {
        if (event.altKey || event.ctrlKey || event.metaKey || event.isComposing || event.defaultPrevented) return;
        if (!Object.hasOwn(act, event.key) || document.querySelector('dialog[open]')) return;
        if (event.key.length === 1 && !letters.checked) return;
        const { target } = event;
        if (event.key !== 'Escape' && target.closest?.(TYPED_IN)) return;
        if (event.key === 'Enter' && target !== document.body && !target.closest?.('[role=listbox]')) return;
        if (act[event.key](event)) event.preventDefault();
    });
}
