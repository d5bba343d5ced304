// The line in a page's head that says how the page is connected, and the button beside it.

import { element } from './text.js';

/** Returns the function that a Feed tells its state to. `retry` is called when the reader does not want to wait. */
export function connectionLine(retry) {
    const line = document.getElementById('state');
    const button = document.getElementById('retry');
    const texts = { connecting: () => 'Connecting…', live: () => 'Live', idle: (text) => text, paused: () => 'Paused: updates wait on the server', stopped: (text) => text, waiting: (text) => `${text}.` };
    let timer;
    button.addEventListener('click', retry);
    return (state, text = '', waitMs = 0) => {
        clearInterval(timer);
        button.hidden = state !== 'waiting' && state !== 'stopped';
        line.dataset.state = state;
        // A status is read out at each change, but the seconds are not.
        const seconds = element('span', { ariaHidden: true });
        line.replaceChildren(element('span', {}, texts[state](text), ' ', seconds));
        if (state !== 'waiting') return;
        const until = performance.now() + waitMs;
        const count = () => (seconds.textContent = `Next try in ${Math.max(0, Math.ceil((until - performance.now()) / 1000))} s`);
        count();
        timer = setInterval(count, 1000);
    };
}
