// The question before updates are deleted for good.

import { Channel } from './longline.js';
import { element, failureText } from './text.js';

const DELETE_MS = 30_000;

export class Deletion {
    #dialog;
    #title = element('h2', { id: 'deletion-title' });
    #text = element('p', { id: 'deletion-text' });
    #error = element('p', { className: 'error', role: 'alert' });
    #sure = element('button', { type: 'button', className: 'danger', onclick: () => this.#delete() }, 'Delete for good');
    #keep = element('button', { type: 'button', onclick: () => this.close() }, 'Keep them');
    #done;
    #address;
    #upto;
    #turn = 0;

    /** Fills a <dialog>. done(address, gone) is called once they are deleted: all up to this id. */
    constructor(dialog, done) {
        this.#dialog = dialog;
        this.#done = done;
        dialog.setAttribute('aria-labelledby', this.#title.id);
        dialog.setAttribute('aria-describedby', this.#text.id);
        dialog.append(this.#title, this.#text, this.#error, element('p', { className: 'row-of' }, this.#sure, this.#keep));
    }

    /** Asks about all updates, or those up to an id; `total` is the newest id. */
    ask(address, { upto, total }) {
        this.#address = address;
        this.#upto = upto;
        this.#title.textContent = upto === undefined ? 'Delete all updates?' : `Delete all updates up to #${upto}?`;
        const which = upto === undefined ? `All updates of this address, so far up to #${total},` : `#${upto} and all updates before it`;
        const alone = upto > 1 ? ' One update alone cannot be deleted.' : '';
        this.#text.textContent = `${which} will be gone from the server for good, for everybody. This cannot be undone, and programs that are behind will miss them.${alone}`;
        this.#error.textContent = '';
        this.#sure.disabled = false;
        this.#turn++;
        this.#dialog.showModal();
        this.#keep.focus();
    }

    /** The focus goes back to where it was. */
    close() {
        this.#dialog.close();
    }

    async #delete() {
        const [address, upto, turn] = [this.#address, this.#upto, this.#turn];
        this.#error.textContent = '';
        this.#sure.disabled = true;
        try {
            const { gone } = await new Channel(address).purge({ ...(upto !== undefined && { upto }), signal: AbortSignal.timeout(DELETE_MS) });
            if (turn === this.#turn) this.close(); // else another question is asked by now
            this.#done(address, gone);
        } catch (error) {
            if (turn === this.#turn) this.#error.textContent = `Not deleted: ${failureText(error)}`;
        } finally {
            if (turn === this.#turn) this.#sure.disabled = false;
        }
    }
}
