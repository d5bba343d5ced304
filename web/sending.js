// Sending to the channel: from the box "Send", the test update of an empty inbox, and an update once more.

import { requestOf, urlOf } from './request.js';
import { failureText, flash, isUnreached } from './text.js';

const PUSH_MS = 20_000; // no answer to a push for so long is none
const IN_A_HEADER = /^[\t\x20-\x7e\x80-\xff]*$/; // what browsers send there; others fail before they ask
const TEST = { body: '{"hello":"world","from":"the console"}', headers: { 'Content-Type': 'application/json' } };

const $ = (id) => document.getElementById(id);

export class Sending {
    #page;
    #isUnsent = false; // what the box says is that no server was there

    /** page.access() is where to send to, as of accessOf(); page.notice(text); page.failed() is told of each push that did. */
    constructor(page) {
        this.#page = page;
        const form = $('send-form');
        form.addEventListener('submit', (event) => {
            event.preventDefault();
            this.#sendForm(event.submitter);
        });
        $('send-body').addEventListener('keydown', (event) => {
            if (event.key === 'Enter' && (event.ctrlKey || event.metaKey)) form.requestSubmit(form.querySelector('button'));
        });
        $('send-test').addEventListener('click', ({ currentTarget }) => this.#send(TEST, currentTarget, 'The test update was not sent'));
    }

    /** What was said of a server that was away is no longer so. */
    serverIsBack() {
        if (this.#isUnsent) $('send-error').textContent = '';
    }

    /** Sends an update once more. */
    again(entry, button) {
        return this.#send(requestOf(entry), button, `#${entry.ts} was not sent again`);
    }

    async #send(request, button, failure) {
        try {
            await this.#push(request, button);
        } catch (error) {
            this.#page.notice(`${failure}: ${failureText(error)}`);
        }
    }

    async #sendForm(button) {
        $('send-error').textContent = '';
        try {
            const headers = { 'Content-Type': $('send-type').value };
            await this.#push({ body: $('send-body').value, headers, query: $('send-query').value.replace(/^\?/, '') }, button);
        } catch (error) {
            $('send-error').textContent = failureText(error);
            this.#isUnsent = isUnreached(error);
        }
    }

    /** Pushes, and says on the button how it went. Throws what went wrong. */
    async #push({ method = 'POST', body, headers, ...request }, button) {
        if (button.ariaBusy === 'true') return;
        button.ariaBusy = 'true';
        try {
            const sendable = Object.entries(headers).filter(([, value]) => IN_A_HEADER.test(value));
            const init = { method, headers: Object.fromEntries(sendable), body, signal: AbortSignal.timeout(PUSH_MS) };
            const response = await fetch(urlOf(this.#page.access().sendAddress, request), init);
            const text = await response.text();
            if (!response.ok) throw new Error(descriptionIn(text) ?? `The server answered ${response.status}`);
            const known = response.headers.get('X-Duplicate');
            flash(button, known ? `Already there as #${known}` : `Sent as #${response.headers.get('X-Total-Updates')}`);
        } catch (error) {
            flash(button, 'Not sent');
            this.#page.failed();
            throw error;
        } finally {
            button.ariaBusy = null;
        }
    }
}

function descriptionIn(text) {
    try {
        return JSON.parse(text).error_description;
    } catch {}
}
