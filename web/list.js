// A list of any length of which only the rows in view are in the document: a listbox, newest first, that keeps still
// under the reader when rows come in above.

import { element } from './text.js';

const MARGIN_ROWS = 4; // drawn above and below what is in view

export class List {
    selected;

    #box;
    #sizer = element('div', { className: 'rows', role: 'presentation' });
    #fill;
    #select;
    #end;
    #mark;
    #items = [];
    #rows = new Map(); // item → its element
    #rowHeight;
    #newest = 0; // the number of the newest item that has been drawn
    #top = 0; // the number of the item on top; the array of the items may have grown since

    /**
     * fill(row, item) draws an item; select(item, how) is told what is selected: 'shown' by the page, 'chosen' by
     * the reader's keys, 'opened' by the reader; end() that the end of the list is in view; mark(row, item, above) marks a
     * row by what stands over it, if there is anything. Items have a `number`.
     */
    constructor(box, { fill, select, end, mark }) {
        this.#box = box;
        this.#fill = fill;
        this.#select = select;
        this.#end = end;
        this.#mark = mark;
        box.append(this.#sizer);
        const [rems, rem] = [getComputedStyle(box).getPropertyValue('--row-height'), getComputedStyle(document.documentElement).fontSize];
        this.#rowHeight = Math.round(parseFloat(rems) * parseFloat(rem)); // whole, as scroll positions are
        box.style.setProperty('--row-height', `${this.#rowHeight}px`);
        box.addEventListener('scroll', () => this.#draw(), { passive: true });
        box.addEventListener('keydown', (event) => this.#key(event));
        box.addEventListener('click', (event) => {
            const row = event.target.closest('[role=option]');
            if (row) this.select(row.item, 'opened');
        });
        new ResizeObserver(() => this.#draw()).observe(box);
    }

    /** The items to show, oldest first; those not shown before are newer or older than all others, or the list is another. */
    show(items, isOther) {
        const above = items.length - 1 - findLast(items, this.#top);
        this.#items = items;
        this.#top = items.at(-1)?.number ?? 0;
        this.#sizer.style.height = `${items.length * this.#rowHeight}px`;
        if (isOther) {
            this.#box.scrollTop = 0;
            this.#newest = this.#top;
        } else if (this.#box.scrollTop > this.#rowHeight / 2) this.#box.scrollTop += above * this.#rowHeight;
        this.#draw();
    }

    select(item, how = 'shown') {
        this.selected = item;
        this.#draw();
        this.#select(item, how);
    }

    /** Selects the next item below (1) or above (-1). */
    step(count, how) {
        this.#goBy(count, how);
    }

    has(number) {
        return this.#items[findLast(this.#items, number)]?.number === number;
    }

    /** Selects an item that is shown, and brings it into view. */
    goTo(item, how = 'opened') {
        this.#reveal(this.#items.length - 1 - findLast(this.#items, item.number));
        this.select(item, how);
    }

    #draw() {
        const { scrollTop, clientHeight } = this.#box;
        const first = Math.max(0, Math.floor(scrollTop / this.#rowHeight) - MARGIN_ROWS);
        const last = Math.min(this.#items.length, Math.ceil((scrollTop + clientHeight) / this.#rowHeight) + MARGIN_ROWS);
        const inView = new Set();
        for (let index = first; index < last; index++) inView.add(this.#items[this.#items.length - 1 - index]);
        for (const [item, row] of this.#rows) {
            if (inView.has(item)) continue;
            row.remove();
            this.#rows.delete(item);
        }
        let index = first;
        for (const item of inView) {
            const row = this.#rows.get(item) ?? this.#make(item);
            row.style.transform = `translateY(${index * this.#rowHeight}px)`;
            row.setAttribute('aria-posinset', index + 1);
            row.setAttribute('aria-setsize', this.#items.length);
            row.setAttribute('aria-selected', item.number === this.selected?.number);
            this.#mark(row, item, this.#items[this.#items.length - index]);
            index++;
        }
        this.#newest = Math.max(this.#newest, this.#items.at(-1)?.number ?? 0);
        const active = [...this.#rows.values()].find(({ item }) => item.number === this.selected?.number);
        if (active) this.#box.setAttribute('aria-activedescendant', active.id);
        else this.#box.removeAttribute('aria-activedescendant');
        if (last === this.#items.length && last > first) this.#end();
    }

    #make(item) {
        const isNew = this.#newest > 0 && item.number > this.#newest;
        const row = element('div', { id: `row-${item.number}`, role: 'option', className: isNew ? 'row new' : 'row' });
        row.item = item;
        this.#fill(row, item);
        this.#rows.set(item, row);
        this.#sizer.append(row);
        return row;
    }

    #key(event) {
        if (event.altKey || event.ctrlKey || event.metaKey || !this.#items.length) return;
        const page = Math.max(1, Math.floor(this.#box.clientHeight / this.#rowHeight) - 1);
        const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -Infinity, End: Infinity };
        if (event.key === 'Enter' || event.key === ' ') {
            if (this.selected) this.select(this.selected, 'opened');
        } else if (event.key in steps) {
            this.#goBy(steps[event.key]);
        } else {
            return;
        }
        event.preventDefault();
    }

    #goBy(steps, how = 'chosen') {
        const count = this.#items.length;
        if (!count) return;
        const at = this.selected ? count - 1 - findLast(this.#items, this.selected.number) : -1;
        const index = Math.min(count - 1, Math.max(0, at + steps));
        this.#reveal(index);
        this.select(this.#items[count - 1 - index], how);
    }

    #reveal(index) {
        const top = index * this.#rowHeight;
        const bottom = top + this.#rowHeight - this.#box.clientHeight;
        if (this.#box.scrollTop > top) this.#box.scrollTop = top;
        else if (this.#box.scrollTop < bottom) this.#box.scrollTop = bottom;
    }
}

/** The index of the last item whose number is at most `number`; -1 when there is none. */
function findLast(items, number) {
    let low = 0;
    let high = items.length;
    while (low < high) {
        const middle = (low + high) >> 1;
        if (items[middle].number <= number) low = middle + 1;
        else high = middle;
    }
    return low - 1;
}
