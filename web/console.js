// The console: the page at /. It wires the parts together; see feed.js for what comes in, list.js and detail.js for how
// it is shown.

import { accessOf, freshName, memory, nameFrom, nameInFragment, ownName, putInFragment, rememberName, root } from './channel.js';
import { connectionLine } from './connection.js';
import { Consumers } from './consumers.js';
import { describe, headersOf, requestText } from './describe.js';
import { addressWithQuery, requestOf, showDetail } from './detail.js';
import { Deletion } from './deletion.js';
import { Feed } from './feed.js';
import { complaintOf, readFilter } from './filter.js';
import { List } from './list.js';
import { Refused } from './refused.js';
import { snippetsFor } from './snippets.js';
import { copyText, durationText, element, flash, plural, timeText } from './text.js';

const PUSH_MS = 20_000; // no answer to a push for so long is none
const FILTER_MS = 12; // of a frame
const TYPING_MS = 120; // from the last key to the filter
const TYPING_WHERE_MS = 500; // which asks the server
const SAY_MS = 3000; // from one spoken line about new updates to the next

const HINTS = {
    '': 'Whatever is sent to it by POST is kept on this server and shows below at once. It is also the key: who knows it can read and send, so keep it to yourself.',
    r_: 'Whatever is sent to it by POST is kept on this server and shows below at once. It only sends. The key, which also reads and deletes, is in the address of this page: keep that to yourself. Who opens the reading link sees all of this, and can delete nothing.',
    v_: 'Whatever is sent to it by POST is kept on this server and shows below at once. You have opened a reading link: this page shows everything, and neither sends nor deletes.',
    w_: 'This address only sends: what has come to it cannot be read with it. Open the reading link, or the page with the key: #v_… or #r_… in its address. Who made this address has them.',
};

const $ = (id) => document.getElementById(id);

let place; // {name, room}, as in the fragment
let access; // what the channel's name may do; undefined: the page shows none
let feed;
let feedTurn = 0;
let matches; // (entry) → whether the filter lets it through; undefined: no filter
let isFiltering = false;
let filterTurn = 0;
let shown = []; // what of feed.entries the filter lets through
let seen = 0; // the number of the newest entry that the list has
let unseen = 0; // updates that came while the page was hidden
let unsaid = 0; // updates that no spoken line has told
let saidAt = -SAY_MS;

const list = new List($('list'), { fill: fillRow, select: open });
const tell = (text) => ($('said').textContent = text);
const refused = new Refused($('refused'), tell);
const consumers = new Consumers($('consumers'), tell);
const deletion = new Deletion($('deletion'), deleted);

// ---------------------------------------------------------------------------------------------- which channel

function begin() {
    let name;
    let room;
    let typed;
    try {
        ({ name, room, filter: typed } = nameInFragment());
    } catch (error) {
        stopAt(`The address of this page names no channel: ${error.message}`);
        return;
    }
    if (!name) {
        name = ownName();
        putInFragment(name, { replace: true });
    }
    access = accessOf(name);
    place = { name, room };
    showAccess();
    if (!access.mayRead) {
        stopReading();
        showState('idle', 'This address only sends');
        return;
    }
    $('filter').value = typed ?? '';
    reset();
    follow(readFilter($('filter').value).where);
    filter();
    refused.watch(access.address);
    consumers.watch(access);
}

/** Begins to read the channel, or those of its updates that meet conditions. */
function follow(where) {
    feedTurn++;
    feed?.close();
    feed = new Feed(access.address, { change, state: showState, notice }, where);
    feed.start();
}

/** An address that names no channel: nothing is polled. */
function stopAt(text) {
    access = undefined;
    showAccess();
    stopReading();
    showState('stopped', text);
    $('retry').hidden = true;
}

function stopReading() {
    feed?.close();
    feed = undefined;
    refused.watch(undefined);
    consumers.watch(undefined);
    reset();
}

/** What is shown of the page, and what it says of the address, by what its name may do. */
function showAccess() {
    const { kind, mayRead, maySend, readName } = access ?? {};
    deletion.close();
    for (const id of ['copy-address', 'connect']) $(id).hidden = !access;
    $('send').hidden = !maySend;
    $('send-test').hidden = !maySend;
    $('inbox').hidden = $('skip').hidden = !mayRead;
    $('reading-link').hidden = !readName;
    $('address').textContent = access?.sendAddress ?? '–';
    $('address-hint').textContent = access ? HINTS[kind] : '';
    if (!access) return;
    if (!mayRead) $('send').open = true;
    selectTab(Number(memory.get('tab')) || 0);
    for (const id of ['brand', 'to-console', 'to-chat']) $(id).hash = location.hash;
}

function reset() {
    $('notices').replaceChildren();
    $('filter-error').textContent = '';
    $('connect').open = true;
    forget();
}

/** Shows none of what has come. */
function forget() {
    filterTurn++; // what is looked through is another channel's
    isFiltering = false;
    shown = [];
    seen = unseen = 0;
    document.title = 'longline';
    $('kept').textContent = '';
    $('delete-all').hidden = true;
    list.selected = undefined;
    list.show(shown, true);
    closeDetail();
    showEmpty();
}

function go(name) {
    rememberName(name);
    putInFragment(name);
    begin();
}

$('fresh').addEventListener('click', () => go(freshName()));
$('own').addEventListener('click', () => {
    const form = $('own-form');
    form.hidden = !form.hidden;
    $('own').setAttribute('aria-expanded', !form.hidden);
    if (!form.hidden) $('own-name').focus();
});
$('own-form').addEventListener('submit', (event) => {
    event.preventDefault();
    try {
        const name = nameFrom($('own-name').value);
        $('own-error').textContent = $('own-name').value = '';
        $('own').click();
        $('own').focus();
        go(name);
    } catch (error) {
        $('own-error').textContent = error.message;
    }
});
addEventListener('hashchange', begin);
// Not a change of the channel, which is what fragments are here.
$('skip').addEventListener('click', (event) => {
    event.preventDefault();
    $('inbox').focus();
});

// ---------------------------------------------------------------------------------------------- how it is connected

$('reading-link').addEventListener('click', ({ currentTarget }) => copy(`${root.href}#${access.readName}`, currentTarget));

const showLine = connectionLine(() => feed?.start());

function showState(state, ...more) {
    showLine(state, ...more);
    if (state === 'stopped' && feed?.where.length) [$('filter-error').textContent] = more;
    $('pause').textContent = state === 'paused' ? 'Go on' : 'Pause';
    $('pause').disabled = !feed || state === 'stopped';
}

function notice(text) {
    const line = element('p', {}, text, ' ');
    const dismiss = () => {
        line.remove();
        $('inbox').focus();
    };
    line.append(element('button', { type: 'button', className: 'link', onclick: dismiss }, 'Dismiss'));
    $('notices').append(line);
    if ($('notices').children.length > 5) $('notices').firstElementChild.remove();
}

$('pause').addEventListener('click', () => (feed.state === 'paused' ? feed.start() : feed.pause()));

// ---------------------------------------------------------------------------------------------- what has come

function change() {
    const { entries } = feed;
    const newest = entries.at(-1)?.number ?? 0;
    const isFirst = seen === 0 && newest > 0;
    if (newest > seen) {
        const added = entries.slice(entries.findLastIndex((entry) => entry.number <= seen) + 1);
        announce(added);
        seen = newest;
        if (matches) {
            shown.push(...added.filter(matches));
            const dropped = shown.findIndex((entry) => entry.number >= entries[0].number);
            shown.splice(0, dropped < 0 ? shown.length : dropped);
        } else {
            shown = entries;
        }
        list.show(shown, isFirst);
        if (isFirst) {
            const isUsed = $('connect').matches(':hover') || $('connect').contains(document.activeElement);
            if (!isUsed) $('connect').open = false;
            if (isWide()) list.select(entries.at(-1));
        }
    }
    showEmpty();
    showKept();
}

function announce(entries) {
    const added = entries.filter(({ ts }) => !(ts <= feed.history));
    if (!added.length) return;
    if (document.hidden) {
        unseen += added.length;
        document.title = `(${unseen}) longline`;
    }
    if (!unsaid) setTimeout(say, saidAt + SAY_MS - performance.now());
    unsaid += added.length;
}

function say() {
    if (seen) $('said').textContent = `${plural(unsaid, 'update')} came`;
    saidAt = performance.now();
    unsaid = 0;
}

document.addEventListener('visibilitychange', () => {
    if (document.hidden) return;
    unseen = 0;
    document.title = 'longline';
});

function showEmpty() {
    const isLooking = feed && !feed.isLoaded && seen === 0;
    const isFiltered = shown.length === 0 && (seen > 0 || (feed?.where.length > 0 && feed.total > 0));
    const hadFocus = $('empty').contains(document.activeElement);
    $('empty').hidden = shown.length > 0;
    $('list').hidden = shown.length === 0;
    if (hadFocus && shown.length) $('list').focus();
    if (feed?.isLoaded && !feed.total) refused.open();
    $('empty').dataset.filtered = isFiltered || isLooking;
    const none = seen > 0 ? 'No update holds that' : 'No update meets that';
    const empty = !feed?.total ? 'Nothing has come yet' : feed.hasAny ? 'Nothing is kept any more of what has come' : 'All updates are deleted';
    $('empty-title').textContent = isFiltering || (isLooking && feed.where.length) ? 'Looking…' : isLooking ? 'Loading…' : isFiltered ? none : empty;
}

function showKept() {
    const { total, keeps, entries } = feed;
    const parts = [];
    if (total !== undefined) parts.push(total ? `${plural(total, 'update')} so far` : 'No update so far');
    if (matches || feed.where.length) parts.push(`${shown.length.toLocaleString()} shown`);
    else if (entries.length && entries.length < total) parts.push(`the newest ${entries.length.toLocaleString()} are here`);
    if (keeps) parts.push(`${parts.length ? 'this' : 'This'} server keeps the last ${keeps.updates.toLocaleString()} of an address, for ${durationText(keeps.seconds)}`);
    $('kept').textContent = parts.length ? `${parts.join('; ')}.` : '';
    $('delete-all').hidden = !access.mayDelete || !feed.hasAny;
}

function fillRow(row, entry) {
    const { sender, event, preview } = describe(entry);
    const title = [sender, event].filter(Boolean).join(' · ');
    const request = title && entry.method === 'POST' && !entry.path ? '' : requestText(entry);
    row.append(
        element('span', { className: 'id' }, `#${entry.ts}`),
        element('span', {}, ...(entry.same_as ? [element('span', { className: 'tag' }, 'again'), ' '] : []), element('strong', {}, title || request), title && request ? ` ${request}` : ''),
        element('time', {}, timeText(entry.at)),
        element('span', { className: 'preview' }, preview),
    );
}

let filterTimer;
$('filter').addEventListener('input', () => {
    clearTimeout(filterTimer);
    const { where } = readFilter($('filter').value);
    filterTimer = setTimeout(filter, isFollowed(where) ? TYPING_MS : TYPING_WHERE_MS);
});

const isFollowed = (where) => JSON.stringify(where) === JSON.stringify(feed?.where ?? []);

/** Lets the server check other conditions; those that it does not take change nothing. */
async function askFor(where) {
    const turn = ++feedTurn;
    const complaint = where.length ? await complaintOf(access.address, where) : undefined;
    if (turn !== feedTurn) return;
    $('filter-error').textContent = complaint ?? '';
    if (complaint) return;
    follow(where);
    forget();
    filter();
}

/** Goes through what is there a part of a frame at a time; what comes meanwhile is looked at as it comes. */
async function filter() {
    const typed = $('filter').value.trim();
    const { where, text } = readFilter(typed);
    if (feed) {
        putInFragment(place.name, { room: place.room, filter: typed, replace: true });
        for (const id of ['brand', 'to-console', 'to-chat']) $(id).hash = location.hash;
        if (!isFollowed(where)) return askFor(where);
        feedTurn++; // what the server is asked about was not meant
        $('filter-error').textContent = '';
    }
    const turn = ++filterTurn;
    const pattern = new RegExp(text.replace(/[.*+?^${}()|[\]\\]/g, '\\$&'), 'i');
    const isIn = (entry) => {
        if (pattern.test(entry.text) || pattern.test(`#${entry.ts} ${entry.query} ${entry.from} ${requestText(entry)}`)) return true;
        if (Object.entries(headersOf(entry)).some((header) => pattern.test(header.join(': ')))) return true;
        const { sender, event } = describe(entry);
        return pattern.test(`${sender} ${event}`);
    };
    matches = text ? isIn : undefined;
    if (matches && feed) {
        shown = [];
        isFiltering = true;
        const found = [];
        let began = performance.now();
        for (const entry of feed.entries.slice()) {
            if (isIn(entry)) found.push(entry);
            if (performance.now() - began < FILTER_MS) continue;
            await new Promise(requestAnimationFrame);
            if (turn !== filterTurn) return;
            began = performance.now();
        }
        shown = found.concat(shown);
    } else {
        shown = feed?.entries ?? [];
    }
    isFiltering = false;
    list.show(shown, true);
    showEmpty();
    if (feed) showKept();
}

// ---------------------------------------------------------------------------------------------- one update

const isWide = () => matchMedia('(min-width: 800px)').matches;

function open(entry, isOpening) {
    const { sendAddress: address, maySend, mayDelete } = access;
    const may = { again: maySend ? again : undefined, remove: mayDelete ? ({ ts }) => askToDelete(ts) : undefined };
    showDetail($('detail'), entry, { address, ...may, back: closeDetail, first: firstOf(entry) });
    $('detail').hidden = false;
    if (isOpening) setReading(true);
    if (isOpening && !isWide()) $('detail').focus();
}

/** What leads to the update whose delivery came once more with this one; undefined where it is not here. */
function firstOf({ number, same_as: ts }) {
    const find = () => feed.entries.findLast((entry) => entry.ts === ts && entry.number < number);
    if (!ts || !find()) return undefined;
    return () => {
        const first = find();
        if (!first) return notice(`#${ts} is no longer here.`);
        if (!shown.includes(first)) {
            $('filter').value = readFilter($('filter').value).whereText;
            filter();
        }
        list.goTo(first);
    };
}

function closeDetail() {
    const wasReading = document.body.classList.contains('reading');
    setReading(false);
    if (!list.selected) $('detail').hidden = true;
    if (wasReading && !isWide()) $('list').focus();
}

/** On a narrow screen an open update covers all else, which then takes no focus. */
function setReading(isReading) {
    document.body.classList.toggle('reading', isReading);
    for (const node of document.querySelectorAll('.bar, .skip, main > :not(.inbox), .inbox > :not(.panes), #list')) node.inert = isReading && !isWide();
}

matchMedia('(min-width: 800px)').addEventListener('change', () => setReading(document.body.classList.contains('reading')));
addEventListener('keydown', (event) => event.key === 'Escape' && !deletion.isOpen && closeDetail());

/** Sends an update once more. */
async function again(entry, button) {
    try {
        await push(requestOf(entry), button);
    } catch (error) {
        notice(`#${entry.ts} was not sent again: ${error.message}`);
    }
}

// ---------------------------------------------------------------------------------------------- deleting

$('delete-all').addEventListener('click', () => askToDelete());

/** Asks whether to delete all updates, or those up to an id. */
function askToDelete(upto) {
    deletion.ask(access.address, { upto, total: feed.total });
}

/** They are gone from the server, all up to this id; `address` is what was asked about. */
function deleted(address, gone) {
    if (!feed || address !== access.address) return;
    feed.drop(gone);
    forget();
    seen = feed.entries.at(-1)?.number ?? 0;
    filter();
    tell(feed.hasAny ? `All updates up to #${gone} are deleted` : 'All updates are deleted');
    refused.ask();
    consumers.ask();
    $('inbox').focus();
}

// ---------------------------------------------------------------------------------------------- sending

/** Pushes, and says on the button how it went. Throws what went wrong. */
async function push({ method = 'POST', path = '', body, headers, query }, button) {
    if (button.ariaBusy === 'true') return;
    button.ariaBusy = 'true';
    try {
        const init = { method, headers, body, signal: AbortSignal.timeout(PUSH_MS) };
        const response = await fetch(addressWithQuery(access.sendAddress + path, query), init);
        const text = await response.text();
        if (!response.ok) throw new Error(descriptionIn(text) ?? `The server answered ${response.status}`);
        const known = response.headers.get('X-Duplicate');
        flash(button, known ? `Already there as #${known}` : `Sent as #${response.headers.get('X-Total-Updates')}`);
    } catch (error) {
        flash(button, 'Not sent');
        refused.ask();
        throw error;
    } finally {
        button.ariaBusy = null;
    }
}

function descriptionIn(text) {
    try {
        return JSON.parse(text).error_description;
    } catch {}
}

$('send-form').addEventListener('submit', async (event) => {
    event.preventDefault();
    $('send-error').textContent = '';
    try {
        const headers = { 'Content-Type': $('send-type').value };
        await push({ body: $('send-body').value, headers, query: $('send-query').value.replace(/^\?/, '') }, event.submitter);
    } catch (error) {
        $('send-error').textContent = error.message;
    }
});
$('send-body').addEventListener('keydown', (event) => {
    if (event.key === 'Enter' && (event.ctrlKey || event.metaKey)) $('send-form').requestSubmit($('send-form').querySelector('button'));
});
$('send-test').addEventListener('click', async ({ currentTarget }) => {
    try {
        await push({ body: '{"hello":"world","from":"the console"}', headers: { 'Content-Type': 'application/json' } }, currentTarget);
    } catch (error) {
        notice(`The test update was not sent: ${error.message}`);
    }
});

// ---------------------------------------------------------------------------------------------- connecting senders

const tabs = snippetsFor({}).map(({ title }, index) => {
    const tab = element('button', { type: 'button', role: 'tab', id: `tab-${index}`, onclick: () => selectTab(index) }, title);
    tab.setAttribute('aria-controls', 'tab');
    $('tabs').append(tab);
    return tab;
});

function selectTab(selected) {
    selected = tabs[selected] ? selected : 0;
    tabs.forEach((tab, index) => {
        tab.setAttribute('aria-selected', index === selected);
        tab.tabIndex = index === selected ? 0 : -1;
    });
    const { note, code } = snippetsFor(access)[selected];
    $('tab').setAttribute('aria-labelledby', tabs[selected].id);
    $('tab-note').textContent = note;
    $('tab-code').textContent = code;
    memory.set('tab', selected);
}

$('tabs').addEventListener('keydown', (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    const index = (tabs.indexOf(document.activeElement) + step + tabs.length) % tabs.length;
    selectTab(index);
    tabs[index].focus();
});

for (const [button, source] of [['copy-address', 'address'], ['copy-code', 'tab-code']]) {
    $(button).addEventListener('click', ({ currentTarget }) => copy($(source).textContent, currentTarget));
}

async function copy(text, button) {
    try {
        await copyText(text);
        flash(button, 'Copied');
    } catch (error) {
        flash(button, error.message);
    }
}

begin();
