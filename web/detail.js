// One update, whole: its body as a tree, and the request that it came as.

import { describe, headersOf, requestText } from './describe.js';
import { bytesView } from './bytes_view.js';
import { download, filesOf } from './files.js';
import { jsonView } from './json_view.js';
import { curlOf } from './request.js';
import { extensionOf, hexOf, isBinary } from './kinds.js';
import { bytesText, copyText, element, flash, focusOn, visible } from './text.js';
import { whenOf } from './times.js';

const RAW_MAX = 4000; // characters of the raw body drawn at once
const RAW_MORE = 50_000;
const HEX_BYTES = 4096;

/**
 * Fills the article. `address` is where the channel is pushed to; again(entry, button) sends the update once more,
 * elsewhere(entry) asks where else to, compare(entry) with what (`marked`: an id) to compare it, remove(entry) whether to delete it and all before it; without one there is no button
 * for it. `link` is a link to it, where there is one to give away. back() leaves the update, first() goes to the one whose delivery this one is again.
 */
export function showDetail(article, entry, { address, again, elsewhere, compare, marked, remove, back, first, link }) {
    const { sender, event } = describe(entry);
    const headers = headersOf(entry);
    const title = element('h3', { id: 'detail-title' }, element('span', { className: 'id' }, `#${entry.ts}`), ' ', [sender, event].filter(Boolean).join(' · '));
    const facts = [requestText(entry), entry.from && `from ${entry.from}`, ...(entry.at ? [whenOf(entry.at)] : []), bytesText(sizeOf(entry)), headers['content-type']?.replace(/;\s*boundary=.*/i, '')].filter(Boolean);
    article.replaceChildren(
        button('← All updates', back, 'back'),
        title,
        element('p', { className: 'facts' }, ...facts.flatMap((fact, index) => [index ? ' · ' : '', ...(Array.isArray(fact) ? fact : [visible(fact)])])),
        ...sameAs(entry, first),
        element(
            'p',
            { className: 'choices' },
            copyButton('Copy JSON', () => entry.text),
            copyButton('Copy as curl', () => curlOf(entry, address)),
            ...(link ? [copyButton('Copy link', () => link)] : []),
            ...downloadsOf(entry),
            ...(again ? [button('Send again', ({ currentTarget }) => again(entry, currentTarget))] : []),
            ...(elsewhere ? [button('Send elsewhere…', () => elsewhere(entry))] : []),
            ...(compare ? [button(marked && marked !== entry.ts ? `Compare with #${marked}…` : 'Compare…', () => compare(entry), 'compare')] : []),
            ...(remove ? [button(`Delete up to #${entry.ts}…`, () => remove(entry))] : []),
        ),
        ...filesOf(entry),
        element('h4', {}, 'Body'),
        ...bodyOf(entry),
        ...table('Query', [...new URLSearchParams(entry.query ?? '')], true),
        ...table('Headers', Object.entries(headers), false),
        ...rawOf(entry),
    );
    article.scrollTop = 0;
}

/** Of the body as it came, or of the update where that is not known. */
function sizeOf({ raw, text }) {
    return typeof raw === 'object' ? raw.length : new Blob([raw ?? text]).size;
}

/** A tree; of bytes what they are, and the tree behind it. */
function bodyOf(entry) {
    if (!isBinary(entry) || typeof entry.raw !== 'object') return [jsonView(entry.text)];
    const tree = element('details', { className: 'part' }, element('summary', {}, 'As JSON'));
    tree.addEventListener('toggle', () => tree.open && tree.append(jsonView(entry.text)), { once: true });
    return [...bytesView(entry.raw, `The picture in #${entry.ts}`), tree];
}

/** Buttons for the bytes of the body, and for those that came where they were compressed. */
function downloadsOf(entry) {
    if (entry.raw === undefined) return [];
    const name = `update-${entry.ts}.${extensionOf(entry)}`;
    const plain = button('Download', () => download(name, entry.raw));
    if (!entry.coded) return [plain];
    const coding = String(headersOf(entry)['content-encoding'] ?? '');
    return [plain, button(`Download as it came (${bytesText(entry.coded.length)})`, () => download(`${name}.${/gzip/i.test(coding) ? 'gz' : 'z'}`, entry.coded))];
}

/** The sender sent the same delivery before. */
function sameAs({ same_as: ts }, first) {
    if (!ts) return [];
    return [element('p', { className: 'facts' }, 'The same delivery as ', button(`#${ts}`, first, 'link'))];
}

function button(text, onclick, className = '') {
    return element('button', { type: 'button', className, onclick }, text);
}

function copyButton(text, make) {
    return button(text, async ({ currentTarget }) => {
        try {
            await copyText(make());
            flash(currentTarget, 'Copied');
        } catch (error) {
            flash(currentTarget, error.message);
        }
    });
}

function table(title, rows, open) {
    if (!rows.length) return [];
    const body = element('tbody', {}, ...rows.map(([name, value]) => element('tr', {}, element('th', { scope: 'row' }, visible(name)), element('td', {}, visible(String(value))))));
    return [element('details', { open, className: 'part' }, element('summary', {}, `${title} (${rows.length})`), element('table', {}, body))];
}

/** The body as it came, where that is not what is shown above. */
function rawOf(entry) {
    if (entry.raw === undefined || entry.raw === entry.text) return [];
    const isText = typeof entry.raw === 'string';
    if (!isText && isBinary(entry)) return []; // it is above
    const text = isText ? entry.raw : hexOf(entry.raw.subarray(0, HEX_BYTES)) + (entry.raw.length > HEX_BYTES ? ' …' : '');
    const pre = element('pre');
    const more = button('', () => {
        draw(RAW_MORE);
        if (more.hidden) focusOn(pre);
    }, 'link');
    let shown = 0;
    const draw = (count) => {
        pre.append(isText ? visible(text.slice(shown, shown + count)) : text.slice(shown, shown + count));
        shown += count;
        more.textContent = `${(text.length - shown).toLocaleString()} more characters`;
        more.hidden = shown >= text.length;
    };
    draw(RAW_MAX);
    return [element('details', { className: 'part' }, element('summary', {}, isText ? 'As it came' : `As it came (${bytesText(entry.raw.length)}, not text)`), pre, more)];
}
