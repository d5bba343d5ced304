// Who reads a channel under a name: what each has confirmed, how far behind it is, and a way to forget one. Where there is
// nobody, nothing is shown.

import { Channel } from './longline.js';
import { element, failureText, plural, timeText, visible } from './text.js';

const ASK_MS = 30_000;
const ASK_OPEN_MS = 5000;

export class Consumers {
    #box;
    #summary = element('span', { className: 'hint' });
    #head = element('thead');
    #table = element('table', {}, this.#head);
    #error = element('p', { className: 'error', role: 'alert' });
    #rows = new Map(); // name → {group, cells}: a <tbody>, which has the question too
    #say;
    #channel;
    #mayForget;
    #askedAt = -ASK_MS;
    #turn = 0; // of the newest question
    #shownTurn = 0; // of that whose answer is shown

    /** Fills a <details>, hidden while there is nobody. say(text) tells who does not see it. */
    constructor(box, say) {
        this.#box = box;
        this.#say = say;
        const heads = ['Name', 'Confirmed', 'Behind', 'Last asked', 'Forget'].map((text) => element('th', { scope: 'col' }, text === 'Forget' ? element('span', { className: 'off-screen' }, text) : text));
        this.#head.append(element('tr', {}, ...heads));
        box.append(
            element('summary', {}, element('h2', {}, 'Consumers'), ' ', this.#summary),
            element('p', { className: 'hint' }, 'Programs that read this address under a name (as=NAME): the server keeps how far each has got.'),
            element('div', { className: 'scroll', tabIndex: 0, role: 'region', ariaLabel: 'Consumers' }, this.#table),
            this.#error,
        );
        box.addEventListener('toggle', () => this.#askIfSeen(0));
        document.addEventListener('visibilitychange', () => this.#askIfSeen(ASK_OPEN_MS));
        setInterval(() => this.#askIfSeen(box.open ? ASK_OPEN_MS : ASK_MS), ASK_OPEN_MS);
    }

    /** Looks after the channel of this access from now on; undefined: after none. */
    watch(access) {
        this.#channel = access && new Channel(access.address);
        this.#mayForget = access?.mayDelete;
        this.#box.open = false;
        this.#error.textContent = '';
        this.#rows.clear();
        this.#show([]);
        this.ask();
    }

    /** Where no answer comes, what is shown stays. */
    async ask() {
        const channel = this.#channel;
        if (!channel) return;
        this.#askedAt = performance.now();
        const turn = ++this.#turn;
        try {
            const consumers = await channel.consumers();
            if (channel !== this.#channel || turn < this.#shownTurn) return; // a later one was answered first
            this.#shownTurn = turn;
            this.#show(consumers);
        } catch {}
    }

    #askIfSeen(afterMs) {
        // A timer may fire a little early.
        if (!document.hidden && performance.now() - this.#askedAt >= afterMs - 500) this.ask();
    }

    #show(consumers) {
        this.#box.hidden = !consumers.length;
        const slowest = consumers.reduce((most, one) => (one.lag > (most?.lag ?? 0) ? one : most), undefined);
        const behind = slowest ? `${visible(slowest.name)} is ${plural(slowest.lag, 'update')} behind` : 'nobody is behind';
        this.#summary.textContent = `${plural(consumers.length, 'name')}; ${behind}`;
        const names = new Set(consumers.map(({ name }) => name));
        for (const name of this.#rows.keys()) if (!names.has(name)) this.#rows.delete(name);
        const parts = [this.#head, ...consumers.map((consumer) => this.#groupOf(consumer))];
        // What stays stays untouched: the focus may be in it.
        const { children } = this.#table;
        if (children.length !== parts.length || parts.some((part, index) => children[index] !== part)) this.#table.replaceChildren(...parts);
    }

    #groupOf({ name, ts, lag, at }) {
        if (!this.#rows.has(name)) this.#rows.set(name, this.#make(name));
        const { group, cells } = this.#rows.get(name);
        const texts = [ts ? `#${ts}` : 'nothing yet', lag.toLocaleString(), timeText(at)];
        texts.forEach((text, index) => cells[index].textContent !== text && (cells[index].textContent = text));
        group.dataset.lag = lag;
        return group;
    }

    #make(name) {
        const cells = [0, 1, 2].map(() => element('td'));
        const button = (text, className, onclick) => element('button', { type: 'button', className, onclick }, text);
        const forget = button('Forget…', 'link', () => {
            forget.hidden = true;
            group.append(question);
            keep.focus();
        });
        forget.ariaLabel = `Forget ${visible(name)}…`;
        const close = () => {
            question.remove();
            forget.hidden = false;
            forget.focus();
        };
        const keep = button('Keep it', '', close);
        const sure = button('Forget it', 'main', () => this.#forget(name, close));
        const text = `Forget ${visible(name)}? When it asks again, it begins with everything that is kept.`;
        const question = element('tr', {}, element('td', { colSpan: 5 }, element('p', {}, text), element('span', { className: 'row-of' }, sure, keep)));
        const row = element('tr', {}, element('th', { scope: 'row' }, visible(name)), ...cells, element('td', {}, ...(this.#mayForget ? [forget] : [])));
        const group = element('tbody', {}, row);
        return { group, cells };
    }

    async #forget(name, close) {
        this.#error.textContent = '';
        const channel = this.#channel;
        try {
            await channel.forgetConsumer(name);
            if (channel !== this.#channel) return;
            this.#say(`${visible(name)} is forgotten`);
            this.#box.querySelector('summary').focus();
            await this.ask();
        } catch (error) {
            if (channel !== this.#channel) return;
            this.#error.textContent = `${visible(name)} was not forgotten: ${failureText(error)}`;
            close();
        }
    }
}
