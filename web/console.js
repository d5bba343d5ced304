// The console: the page at /. It wires the parts together; see feed.js for what comes in, list.js and detail.js for how
// it is shown.

import { accessOf, fragmentOf, freshName, memory, nameFrom, nameInFragment, ownName, putInFragment, rememberName, root } from './channel.js';
import { ChannelBar } from './channel_bar.js';
import { Channels } from './channels.js';
import { Comparison } from './compare.js';
import { connectionLine } from './connection.js';
import { Consumers } from './consumers.js';
import { describe, requestText } from './describe.js';
import { Deletion } from './deletion.js';
import { showDetail } from './detail.js';
import { Downloads } from './download.js';
import { Feed } from './feed.js';
import { complaintOf, readFilter } from './filter.js';
import { Follow } from './follow.js';
import { onKeys } from './keyboard.js';
import { List } from './list.js';
import { Notifier } from './notifier.js';
import { Refused } from './refused.js';
import { Resend } from './resend.js';
import { Search } from './search.js';
import { Sending } from './sending.js';
import { Snippets } from './snippets.js';
import { copyText, durationText, element, failureText, flash, plural } from './text.js';
import { markDay, timeOf } from './times.js';

const TYPING_MS = 120; // from the last key to the filter
const TYPING_WHERE_MS = 500; // which asks the server
const PLACE_MS = 200; // from the last key in the list to the page's address
const SAY_MS = 3000; // from one spoken line about new updates to the next

const HINTS = {
    '': 'Whatever is sent to it by POST is kept on this server and shows below at once. It is also the key: who knows it can read and send, so keep it to yourself.',
    r_: 'Whatever is sent to it by POST is kept on this server and shows below at once. It only sends. The key, which also reads and deletes, is in the address of this page: keep that to yourself. Who opens the reading link sees all of this, and can delete nothing.',
    v_: 'Whatever is sent to it by POST is kept on this server and shows below at once. You have opened a reading link: this page shows everything, and neither sends nor deletes.',
    w_: 'This address only sends: what has come to it cannot be read with it. Open the reading link, or the page with the key: #v_… or #r_… in its address. Who made this address has them.',
};

const $ = (id) => document.getElementById(id);

let place; // {name, room, filter, id}, as in the fragment
let access; // what the channel's name may do; undefined: the page shows none
let feed;
let feedTurn = 0;
let search;
let shown = []; // what of the feed the filter lets through
let seen = 0; // the number of the newest entry that the list has
let isOpened = false; // whether what was there has been shown
let olderError; // what went wrong with bringing older ones; undefined: nothing
let idBefore; // what was open by its address, before another filter
let isSettled = true; // whether what is open is one of what is shown, as far as that is needed
let isAsking = false; // the server, about other conditions: what is shown is not what is meant
let opening; // the id that is asked for, to be opened
let unsaid = 0; // updates that no spoken line has told
let saidAt = -SAY_MS;

const list = new List($('list'), { fill: fillRow, select: open, end: showOlder, mark: (row, { at }, above) => markDay(row.querySelector('time'), at, above?.at) });
const tell = (text) => ($('said').textContent = text);
const refused = new Refused($('refused'), tell);
const consumers = new Consumers($('consumers'), tell);
const deletion = new Deletion($('deletion'), deleted);
const following = new Follow($('follow'), showNewest);
const channels = new Channels({ change: () => bar.show(), came: (name) => notifier.came(name), isAway: () => feed?.state === 'waiting', waits: () => document.hidden && notifier.isOn });
const bar = new ChannelBar(channels);
const notifier = new Notifier($('notify'), channels, { tell: notice, open: (name, id) => (location.hash = fragmentOf(name, { id })) });
const downloads = new Downloads($('downloads'));
const comparison = new Comparison($('compare'), () => {
    if (!list.selected) return;
    open(list.selected, 'shown');
    $('detail').querySelector('.compare')?.focus(); // it had the focus, under another name
});
const resend = new Resend($('resend'));
const snippets = new Snippets();
const sending = new Sending({ access: () => access, notice, failed: () => refused.ask() });

// ---------------------------------------------------------------------------------------------- which channel

function begin() {
    let name;
    let room;
    let typed;
    let id;
    try {
        ({ name, room, filter: typed = '', id } = nameInFragment());
    } catch (error) {
        stopAt(`The address of this page names no channel: ${error.message}`);
        return;
    }
    if (!name) {
        name = ownName();
        putInFragment(name, { replace: true });
    }
    if (feed && place.name === name && place.filter === typed) {
        place.room = room;
        return goTo(id);
    }
    access = accessOf(name);
    place = { name, room, filter: typed, id };
    showAccess();
    const isKept = channels.show(access.mayRead ? name : undefined);
    if (!access.mayRead) {
        stopReading();
        showState('idle', 'This address only sends');
        return;
    }
    comparison.marked = undefined;
    $('filter').value = typed;
    reset();
    if (!isKept) notice('This browser keeps no more channels, so not this one either. Forget one of them first.');
    follow(readFilter($('filter').value));
    filter();
    refused.watch(access.address);
    consumers.watch(access);
}

/** Begins to read the channel, or those of its updates that meet conditions. */
function follow({ where, since }) {
    feedTurn++;
    feed?.close();
    feed = new Feed(access.address, { change, state: showState, notice }, { where, since, dozes: () => !notifier.isOn });
    feed.start();
}

/** An address that names no channel: nothing is polled. */
function stopAt(text) {
    access = undefined;
    showAccess();
    channels.show();
    stopReading();
    showState('stopped', text);
    $('retry').hidden = true;
}

function stopReading() {
    feedTurn++;
    feed?.close();
    feed = undefined;
    refused.watch(undefined);
    consumers.watch(undefined);
    reset();
}

/** What is shown of the page, and what it says of the address, by what its name may do. */
function showAccess() {
    const { kind, mayRead, maySend, readName } = access ?? {};
    for (const dialog of document.querySelectorAll('dialog[open]')) dialog.close(); // they are about another channel
    for (const id of ['copy-address', 'connect']) $(id).hidden = !access;
    $('send').hidden = !maySend;
    $('send-test').hidden = !maySend;
    $('inbox').hidden = $('skip').hidden = !mayRead;
    $('reading-link').hidden = !readName;
    $('address').textContent = access?.sendAddress ?? '–';
    $('address-hint').textContent = access ? HINTS[kind] : '';
    if (!access) return;
    if (!mayRead) $('send').open = true;
    snippets.show(access);
    for (const id of ['brand', 'to-console', 'to-chat']) $(id).hash = location.hash;
}

function reset() {
    $('notices').replaceChildren();
    $('filter-error').textContent = '';
    $('connect').open = isWide(); // on a phone, what to do comes first
    forget();
}

/** Shows none of what has come. */
function forget() {
    search?.close(); // what is looked through is another channel's
    search = olderError = undefined;
    shown = [];
    seen = 0;
    isOpened = isAsking = false;
    isSettled = true;
    unsaid = 0;
    $('kept').textContent = '';
    $('delete-all').hidden = $('download-all').hidden = true;
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
let wasAway = false; // the server, since the page was last live

function showState(state, ...more) {
    showLine(state, ...more);
    if (state === 'stopped' && feed?.isNarrowed) [$('filter-error').textContent] = more;
    if (state === 'waiting') wasAway = true;
    if (state === 'live') {
        if (wasAway) {
            sending.serverIsBack();
            if (search && lookError()) lookBack();
            if (search?.isOn) olderError = undefined; // the next look at the list's end asks again
        }
        wasAway = false;
    }
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
    if (newest > seen) {
        const added = entries.slice(entries.findLastIndex((entry) => entry.number <= seen) + 1);
        announce(added);
        seen = newest;
        search.add(added);
    }
    channels.came(0, feed.total);
    refresh();
    following.came(shown.at(-1));
}

/** Shows what there is now; `isOther`: all is another list. */
function refresh(isOther = false) {
    const isFirst = !isOpened && feed.isLoaded && seen > 0;
    shown = search.items;
    // Until all that was there is here, the newest is not known: the reader sees the top.
    list.show(shown, isOther || (!isOpened && !list.selected));
    if (isFirst) showFirst();
    if (search.upto === undefined) search.lookBack(); // it began before all was here
    settle();
    showEmpty();
    showKept();
    if (!shown.length) showOlder();
}

/** What was there has come, or the first of all. */
function showFirst() {
    isOpened = true;
    const isUsed = $('connect').matches(':hover') || $('connect').contains(document.activeElement);
    if (!isUsed) $('connect').open = false;
    if (place.id) goTo(place.id);
    else if (!shown.length) isSettled = false; // what is looked for may still come
    else if (isWide() && !list.selected) list.select(shown.at(-1));
}

/** After another filter, what is open is one of what it lets through. */
function settle() {
    if (isSettled || !isOpened || isAsking) return;
    if (list.selected && list.has(list.selected.number)) {
        isSettled = true;
        if (idBefore === list.selected.ts) putPlace({ replace: true, id: idBefore });
    } else if (!search.hasLooked) {
        // It may still be found.
    } else if (shown.length && isWide()) {
        isSettled = true;
        list.select(shown.at(-1));
    } else {
        list.selected = undefined;
        closeDetail();
    }
}

/** The end of the list is in view, or there is none. */
async function showOlder() {
    if (!search || search.isOn) return;
    const mine = feed;
    let error;
    try {
        await feed.loadOlder();
    } catch (reason) {
        error = failureText(reason);
    }
    if (mine !== feed || error === olderError) return;
    olderError = error;
    showEmpty();
    showKept();
}

function announce(entries) {
    const added = entries.filter(({ ts }) => !(ts <= feed.history));
    if (!added.length) return;
    channels.came(added.length, feed.total);
    notifier.came(place.name, added.at(-1).ts);
    if (!unsaid) setTimeout(say, saidAt + SAY_MS - performance.now());
    unsaid += added.length;
}

function say() {
    if (unsaid) $('said').textContent = `${plural(unsaid, 'update')} came`;
    saidAt = performance.now();
    unsaid = 0;
}

function showEmpty() {
    const isLooking = feed && ((!feed.isLoaded && seen === 0) || (!shown.length && (!search || search.isLooking || (!olderError && !search.isOn && feed.where.length > 0 && feed.mayHave()))));
    const isFiltered = shown.length === 0 && feed?.total > 0 && (search?.isOn || feed.isNarrowed);
    const hadFocus = $('empty').contains(document.activeElement);
    $('empty').hidden = shown.length > 0;
    $('list').hidden = shown.length === 0;
    if (hadFocus && shown.length) $('list').focus();
    if (feed?.isLoaded && !feed.total) refused.open();
    $('empty').dataset.filtered = isFiltered || isLooking;
    // The panes keep their height while one filters.
    $('panes').dataset.filled = shown.length > 0 || isFiltered;
    document.body.classList.toggle('used', isOpened);
    const empty = !feed?.total ? 'Nothing has come yet' : feed.hasAny ? 'Nothing is kept any more of what has come' : 'All updates are deleted';
    $('empty-title').textContent = isLooking ? (isFiltered || feed.isNarrowed ? 'Looking…' : 'Loading…') : isFiltered ? noneText() : empty;
}

/** What there is to say where the filter lets nothing through. */
function noneText() {
    if (lookError()) return `Not all could be looked through: ${lookError()}`;
    if (!search.isOn) return 'No update meets that';
    return search.isComplete ? 'No update holds that' : `No update from #${(search.upto + 1).toLocaleString()} on holds that`;
}

function showKept() {
    const { total, keeps, entries } = feed;
    const parts = [];
    if (total !== undefined) parts.push(total ? `${plural(total, 'update')} so far` : 'No update so far');
    if (search.isOn || feed.isNarrowed) parts.push(`${shown.length.toLocaleString()} shown`);
    else if (entries.length && entries.length < total) parts.push(`the newest ${entries.length.toLocaleString()} are here`);
    if (olderError && !search.isOn) parts.push(`older ones did not come: ${olderError}`);
    if (search.isOn && search.upto !== undefined) parts.push(search.error ?? (search.isComplete ? 'all that is kept has been looked through' : `looked through down to #${(search.upto + 1).toLocaleString()}`));
    if (keeps) parts.push(`${parts.length ? 'this' : 'This'} server keeps the last ${keeps.updates.toLocaleString()} of an address, for ${durationText(keeps.seconds)}`);
    $('kept').textContent = parts.length ? `${parts.join('; ')}.` : '';
    $('look-back').hidden = !lookError() && (!search.isOn || search.isLooking || search.isComplete || !feed.isLoaded);
    $('look-back').textContent = lookError() ? 'Try again' : 'Look further back';
    $('delete-all').hidden = !access.mayDelete || !feed.hasAny;
    $('download-all').hidden = !feed.hasAny;
}

const lookError = () => (search.isOn ? search.error : olderError);
function lookBack() {
    if (document.activeElement === $('look-back')) $($('list').hidden ? 'filter' : 'list').focus(); // the button goes
    return search.isOn ? search.lookBack() : showOlder();
}

$('look-back').addEventListener('click', lookBack);
$('download-all').addEventListener('click', () => {
    const { total, epoch, version = '' } = feed;
    downloads.ask(access, { typed: place.filter, what: readFilter(place.filter), total, epoch, version });
});

function fillRow(row, entry) {
    const { sender, event, preview } = describe(entry);
    const title = [sender, event].filter(Boolean).join(' · ');
    const request = title && entry.method === 'POST' && !entry.path ? '' : requestText(entry);
    row.append(
        element('span', { className: 'id' }, `#${entry.ts}`),
        element('span', {}, ...(entry.same_as ? [element('span', { className: 'tag' }, 'again'), ' '] : []), element('strong', {}, title || request), title && request ? ` ${request}` : ''),
        timeOf(entry.at),
        element('span', { className: 'preview' }, preview),
    );
}

let filterTimer;
$('filter').addEventListener('input', () => {
    clearTimeout(filterTimer);
    filterTimer = setTimeout(filter, isFollowed(readFilter($('filter').value)) ? TYPING_MS : TYPING_WHERE_MS);
});

const isFollowed = ({ where, since }) => JSON.stringify([where, since]) === JSON.stringify([feed?.where ?? [], feed?.since]);

/** Lets the server check other conditions; those that it does not take change nothing. */
async function askFor(conditions) {
    const turn = ++feedTurn;
    isAsking = true;
    const complaint = conditions.whereText && (await complaintOf(access.address, conditions));
    if (turn !== feedTurn) return;
    isAsking = false;
    $('filter-error').textContent = complaint ?? '';
    if (complaint) return;
    follow(conditions);
    forget();
    filter();
}

/** Shows what the filter lets through, and lets the server check its conditions. */
function filter() {
    const typed = $('filter').value.trim();
    const conditions = readFilter(typed);
    if (!feed) return;
    if (typed !== place.filter) {
        place.filter = typed;
        idBefore = place.id;
        place.id = undefined;
        isSettled = false;
    }
    putPlace({ replace: true });
    if (!isFollowed(conditions)) return askFor(conditions);
    feedTurn++; // what the server is asked about was not meant
    isAsking = false;
    $('filter-error').textContent = '';
    search?.close();
    const mine = new Search(feed, conditions.text, () => mine === search && refresh());
    search = mine;
    search.run();
    refresh(true);
}

/** The page's address says what it shows; `id`: that this is open. */
function putPlace({ id = place.id, ...how }) {
    place.id = id;
    const { name, ...more } = place;
    putInFragment(name, { ...more, ...how });
    for (const id of ['brand', 'to-console', 'to-chat']) $(id).hash = fragmentOf(name, { ...more, id: '' });
}

// ---------------------------------------------------------------------------------------------- one update

const isWide = () => matchMedia('(min-width: 800px)').matches;

function open(entry, how) {
    const { sendAddress: address, maySend, mayDelete } = access;
    const isOther = comparison.marked !== undefined || feed.total > 1;
    const may = { compare: isOther ? compare : undefined, marked: comparison.marked, again: maySend ? (entry, button) => sending.again(entry, button) : undefined, elsewhere: (entry) => resend.ask(entry, access), remove: mayDelete ? ({ ts }) => askToDelete(ts) : undefined };
    showDetail($('detail'), entry, { address, ...may, back: leave, first: () => goTo(entry.same_as, () => (place.id = entry.ts)), link: linkTo(entry) });
    $('detail').hidden = false;
    if (how !== 'shown') {
        place.id = entry.ts;
        following.turned(entry.number === shown.at(-1)?.number);
    }
    if (how === 'chosen') putPlaceSoon();
    if (how === 'opened') {
        const isNew = !isWide() && !isReading();
        putPlace(isNew ? { state: { isOpen: true } } : { replace: true });
        setReading(true);
        if (!isWide()) $('detail').focus();
    }
}

/** Opens the newest, where there is room for it beside the list and nothing is about to be opened; false: the reader is busy with what is open. */
function showNewest(isAsked) {
    const newest = shown.at(-1);
    if (!newest || !isOpened || !isWide() || list.selected?.number === newest.number) return true;
    if (!isAsked && opening && opening === place.id) return true;
    const selection = getSelection();
    if (!isAsked && (document.querySelector('dialog[open]') || $('list').scrollTop > 0 || $('detail').contains(document.activeElement) || (!selection.isCollapsed && $('detail').contains(selection.anchorNode)))) return false;
    place.id = undefined;
    putPlaceSoon();
    list.goTo(newest, 'shown');
    return true;
}

/** With the one before it in the list, or next to it by its id. */
function compare(entry) {
    const before = shown.findLast(({ number }) => number < entry.number)?.ts ?? (entry.ts > 1 ? entry.ts - 1 : entry.ts + 1);
    const mine = feed;
    comparison.ask(entry, before, (id) => mine.get(id));
}

const isReading = () => document.body.classList.contains('reading');

/** A link to one update for who shall read only; undefined: there is none that does not also send and delete. */
function linkTo({ ts: id }) {
    const name = access.kind === 'v_' ? place.name : access.readName;
    return name && `${root.href}${fragmentOf(name, { id })}`;
}

let placeTimer;

/** Who goes through the list by keys goes through the addresses as well: browsers let a page change its own only so often. One that was asked for meanwhile stays. */
function putPlaceSoon() {
    const before = location.hash;
    clearTimeout(placeTimer);
    placeTimer = setTimeout(() => feed && location.hash === before && putPlace({ replace: true }), PLACE_MS);
}

/** Opens the update of this id; without one, none is open. missing() is called where it is not kept. */
async function goTo(id, missing = stayAtTheList) {
    place.id = id;
    if (!id) return closeDetail();
    if (!isOpened) return; // when all is here
    const held = feed.entries.findLast(({ ts }) => ts === id);
    if (held && !list.has(held.number)) {
        $('filter').value = readFilter($('filter').value).whereText;
        filter();
        isSettled = true;
    }
    if (held) return list.goTo(held);
    const turn = feedTurn;
    opening = id;
    try {
        const entry = await feed.one(id);
        if (turn !== feedTurn || place.id !== id) return;
        if (entry) return list.select(entry, 'opened');
        notice(`#${id} is not kept${id > feed.total ? '' : ' any more'}.`);
        missing();
    } catch (error) {
        if (turn === feedTurn) notice(`#${id} cannot be shown: ${failureText(error)}.`);
    } finally {
        if (opening === id) opening = undefined;
    }
}

function stayAtTheList() {
    place.id = undefined;
    putPlace({ replace: true });
    closeDetail();
}

/** Leaves the update that is open: as the browser's way back does, where that led to it. */
function leave() {
    const goesBack = history.state?.isOpen && isReading();
    closeDetail();
    if (goesBack) return history.back();
    place.id = undefined;
    putPlace({ replace: true });
}

function closeDetail() {
    const wasReading = isReading();
    setReading(false);
    if (!list.selected) $('detail').hidden = true;
    if (wasReading && !isWide()) $('list').focus();
}

/** On a narrow screen an open update covers all else, which then takes no focus. */
function setReading(isReading) {
    document.body.classList.toggle('reading', isReading);
    for (const node of document.querySelectorAll('.bar, .channels, .skip, main > :not(.inbox), .inbox > :not(.panes, .notices, .off-screen), #list')) node.inert = isReading && !isWide();
}

matchMedia('(min-width: 800px)').addEventListener('change', () => setReading(isReading()));

// ---------------------------------------------------------------------------------------------- keys

onKeys({
    '/': () => !isCovered() && ($('filter').focus(), $('filter').select(), true),
    j: () => step(1),
    k: () => step(-1),
    Enter: () => list.selected && shown.length > 0 && (list.select(list.selected, 'opened'), true),
    '?': () => ($('keys-help').showModal(), true),
    Escape: ({ target }) => {
        if (isCovered()) return leave(), true;
        if ($('detail').contains(target)) return $('list').focus(), true;
        if (target !== $('filter')) return false;
        $('filter').value = '';
        filter();
        if (shown.length) $('list').focus();
        return true;
    },
}, $('letter-keys'));

/** Whether an open update covers the list. */
const isCovered = () => isReading() && !isWide();

/** Goes to the next update in the list; where one covers it, that is opened in its place. */
function step(count) {
    if (!shown.length) return false;
    const covered = isCovered();
    list.step(count, covered ? 'opened' : 'chosen');
    if (!covered && !$('detail').contains(document.activeElement)) $('list').focus({ preventScroll: true });
    return true;
}

$('show-keys').addEventListener('click', () => $('keys-help').showModal());
$('keys-close').addEventListener('click', () => $('keys-help').close());

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
    if (place.id <= gone) place.id = undefined;
    forget();
    seen = feed.entries.at(-1)?.number ?? 0;
    filter();
    tell(feed.hasAny ? `All updates up to #${gone} are deleted` : 'All updates are deleted');
    refused.ask();
    consumers.ask();
    $('inbox').focus();
}

// ---------------------------------------------------------------------------------------------- copying

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
