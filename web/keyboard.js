// Keys that work wherever the focus is, but where one types; and the dialog that tells them.

const TYPED_IN = 'input, textarea, select, [contenteditable]';

/** act: {key: () => whether it did something} */
export function onKeys(act) {
    addEventListener('keydown', (event) => {
        if (event.altKey || event.ctrlKey || event.metaKey || event.isComposing || event.defaultPrevented) return;
        if (!Object.hasOwn(act, event.key) || document.querySelector('dialog[open]')) return;
        const { target } = event;
        if (event.key !== 'Escape' && target.closest?.(TYPED_IN)) return;
        if (event.key === 'Enter' && target.closest?.('a, button, summary, [role=tab]')) return;
        if (act[event.key](event)) event.preventDefault();
    });
}
