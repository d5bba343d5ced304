// Following the newest: what comes is opened, until the reader turns to something older.

import { memory } from './channel.js';

const GAP_MS = 300; // from one update that is opened to the next

export class Follow {
    #box;
    #label;
    #show;
    #timer;
    #newest;
    #isPaused = false;

    /** Minds a checkbox in a label; show() opens the newest, and says false where the reader is in the way. */
    constructor(box, show) {
        this.#box = box;
        this.#label = box.nextElementSibling;
        this.#show = show;
        box.checked = memory.get('follow') === 'on';
        box.addEventListener('change', () => {
            // One that has paused itself is asked to go on.
            if (this.#isPaused) box.checked = true;
            this.#pause(false);
            memory.set('follow', box.checked ? 'on' : '');
            if (box.checked) this.#show(true);
        });
    }

    get isOn() {
        return this.#box.checked && !this.#isPaused;
    }

    /** What is newest now. */
    came(newest) {
        if (newest === this.#newest) return;
        this.#newest = newest;
        if (this.isOn) this.#timer ??= setTimeout(() => this.#go(), GAP_MS);
    }

    /** The reader has turned to the newest, or to an older one. */
    turned(isNewest) {
        if (this.#box.checked) this.#pause(!isNewest);
    }

    #go() {
        this.#timer = undefined;
        if (this.isOn && !this.#show(false)) this.#pause(true);
    }

    #pause(isPaused) {
        this.#isPaused = this.#box.indeterminate = isPaused;
        this.#label.textContent = isPaused ? 'Following is paused' : 'Follow the newest';
    }
}
