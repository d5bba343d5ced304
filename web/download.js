// The updates of a channel as a file: all that are kept, or those that the filter lets through. They are read a page at a
// time, from the oldest on; what they come to is held by the browser until it is saved, FILE_MAX bytes of it at the most.

import { download } from './files.js';
import { FORMS } from './har.js';
import { eachOf } from './range.js';
import { matcherOf } from './search.js';
import { bytesText, element, failureText, plural } from './text.js';

export const FILE_MAX = 256e6;
const PIECE_MAX = 4 << 20; // characters that are text of the page's; the rest are blobs, which browsers may keep on disk

/** What has been read for a file. */
class Contents {
    count = 0;
    first;
    last;
    #blobs = [];
    #size = 0;
    #texts = [];
    #chars = 0;

    add(ts, text) {
        this.count++;
        this.first ??= ts;
        this.last = ts;
        this.#texts.push(text);
        this.#chars += text.length;
        if (this.#chars < PIECE_MAX) return;
        const blob = new Blob(this.#texts);
        this.#blobs.push(blob);
        this.#size += blob.size;
        this.#texts = [];
        this.#chars = 0;
    }

    get size() {
        return this.#size + this.#chars;
    }

    blob(head, tail) {
        return new Blob([head, ...this.#blobs, ...this.#texts, tail]);
    }
}

/** Reads the updates of a channel into one file, or several: run() until it says 'done'. */
export class Reading {
    ts = 0; // all up to there has been read
    contents = new Contents();
    isGap = false; // whether some went before they were read

    #access;
    #form;
    #matches;
    #range;
    #max;

    /** `what` is of readFilter(), `upto` the newest id, `form` one of FORMS. */
    constructor(access, what, { upto, epoch, form, max = FILE_MAX }) {
        this.#access = access;
        this.#form = form;
        this.#max = max;
        this.#matches = matcherOf(what.text) ?? (() => true);
        this.#range = { where: what.where, since: what.since, upto, epoch };
    }

    /** Goes on reading: 'done', or 'full' where the file is. progress() is called now and then. Throws what went wrong. */
    async run(signal, progress) {
        if (this.contents.size >= this.#max) this.contents = new Contents();
        const { since, upto, ...range } = this.#range;
        if (this.ts >= upto) return 'done';
        const on = {
            reached: (ts) => {
                this.ts = Math.min(ts, upto);
                progress();
            },
            missed: () => (this.isGap ||= this.ts > 0),
            reset: () => {
                throw new Error('The server has lost its data, and has others now');
            },
        };
        for await (const entry of eachOf(this.#access.address, { ...range, upto, from: this.ts, since: this.ts ? undefined : since }, signal, on)) {
            if (this.#matches(entry)) this.contents.add(entry.ts, (this.contents.count ? this.#form.between : '') + this.#form.write(entry, this.#access.sendAddress));
            this.ts = entry.ts;
            if (this.contents.size >= this.#max && entry.ts < upto) return 'full';
        }
        this.ts = upto;
        return 'done';
    }
}

export class Downloads {
    #dialog;
    #form = element('form', { method: 'dialog' });
    #what = element('fieldset', {}, element('legend', {}, 'Which'));
    #bar = element('progress', { ariaLabel: 'How much has been read' });
    #said = element('p', { className: 'facts', role: 'status' });
    #error = element('p', { className: 'error', role: 'alert' });
    #go = element('button', { className: 'main' });
    #close = element('button', { type: 'button', onclick: () => this.#dialog.close() });
    #stop;
    #asked;
    #as; // a name of FORMS
    #reading;

    /** Fills a <dialog>. */
    constructor(dialog) {
        this.#dialog = dialog;
        const title = element('h2', { id: 'downloads-title' }, 'Download updates');
        dialog.setAttribute('aria-labelledby', title.id);
        const hint = element('p', { className: 'hint' }, `They are read page by page and put together in this browser. A file holds ${bytesText(FILE_MAX)}; what is more makes another.`);
        const forms = element('fieldset', {}, element('legend', {}, 'As'), choice('form', 'ndjson', 'NDJSON: one update a line, with its request', true), choice('form', 'har', 'HAR 1.2: for tools that read recorded requests'));
        this.#form.append(title, this.#what, forms, hint, this.#bar, this.#said, this.#error, element('p', { className: 'row-of' }, this.#go, this.#close));
        this.#form.addEventListener('submit', (event) => {
            event.preventDefault();
            this.#run();
        });
        dialog.append(this.#form);
        dialog.addEventListener('close', () => this.#stop?.abort());
    }

    /** Asks what to download. `typed` is what the filter says, `what` that of readFilter(); `total` is the newest id. */
    ask(access, { typed, what, total, epoch, version }) {
        this.#asked = { access, what, total, epoch, version };
        const choices = typed ? [choice('what', 'filter', `What the filter lets through: ${typed}`, true), choice('what', 'all', 'All that is kept')] : [];
        this.#what.replaceChildren(this.#what.firstChild, ...choices);
        this.#what.hidden = !typed;
        this.#reading = undefined;
        this.#show('Download');
        this.#dialog.showModal();
    }

    /** A button that goes on, or nothing to go on with; what there is to say, and what went wrong. */
    #show(go, said = '', error = '') {
        const isRunning = Boolean(this.#stop);
        for (const set of this.#form.querySelectorAll('fieldset')) set.disabled = Boolean(this.#reading);
        this.#bar.hidden = !isRunning;
        this.#go.hidden = !go;
        this.#go.textContent = go;
        this.#close.textContent = isRunning || (go && this.#reading) ? 'Cancel' : 'Close';
        this.#said.textContent = said;
        this.#error.textContent = error;
        if (!this.#form.contains(document.activeElement) || document.activeElement.hidden) this.#close.focus();
    }

    async #run() {
        if (this.#stop) return;
        const { access, what, total, epoch, version } = this.#asked;
        const data = new FormData(this.#form);
        this.#as = data.get('form') ?? this.#as; // none while one is on
        const form = FORMS[this.#as];
        const all = { where: [], text: '' };
        const reading = (this.#reading ??= new Reading(access, data.get('what') === 'filter' ? what : all, { upto: total, epoch, form }));
        const stop = (this.#stop = new AbortController());
        this.#bar.removeAttribute('value');
        this.#show('', 'Reading…');
        const first = reading.ts;
        const progress = () => {
            this.#bar.max = total - first || 1;
            this.#bar.value = reading.ts - first;
            this.#said.textContent = `Read up to #${reading.ts.toLocaleString()} of #${total.toLocaleString()}: ${saidOf(reading)}`;
        };
        let end;
        try {
            end = await reading.run(stop.signal, progress);
        } catch (error) {
            end = error;
        }
        this.#stop = undefined;
        if (stop.signal.aborted) return;
        if (end instanceof Error) return this.#show('Go on', `Read up to #${reading.ts.toLocaleString()}`, `Not all could be read: ${failureText(end)}`);
        this.#save(reading, form.head(version), form.tail);
        if (end === 'full') return this.#show('Go on with another file', `The file is full. Saved: ${saidOf(reading)}, up to #${reading.ts.toLocaleString()}`);
        this.#show('', reading.contents.count ? `Saved: ${saidOf(reading)}${reading.isGap ? '. Some were deleted before they could be read' : ''}` : 'There is none to download');
    }

    /** The channel's name is not in the file's: it is a key. */
    #save({ contents }, head, tail) {
        if (contents.count) download(`updates-${contents.first}-${contents.last}.${this.#as}`, contents.blob(head, tail));
    }
}

function saidOf({ contents }) {
    return `${plural(contents.count, 'update')}, ${bytesText(contents.size)}`;
}

function choice(name, value, text, checked = false) {
    return element('label', {}, element('input', { type: 'radio', name, value, checked }), element('span', {}, text));
}
