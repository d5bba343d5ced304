// The dialog that compares an update with another one: the one before it, or one that the reader has marked or typed.

import { differenceOf } from './difference.js';
import { element, failureText, oneLine } from './text.js';

const VALUE_MAX = 300; // characters shown of a value

export class Comparison {
    /** The id that the reader compares others with; undefined: there is none. */
    marked;

    #dialog;
    #id = element('input', { id: 'compare-id', type: 'number', min: 1, step: 1, required: true });
    #title = element('label', { id: 'compare-title', htmlFor: 'compare-id' });
    #mark = element('button', { type: 'button', onclick: () => this.#toggle() });
    #result = element('div', { className: 'difference', role: 'region', ariaLabel: 'What differs', tabIndex: 0 });
    #said = element('p', { className: 'facts', role: 'status' });
    #error = element('p', { className: 'error', role: 'alert' });
    #entry;
    #other; // asks for an update by its id
    #turn = 0;
    #isMarkOther = false; // than when it was asked

    /** Fills a <dialog>. changed() is told, once it is closed, that another one is marked. */
    constructor(dialog, changed) {
        this.#dialog = dialog;
        dialog.addEventListener('close', () => this.#isMarkOther && changed());
        dialog.setAttribute('aria-labelledby', this.#title.id);
        const go = element('button', { className: 'main' }, 'Compare');
        const close = element('button', { type: 'button', onclick: () => dialog.close() }, 'Close');
        const form = element('form', {}, element('p', { className: 'row-of' }, element('h2', {}, this.#title), this.#id, go), this.#error, this.#said, this.#result, element('p', { className: 'row-of' }, this.#mark, close));
        form.addEventListener('submit', (event) => {
            event.preventDefault();
            this.#compare();
        });
        dialog.append(form);
    }

    /** Compares an update with the marked one, or with that of the id `other`; entryOf(id) resolves with it, or undefined. */
    ask(entry, other, entryOf) {
        this.#entry = entry;
        this.#other = entryOf;
        this.#title.textContent = `Compare #${entry.ts} with #`;
        this.#id.value = this.marked !== undefined && this.marked !== entry.ts ? this.marked : other;
        this.#isMarkOther = false;
        this.#showMark();
        this.#dialog.showModal();
        this.#id.focus();
        this.#compare();
    }

    #toggle() {
        this.marked = this.marked === this.#entry.ts ? undefined : this.#entry.ts;
        this.#isMarkOther = true;
        this.#showMark();
    }

    #showMark() {
        const { ts } = this.#entry;
        this.#mark.textContent = this.marked === ts ? `Others are compared with #${ts}` : `Compare others with #${ts}`;
        this.#mark.setAttribute('aria-pressed', this.marked === ts);
    }

    async #compare() {
        const turn = ++this.#turn;
        const id = Number(this.#id.value);
        this.#error.textContent = this.#said.textContent = '';
        this.#result.replaceChildren();
        this.#result.hidden = true;
        try {
            const other = await this.#other(id);
            if (turn !== this.#turn) return;
            if (other) this.#show(other);
            else this.#error.textContent = `#${id} is not kept.`;
        } catch (error) {
            if (turn === this.#turn) this.#error.textContent = `#${id} cannot be shown: ${failureText(error)}`;
        }
    }

    #show(other) {
        const pair = other.ts < this.#entry.ts ? [other, this.#entry] : [this.#entry, other];
        const parts = differenceOf(...pair);
        this.#said.textContent = parts.length ? `What #${pair[0].ts} had (−), and #${pair[1].ts} has (+)` : `#${pair[0].ts} and #${pair[1].ts} are alike`;
        this.#result.hidden = !parts.length;
        this.#result.append(...parts.flatMap(({ title, found, problem }) => [
            element('h3', {}, title),
            ...(problem ? [element('p', { className: 'hint' }, problem)] : []),
            element('ul', {}, ...found.map(({ path, before, after }) => element('li', {}, element('code', {}, oneLine(path, VALUE_MAX)), ...valueOf('del', 'was', before), ...valueOf('ins', 'is', after)))),
        ]));
    }
}

function valueOf(tag, said, text) {
    return text === undefined ? [] : [element(tag, {}, element('span', { className: 'off-screen' }, `${said} `), oneLine(text, VALUE_MAX))];
}
