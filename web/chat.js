// The chat: the page at /-/chat. A message is an update {name, text} or {name, text, room}; the rooms of a channel are
// those that its messages name, and "main", where the messages without a room are. The shell's chat (examples/chat)
// speaks the same.

import { Channel } from './longline.js';
import { addressOf, freshName, memory, nameInFragment, putInFragment } from './channel.js';
import { connectionLine } from './connection.js';
import { Feed } from './feed.js';
import { copyText, element, flash, oneLine, timeText, visible } from './text.js';

const MAIN = 'main';
const MESSAGES_MAX = 500; // of a room, kept and in the document
const ROOMS_MAX = 100;
const TEXT_MAX = 4000; // characters shown of a message
const NAME_MAX = 40;

const $ = (id) => document.getElementById(id);

let name; // of the channel
let channel;
let feed;
let here = MAIN;
let rooms; // name → {messages, unread}
let seen; // the number of the newest entry that has been read

const showState = connectionLine(() => feed?.start());

function begin() {
    let fragment;
    try {
        fragment = nameInFragment();
    } catch (error) {
        feed?.close();
        name = undefined;
        $('talk').hidden = $('new-room').hidden = true;
        $('rooms').replaceChildren();
        showState('stopped', `The address of this page names no channel: ${error.message}`);
        $('retry').hidden = true;
        return;
    }
    $('talk').hidden = $('new-room').hidden = false;
    const isOther = fragment.name !== name || !name;
    here = oneLine(fragment.room ?? '', NAME_MAX) || MAIN;
    if (isOther) {
        name = fragment.name || memory.get('channel') || freshName();
        putInFragment(name, { room: fragment.room, replace: true });
        memory.set('channel', name);
        rooms = new Map([[MAIN, { messages: [], unread: 0 }]]);
        seen = 0;
        feed?.close();
        channel = new Channel(addressOf(name));
        feed = new Feed(addressOf(name), { change, state: showState, notice: () => {} });
        feed.start();
    }
    for (const id of ['to-console', 'to-chat']) $(id).hash = encodeURIComponent(name);
    showRoom();
}

function roomOf(title) {
    if (!rooms.has(title) && rooms.size < ROOMS_MAX) rooms.set(title, { messages: [], unread: 0 });
    return rooms.get(title);
}

// ---------------------------------------------------------------------------------------------- messages

function change() {
    const { entries } = feed;
    const added = entries.slice(entries.findLastIndex((entry) => entry.number <= seen) + 1);
    if (!added.length) return;
    const isFirst = seen === 0;
    seen = entries.at(-1).number;
    const box = $('messages');
    const isAtEnd = box.scrollHeight - box.scrollTop - box.clientHeight < 40;
    const fresh = document.createDocumentFragment();
    for (const entry of added) {
        const message = messageIn(entry);
        const room = message && roomOf(message.room);
        if (!room) continue;
        room.messages.push(message);
        if (room.messages.length > MESSAGES_MAX) room.messages.shift();
        if (message.room === here) fresh.append(drawMessage(message));
        else if (!isFirst) room.unread++;
    }
    if (fresh.childElementCount) {
        box.querySelector('.quiet')?.remove();
        const isMine = fresh.lastElementChild.classList.contains('mine');
        box.append(fresh);
        while (box.childElementCount > MESSAGES_MAX) box.firstElementChild.remove();
        if (isAtEnd || isMine || isFirst) box.scrollTop = box.scrollHeight;
        else $('to-end').hidden = false;
    }
    showRooms();
}

/** What an update says, when it is a message. */
function messageIn(entry) {
    const update = entry.update;
    if (!update || typeof update !== 'object' || typeof update.text !== 'string') return undefined;
    const own = (member) => (Object.hasOwn(update, member) && typeof update[member] === 'string' ? oneLine(update[member], NAME_MAX) : '');
    return { at: entry.at, name: own('name') || 'somebody', room: own('room') || MAIN, text: update.text };
}

function drawMessage({ at, name, text }) {
    const cut = text.length > TEXT_MAX ? `${visible(text.slice(0, TEXT_MAX))} … (${text.length.toLocaleString()} characters)` : visible(text);
    const isMine = name === $('name').value.trim();
    return element('div', { className: isMine ? 'message mine' : 'message' }, element('b', {}, name), element('time', {}, timeText(at)), element('p', {}, cut));
}

$('messages').addEventListener('scroll', ({ currentTarget: box }) => {
    if (box.scrollHeight - box.scrollTop - box.clientHeight < 40) $('to-end').hidden = true;
});
$('to-end').addEventListener('click', () => ($('messages').scrollTop = $('messages').scrollHeight));

// ---------------------------------------------------------------------------------------------- rooms

function showRoom() {
    const room = roomOf(here) ?? { messages: [], unread: 0 };
    room.unread = 0;
    $('room-title').textContent = here;
    $('to-end').hidden = true;
    const box = $('messages');
    box.replaceChildren(...room.messages.map(drawMessage));
    if (!room.messages.length) box.append(element('p', { className: 'quiet' }, 'Nobody has said anything here yet. Copy the link to this chat and send it to somebody: it opens the same rooms, old messages and all.'));
    box.scrollTop = box.scrollHeight;
    showRooms();
}

function showRooms() {
    const titles = [...rooms.keys()].sort((a, b) => (b === MAIN) - (a === MAIN) || a.localeCompare(b));
    const focused = document.activeElement.closest('#rooms a')?.hash;
    $('rooms').replaceChildren(
        ...titles.map((title) => {
            const link = element('a', { href: `#${encodeURIComponent(name)}${title === MAIN ? '' : `/${encodeURIComponent(title)}`}` }, title);
            if (title === here) link.setAttribute('aria-current', 'true');
            const { unread } = rooms.get(title);
            if (unread) link.append(element('span', { className: 'count', ariaLabel: `${unread} unread` }, String(unread)));
            return element('li', {}, link);
        }),
    );
    if (focused) [...$('rooms').querySelectorAll('a')].find((link) => link.hash === focused)?.focus();
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
    $('text').value = $('error').textContent = '';
    try {
        await channel.push(message);
    } catch (error) {
        $('error').textContent = `Not sent: ${error.description ?? error.message}`;
        $('text').value ||= said;
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
