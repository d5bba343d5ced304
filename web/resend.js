// Sending an update to another address, by the reader's browser: the server never makes requests to where somebody says.

import { memory } from './channel.js';
import { headersOf } from './describe.js';
import { curlOf, quoted, requestOf, urlOf } from './request.js';
import { bytesText, copyText, element, flash, plural, visible } from './text.js';

const CODE_MAX = 2000; // characters of a command that are seen

// The page's policy knows this name; nothing else can be made a script's address, nor by anybody else.
const RESENDER = new URL('resender.js', import.meta.url).href;
const policy = globalThis.trustedTypes?.createPolicy('resender', { createScriptURL: () => RESENDER });
const isLocal = (host) => /^(localhost|.*\.localhost|127\.\d+\.\d+\.\d+|\[::1\])$/.test(host);

export class Resend {
    #dialog;
    #title = element('h2', { id: 'resend-title' });
    #address = element('input', { id: 'resend-address', type: 'url', required: true, placeholder: 'http://localhost:8080/hooks', autocomplete: 'off', spellcheck: false, oninput: () => this.#showShell() });
    #facts = element('p', { className: 'facts' });
    #go = element('button', { className: 'main' }, 'Send');
    #blind = element('button', { type: 'button', hidden: true, onclick: () => this.#send(true) }, 'Send without an answer');
    #said = element('div', { role: 'status', className: 'answer' });
    #error = element('p', { className: 'error', role: 'alert' });
    #shell = ['curl: this update', 'longline forward: this one and all that come after it'].map((title) => ({ title, code: element('pre', { tabIndex: 0, role: 'region', ariaLabel: title }), text: '' }));
    #entry;
    #access;
    #worker;

    /** Fills a <dialog>. */
    constructor(dialog) {
        this.#dialog = dialog;
        dialog.setAttribute('aria-labelledby', this.#title.id);
        const form = element(
            'form',
            { noValidate: true },
            this.#title,
            element('label', { htmlFor: this.#address.id }, 'Address, to which path and query are added'),
            this.#address,
            this.#facts,
            element('p', { className: 'row-of' }, this.#go, this.#blind, element('button', { type: 'button', onclick: () => dialog.close() }, 'Close')),
            this.#error,
            this.#said,
            details('What a browser does with it', [
                'Your browser sends it, not this server: it reaches what you reach, also this machine and your network. From an https page it reaches http on this machine only, and it may ask you first.',
                'The answer can be seen only if the target allows this page by its CORS headers. Before JSON, PUT, PATCH or headers of its own, the browser asks by OPTIONS whether they are allowed; if not, the request is not sent. A form or plain text is sent all the same, and only the answer is hidden.',
                'Without an answer (no-cors) nothing is asked: headers of its own are dropped, JSON arrives as text/plain, and neither you nor this page sees whether it arrived.',
            ]),
            details('From a shell, without CORS', [], ...this.#shell.flatMap((line) => [element('p', { className: 'row-of' }, element('span', { className: 'hint' }, line.title), copyButton(line)), line.code])),
        );
        form.addEventListener('submit', (event) => {
            event.preventDefault();
            this.#send(false);
        });
        dialog.append(form);
        dialog.addEventListener('close', () => this.#end());
    }

    /** Asks where to send an update. */
    ask(entry, access) {
        this.#entry = entry;
        this.#access = access;
        this.#title.textContent = `Send #${entry.ts} to another address`;
        this.#address.value = memory.get('resend') ?? '';
        const { method, body, headers } = requestOf(entry);
        const sent = Object.keys(headers).map((name) => name.toLowerCase());
        const left = Object.keys(headersOf(entry)).filter((name) => !sent.includes(name));
        const size = typeof body === 'string' ? new Blob([body]).size : body.length;
        this.#facts.textContent = visible(`${method}, ${bytesText(size)}, with ${sent.join(', ')}${left.length ? `; without ${left.join(', ')}` : ''}`);
        this.#error.textContent = '';
        this.#said.replaceChildren();
        this.#blind.hidden = true;
        this.#showShell();
        this.#dialog.showModal();
        this.#address.focus();
    }

    #showShell() {
        const target = this.#address.value.trim() || this.#address.placeholder;
        const { address, readAddress } = this.#access;
        this.#shell[0].text = curlOf(this.#entry, target);
        this.#shell[1].text = `longline forward ${quoted(readAddress ?? address)} ${quoted(target)} --ts ${this.#entry.ts - 1}`;
        for (const { code, text } of this.#shell) code.textContent = visible(text.length > CODE_MAX ? `${text.slice(0, CODE_MAX)}…` : text);
    }

    /** Throws what is wrong with the address. */
    #target(request) {
        const typed = this.#address.value.trim();
        const url = URL.canParse(typed) && new URL(typed);
        if (!url || !/^https?:$/.test(url.protocol)) throw new Error('Type an http or https address.');
        if (url.username || url.password) throw new Error('Browsers send no user and password in an address.');
        if (location.protocol === 'https:' && url.protocol === 'http:' && !isLocal(url.hostname)) throw new Error('This page is https: the browser lets it reach http on this machine only. Use an https address, or the shell.');
        url.hash = '';
        return new URL(urlOf(url.href, request)).href;
    }

    #send(isBlind) {
        this.#error.textContent = '';
        const { method, body, headers, ...request } = requestOf(this.#entry);
        let url;
        try {
            url = this.#target(request);
        } catch (error) {
            this.#error.textContent = error.message;
            return this.#address.focus();
        }
        memory.set('resend', this.#address.value.trim());
        this.#end();
        this.#said.replaceChildren(element('p', { className: 'facts' }, 'Sending…'));
        this.#worker = new Worker(policy ? policy.createScriptURL('') : RESENDER);
        this.#worker.onmessage = ({ data }) => this.#show(data, method);
        this.#worker.onerror = () => this.#show({}, method);
        this.#worker.postMessage({ url, method, headers, body, isBlind });
    }

    #show({ status, statusText = '', ms, text, isSent, isLate }, method) {
        this.#end();
        this.#blind.hidden = true;
        if (status) {
            const facts = `The target answered ${[status, statusText].filter(Boolean).join(' ')} after ${plural(ms, 'millisecond')}`;
            this.#said.replaceChildren(element('p', { className: 'facts' }, visible(facts)), ...(text ? [element('pre', { tabIndex: 0, role: 'region', ariaLabel: 'Its answer' }, visible(text))] : []));
        } else if (isSent) {
            this.#said.replaceChildren(element('p', { className: 'facts' }, 'Sent. Whether it arrived, and what the target made of it, the browser does not tell.'));
        } else {
            this.#said.replaceChildren();
            const cors = 'There is no answer that the browser lets this page see. Either nothing answers at that address, or the target does not allow this page (CORS); then JSON was not sent, and a form or plain text may have arrived.';
            this.#error.textContent = isLate ? 'The target did not answer in time. It may have got the request.' : cors;
            this.#blind.hidden = isLate || method !== 'POST';
        }
    }

    /** What is under way is no longer waited for. */
    #end() {
        this.#worker?.terminate();
        this.#worker = undefined;
    }
}

function details(title, texts, ...more) {
    return element('details', {}, element('summary', { className: 'hint' }, title), ...texts.map((text) => element('p', { className: 'hint' }, text)), ...more);
}

function copyButton(line) {
    const button = element('button', { type: 'button', className: 'link', ariaLabel: `Copy ${line.title}` }, 'Copy');
    button.addEventListener('click', async () => flash(button, await copyText(line.text).then(() => 'Copied', (error) => error.message)));
    return button;
}
