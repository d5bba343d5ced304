// The bar of the channels that this browser keeps, and the dialog in which they are named and forgotten; and what the tab's
// title says of them.

import { fragmentOf } from './channel.js';
import { TITLE_MAX, titleOf } from './channels.js';
import { element } from './text.js';

export class ChannelBar {
    #bar = document.getElementById('channels');
    #nameIt = document.getElementById('name-it');
    #list = element('ul');
    #items = new Map(); // name → {item, link, text, count}
    #dialog = document.getElementById('channels-edit');
    #rows = element('ul');
    #channels;

    constructor(channels) {
        const dialog = this.#dialog;
        this.#channels = channels;
        this.#bar.append(this.#list, element('button', { type: 'button', className: 'link', onclick: () => this.#edit(false) }, 'Edit…'));
        this.#nameIt.addEventListener('click', () => this.#edit(true));
        const form = element('form', {}, this.#rows, element('p', { className: 'row-of' }, element('button', { className: 'main' }, 'Save'), element('button', { type: 'button', onclick: () => dialog.close() }, 'Cancel')));
        form.addEventListener('submit', (event) => {
            event.preventDefault();
            const rows = [...this.#rows.children].filter((row) => row.querySelector('[type=checkbox]').checked);
            channels.keep(rows.map((row) => ({ name: row.name, title: row.querySelector('input').value })));
            dialog.close();
        });
        dialog.append(
            element('h2', { id: 'channels-title' }, 'Your channels'),
            element('p', { className: 'hint' }, 'Names and keys are kept in this browser alone. To forget a key that is kept nowhere else is to lose what it reads.'),
            form,
        );
    }

    /** Shows what there is now. One channel without a name needs no bar. */
    show() {
        const all = this.#channels.all;
        this.#bar.hidden = all.length < 2 && !all[0]?.title;
        this.#nameIt.hidden = !this.#bar.hidden || !this.#channels.current;
        const unseen = all.reduce((sum, channel) => sum + channel.unseen, 0);
        const { title } = all.find(({ name }) => name === this.#channels.current) ?? {};
        document.title = `${unseen ? `(${unseen}) ` : ''}${title ? `${title} · ` : ''}longline`;
        for (const [name, { item }] of this.#items) {
            if (all.some((channel) => channel.name === name)) continue;
            item.remove();
            this.#items.delete(name);
        }
        all.forEach((channel, index) => {
            const { item, link, text, count } = this.#itemOf(channel.name);
            if (this.#list.children[index] !== item) this.#list.insertBefore(item, this.#list.children[index] ?? null);
            const isCurrent = channel.name === this.#channels.current;
            if (isCurrent && !link.ariaCurrent) {
                link.setAttribute('aria-current', 'page');
                link.scrollIntoView({ block: 'nearest', inline: 'nearest' });
            } else if (!isCurrent) {
                link.removeAttribute('aria-current');
            }
            text.textContent = titleOf(channel);
            count.textContent = channel.unseen.toLocaleString();
            count.hidden = !channel.unseen;
            link.title = channel.isKept ? '' : 'Not kept: it came with a link';
            link.dataset.kept = channel.isKept;
        });
    }

    #itemOf(name) {
        if (!this.#items.has(name)) {
            const text = element('span');
            const count = element('span', { className: 'count' });
            const link = element('a', { href: fragmentOf(name) }, text, count);
            this.#items.set(name, { item: element('li', {}, link), link, text, count });
        }
        return this.#items.get(name);
    }

    /** Opens the dialog; what is shown is to be kept, if `isNaming`. */
    #edit(isNaming) {
        const { all, current } = this.#channels;
        this.#rows.replaceChildren(...all.map((channel) => rowOf(channel, channel.isKept || isNaming)));
        this.#dialog.showModal();
        const index = Math.max(0, all.findIndex(({ name }) => name === current));
        this.#rows.children[index]?.querySelector('input').select();
    }
}

function rowOf({ name, title }, isKept) {
    const called = titleOf({ name });
    const input = element('input', { value: title, placeholder: called, maxLength: TITLE_MAX, autocomplete: 'off', ariaLabel: `Name of ${called}` });
    const keep = element('input', { type: 'checkbox', checked: isKept });
    input.addEventListener('input', () => (keep.checked = true));
    return Object.assign(element('li', {}, input, element('label', {}, keep, ' keep')), { name });
}
