// When something was: how long ago, told anew as time goes by, with the exact time behind it. One timer serves all.

import { element, timeText } from './text.js';

const TICK_MS = 10_000;
const DAY_MS = 86_400_000;
const UNITS = [['day', DAY_MS], ['hour', 3_600_000], ['minute', 60_000], ['second', 1000]];

const relative = new Intl.RelativeTimeFormat(undefined, { numeric: 'auto', style: 'short' });
const exact = new Intl.DateTimeFormat(undefined, { dateStyle: 'full', timeStyle: 'medium' });
const date = new Intl.DateTimeFormat(undefined, { weekday: 'short', month: 'short', day: 'numeric' });

/** "3 min. ago". Clocks may differ: nothing is to come. */
function agoText(at) {
    const ms = Math.max(0, Date.now() - at);
    const [unit, size] = UNITS.find(([, size]) => ms >= size) ?? UNITS.at(-1);
    // In steps, as the timer has them.
    return relative.format(-(unit === 'second' ? Math.floor(ms / TICK_MS) * (TICK_MS / 1000) : Math.floor(ms / size)), unit);
}

const isRecent = (at) => Date.now() - at < DAY_MS;

/** What a <time> in the list says: of what was a day ago or before, the date and the time. */
const briefText = (at) => (isRecent(at) ? agoText(at) : timeText(at));

/** A <time> that says when it was, for a line in the list, or how long ago. Upstream's updates have no time. */
export function timeOf(at, text = briefText) {
    if (!at) return element('time');
    const when = new Date(at);
    const node = element('time', { dateTime: when.toISOString(), title: exact.format(when), className: 'ago' }, text(at));
    node.say = () => text(at);
    return node;
}

/** Elements that say exactly when it was, and how long ago that is. */
export function whenOf(at) {
    return at ? [`${timeText(at)} (`, timeOf(at, agoText), ')'] : [];
}

/** Marks where in the list a day begins, from above: `newer` is the time of what stands over it, if there is anything. */
export function markDay(time, at, newer = Date.now()) {
    const isOther = at && new Date(at).toDateString() !== new Date(newer).toDateString();
    if (isOther) time.dataset.day = isRecent(at) ? date.format(new Date(at)) : '';
    else delete time.dataset.day;
}

function tick() {
    if (document.hidden) return;
    for (const node of document.querySelectorAll('time.ago')) {
        const text = node.say();
        if (node.textContent !== text) node.textContent = text;
    }
}

setInterval(tick, TICK_MS);
document.addEventListener('visibilitychange', tick);
