// The chat: the page at /-/chat. A message is an update {name, text} or {name, text, room}; the rooms of a channel are
// those that its messages name, and "main", where the messages without a room are. The shell's chat (examples/chat)
// speaks the same.

import { Channel } from './longline.js';
import { accessOf, memory, nameInFragment, ownName, putInFragment } from './channel.js';
import { connectionLine } from './connection.js';
import { Feed } from './feed.js';
import { copyText, element, failureText, flash, isUnreached, linked, oneLine, timeText, visible } from './text.js';

const MAIN = 'main';
const MESSAGES_MAX = 500; // of a room, kept and in the document
const ROOMS_MAX = 100;
const TEXT_MAX = 4000; // characters shown of a message
const NAME_MAX = 40;
const PUSH_MS = 20_000;

const $ = (id) => document.getElementById(id);

let name; // of the channel
let channel;
let access; // what its name may do
let feed;
let here = MAIN;
let rooms; // name → {messages, unread, item, link, count}, those that have been silent longest first

const showLine = connectionLine(() => feed?.start());

let isUnsent = false; // the error is that no server was there, and the message stands where it was typed
let wasAway = false; // as the page has said since

function showState(state, ...more) {
    showLine(state, ...more);
    if (state === 'waiting') wasAway = true;
    if (state !== 'live') return;
    if (isUnsent && wasAway) $('error').textContent = '';
    wasAway = false;
}

function begin() {
    let fragment;
    try {
        fragment = nameInFragment();
    } catch (error) {
        stop();
        showState('stopped', `The address of this page names no channel: ${error.message}`);
        $('retry').hidden = true;
        return;
    }
    const isOther = fragment.name !== name || !name;
    here = oneLine(fragment.room ?? '', NAME_MAX) || MAIN;
    if (isOther) {
        name = fragment.name || ownName();
        putInFragment(name, { room: fragment.room, replace: true });
        access = accessOf(name);
        for (const id of ['brand', 'to-console', 'to-chat']) $(id).hash = encodeURIComponent(name);
    }
    if (!access.mayRead) {
        stop();
        showState('idle', 'This address only sends. For a chat, ask for the link to it: it has r_ or v_ after the #.');
        return;
    }
    $('talk').hidden = false;
    if (isOther) {
        $('why-not').hidden = access.maySend;
        for (const id of ['new-room', 'name', 'text', 'say']) $(id).hidden = !access.maySend;
        rooms = new Map();
        roomOf(MAIN);
        feed?.close();
        channel = new Channel(access.address);
        feed = new Feed(access.address, { change, state: showState, notice }, { first: 1000 });
        feed.start();
    }
    showRoom();
}

/** Shows no channel, and polls none. */
function stop() {
    feed?.close();
    name = undefined;
    $('talk').hidden = $('new-room').hidden = true;
    $('rooms').replaceChildren();
}

function roomOf(title) {
    const room = rooms.get(title) ?? makeRoom(title);
    rooms.delete(title);
    rooms.set(title, room);
    if (rooms.size > ROOMS_MAX) rooms.delete([...rooms.keys()].find((other) => other !== MAIN && other !== here));
    return room;
}

function makeRoom(title) {
    const count = element('span', { className: 'count' });
    const link = element('a', { href: `#${encodeURIComponent(name)}${title === MAIN ? '' : `/${encodeURIComponent(title)}`}` }, title);
    return { messages: [], unread: 0, item: element('li', {}, link), link, count };
}

// ---------------------------------------------------------------------------------------------- messages

function change() {
    const added = feed.take();
    const box = $('messages');
    const isHistory = !box.childElementCount || Boolean(box.querySelector('.quiet'));
    const fresh = document.createDocumentFragment();
    for (const entry of added) {
        const message = messageIn(entry);
        if (!message) continue;
        const room = roomOf(message.room);
        room.messages.push(message);
        if (room.messages.length > MESSAGES_MAX) room.messages.shift();
        if (message.room === here) fresh.append(drawMessage(message));
        else if (!(entry.ts <= feed.history)) room.unread++;
    }
    if (fresh.childElementCount) {
        box.ariaLive = isHistory ? 'off' : 'polite'; // old messages are not read out
        box.querySelector('.quiet')?.remove();
        const isMine = fresh.lastElementChild.classList.contains('mine');
        box.append(fresh);
        while (box.childElementCount > MESSAGES_MAX) box.firstElementChild.remove();
        if (isAtEnd || isMine || isHistory) goToEnd();
        else $('to-end').hidden = false;
        lastEnd = endOf(box);
    }
    showQuiet();
    showRooms();
}

/** What there is to say of a room in which nothing has been said. */
function showQuiet() {
    const box = $('messages');
    if (box.querySelector('.message')) return;
    const text = feed.isLoaded
        ? 'Nobody has said anything here yet. Copy the link to this chat and send it to somebody: it opens the same rooms, old messages and all.'
        : 'Loading…';
    const line = box.querySelector('.quiet') ?? element('p', { className: 'quiet' });
    line.textContent = text;
    box.append(line);
}

/** What the feed has to say of itself: messages are missing, or the channel began anew. */
function notice(text) {
    const box = $('messages');
    box.append(element('p', { className: 'notice' }, text));
    if (isAtEnd) goToEnd();
    lastEnd = endOf(box);
}

/** What an update says, when it is a message. */
function messageIn(entry) {
    const update = entry.update;
    if (!update || typeof update !== 'object' || typeof update.text !== 'string') return undefined;
    const own = (member) => (Object.hasOwn(update, member) && typeof update[member] === 'string' ? oneLine(update[member], NAME_MAX) : '');
    return { at: entry.at, name: own('name') || 'somebody', room: own('room') || MAIN, length: update.text.length, text: copyOf(update.text.slice(0, TEXT_MAX)) };
}

/** A piece of a string keeps the whole of it; its copy does not. */
const copyOf = structuredClone;

function drawMessage({ at, name, text, length }) {
    const cut = text + (length > TEXT_MAX ? ` … (${length.toLocaleString()} characters)` : '');
    const isMine = name === $('name').value.trim();
    return element('div', { className: isMine ? 'message mine' : 'message' }, element('b', {}, name), element('time', {}, timeText(at)), element('p', {}, ...linked(cut)));
}

let isAtEnd = true; // whether the reader sees the newest message, or did until something took room
let lastEnd = 0; // where the end was when that was known

const endOf = (box) => box.scrollHeight - box.clientHeight;

function goToEnd() {
    const box = $('messages');
    isAtEnd = true;
    box.scrollTop = lastEnd = endOf(box);
    $('to-end').hidden = true;
}

/** What the reader scrolled in may have less room by now: where the end was counts as well. */
function lookWhere() {
    const box = $('messages');
    isAtEnd = box.scrollTop > Math.min(lastEnd, endOf(box)) - 40;
    if (isAtEnd) $('to-end').hidden = true;
}

$('messages').addEventListener('scroll', lookWhere);
$('to-end').addEventListener('click', goToEnd);
// An error, or a keyboard that comes up, takes room: the newest message stays in view.
new ResizeObserver(([{ target }]) => {
    if (!isAtEnd) lookWhere();
    if (isAtEnd) goToEnd();
    lastEnd = endOf(target);
}).observe($('messages'));

// ---------------------------------------------------------------------------------------------- rooms

function showRoom() {
    const room = roomOf(here);
    room.unread = 0;
    $('room-title').textContent = here;
    const box = $('messages');
    box.ariaLive = 'off';
    box.replaceChildren(...room.messages.map(drawMessage));
    showQuiet();
    goToEnd();
    showRooms();
}

/** The links stay what they are, for who is about to click one. */
function showRooms() {
    const titles = [...rooms.keys()].sort((a, b) => (b === MAIN) - (a === MAIN) || a.localeCompare(b));
    const items = titles.map((title) => {
        const { item, link, count, unread } = rooms.get(title);
        if (title === here) link.setAttribute('aria-current', 'true');
        else link.removeAttribute('aria-current');
        count.textContent = unread;
        count.ariaLabel = `${unread} unread`;
        if (unread) link.append(count);
        else count.remove();
        return item;
    });
    const { children } = $('rooms');
    if (children.length !== items.length || items.some((item, index) => children[index] !== item)) $('rooms').replaceChildren(...items);
    const unread = [...rooms.values()].reduce((sum, room) => sum + room.unread, 0);
    document.title = unread ? `(${unread}) Chat · longline` : 'Chat · longline';
}

$('new-room').addEventListener('submit', (event) => {
    event.preventDefault();
    const title = oneLine($('room-name').value.trim(), NAME_MAX);
    $('room-name').value = '';
    if (!title) return;
    putInFragment(name, { room: title === MAIN ? undefined : title });
    begin();
    $('text').focus();
});
addEventListener('hashchange', begin);

// ---------------------------------------------------------------------------------------------- saying something

$('name').value = memory.get('name') ?? '';
$('name').addEventListener('change', () => memory.set('name', $('name').value.trim()));

$('composer').addEventListener('submit', async (event) => {
    event.preventDefault();
    const message = { name: $('name').value.trim(), text: $('text').value.trim(), ...(here !== MAIN && { room: here }) };
    if (!message.name || !message.text) return;
    memory.set('name', message.name);
    const said = $('text').value;
    const place = location.hash;
    $('text').value = $('error').textContent = '';
    try {
        await channel.push(message, { signal: AbortSignal.timeout(PUSH_MS) });
    } catch (error) {
        const isFree = !$('text').value && location.hash === place; // what is typed in another room would be said there
        $('error').textContent = `Not sent${isFree ? '' : ` (“${said}”)`}: ${failureText(error)}`;
        isUnsent = isFree && isUnreached(error);
        if (isFree) $('text').value = said;
    }
});

$('invite').addEventListener('click', async ({ currentTarget }) => {
    try {
        await copyText(location.href);
        flash(currentTarget, 'Copied');
    } catch (error) {
        flash(currentTarget, error.message);
    }
});

begin();
