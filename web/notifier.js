// Notifications of the desktop, if the reader asks for them, of what comes while nobody sees the page: one for a burst,
// without an address or a body.

import { memory } from './channel.js';
import { titleOf } from './channels.js';
import { plural } from './text.js';

const GAP_MS = 1000; // from what came to the notification of it, and of what came since
const LINES = 5;
const NONE = 'This browser has no notifications for the page: they need https and, on a phone, an installed app.';

export class Notifier {
    #box;
    #tell;
    #channels;
    #open;
    #latest; // {name, id} of what came last; the id may not be known
    #timer;
    #shown;

    /** Minds a checkbox. tell(text) says why there are none; open(name, id) is called when the reader follows one. */
    constructor(box, channels, { tell, open }) {
        this.#box = box;
        this.#tell = tell;
        this.#channels = channels;
        this.#open = open;
        box.checked = memory.get('notify') === 'on' && globalThis.Notification?.permission === 'granted';
        box.addEventListener('change', () => this.#toggle());
        document.addEventListener('visibilitychange', () => document.hidden || this.#clear());
    }

    get isOn() {
        return this.#box.checked;
    }

    /** Something has come to a channel. */
    came(name, id) {
        if (!this.isOn || !document.hidden) return;
        this.#latest = { name, id };
        this.#timer ??= setTimeout(() => this.#show(), GAP_MS);
    }

    async #toggle() {
        memory.set('notify', '');
        if (!this.isOn) return this.#clear();
        this.#box.checked = false; // until they are allowed
        if (!isSecureContext || !globalThis.Notification) return this.#tell(NONE);
        const answer = await Notification.requestPermission();
        if (answer === 'denied') return this.#tell('The browser denies notifications to this page: its settings for this site allow them.');
        if (answer !== 'granted') return;
        this.#box.checked = true;
        memory.set('notify', 'on');
    }

    #show() {
        this.#timer = undefined;
        const unseen = this.#channels.all.filter((channel) => channel.unseen > 0);
        if (!this.isOn || !document.hidden || !unseen.length) return; // another tab has shown it
        const { name, id } = this.#latest;
        const count = unseen.reduce((sum, channel) => sum + channel.unseen, 0);
        const lines = unseen.slice(0, LINES).map((channel) => `${titleOf(channel)}: ${channel.unseen.toLocaleString()}`);
        try {
            this.#shown = new Notification(plural(count, 'new update'), { tag: 'longline', body: lines.join('\n'), icon: new URL('icon.svg', import.meta.url).href });
        } catch {
            this.#box.checked = false; // which some browsers only say now
            return this.#tell(NONE);
        }
        this.#shown.onclick = () => {
            focus();
            this.#clear();
            this.#open(name, id);
        };
    }

    #clear() {
        clearTimeout(this.#timer);
        this.#timer = undefined;
        this.#shown?.close();
    }
}
