// What to paste elsewhere so that updates come to an address, or from it: {title, note, code} for each sender or language.
// What sends gets the sending address, what reads gets the reading one; where there is none, nothing reads.

import { memory, root } from './channel.js';
import { element } from './text.js';

const $ = (id) => document.getElementById(id);

/** The tabs with them. The one that was looked at last is the first that is seen. */
export class Snippets {
    #access;
    #tabs;

    constructor() {
        this.#tabs = snippetsFor({}).map(({ title }, index) => {
            const tab = element('button', { type: 'button', role: 'tab', id: `tab-${index}`, onclick: () => this.#select(index) }, title);
            tab.setAttribute('aria-controls', 'tab');
            return tab;
        });
        $('tabs').append(...this.#tabs);
        $('tabs').addEventListener('keydown', ({ key }) => {
            const step = { ArrowRight: 1, ArrowLeft: -1 }[key];
            if (!step) return;
            const index = (this.#tabs.indexOf(document.activeElement) + step + this.#tabs.length) % this.#tabs.length;
            this.#select(index);
            this.#tabs[index].focus();
        });
    }

    /** Shows those of an access. */
    show(access) {
        this.#access = access;
        this.#select(Number(memory.get('tab')) || 0);
    }

    #select(selected) {
        selected = this.#tabs[selected] ? selected : 0;
        this.#tabs.forEach((tab, index) => {
            tab.setAttribute('aria-selected', index === selected);
            tab.tabIndex = index === selected ? 0 : -1;
        });
        const { note, code } = snippetsFor(this.#access)[selected];
        $('tab').setAttribute('aria-labelledby', this.#tabs[selected].id);
        $('tab-note').textContent = note;
        $('tab-code').textContent = code;
        memory.set('tab', selected);
    }
}

function snippetsFor({ sendAddress: address, readAddress }) {
    const ifRead = (code) => (readAddress ? code : '');
    const isPublic = root.protocol === 'https:' && !/^(localhost|127\.|\[::1\]|10\.|192\.168\.)/.test(root.host);
    const reach = isPublic ? '' : ' It must be able to reach this server: put it on the internet, with https, first.';
    return [
        {
            title: 'curl',
            note: `Push an update.${ifRead(' Then read what has come; where nothing has, the answer waits for it, up to 25 seconds.')}`,
            code: `curl -d '{"hello":"world"}' '${address}'${ifRead(`\ncurl '${readAddress}?ts=0&sleep=25'`)}`,
        },
        {
            title: 'Telegram',
            note: `Telegram then sends every message to your bot here; ?appname tells several bots apart.${reach}`,
            code: `curl "https://api.telegram.org/bot$TOKEN/setWebhook" \\\n  --data-urlencode 'url=${address}?appname=mybot'`,
        },
        {
            title: 'GitHub',
            note: `In a repository: Settings, Webhooks, Add webhook, with this Payload URL and the content type application/json. Or with GitHub's gh:${reach}`,
            code: `gh api repos/OWNER/REPO/hooks -f 'config[url]=${address}' \\\n  -f 'config[content_type]=json' -f 'events[]=push'`,
        },
        {
            title: 'JavaScript',
            note: 'In a page, or in Node with the file of that address next to your script. It is the client that this page uses.',
            code: `import { Channel } from '${root.href}-/web/longline.js';\n\nawait new Channel('${address}').push({ hello: 'world' });${ifRead(`\nfor await (const update of new Channel('${readAddress}').updates()) console.log(update);`)}`,
        },
        {
            title: 'Python',
            note: "With longline's Python client (clients/python in its repository).",
            code: `from longline import Channel\n\nChannel("${address}").push({"hello": "world"})${ifRead(`\nfor update in Channel("${readAddress}").updates():\n    print(update)`)}`,
        },
        {
            title: 'Lua',
            note: "With longline's Lua client, one file (clients/lua in its repository); in Garry's Mod, include it.",
            code: `local longline = require "longline"\n${ifRead(`longline.new("${readAddress}"):subscribe(function(update, ts) print(ts, update.hello) end)\n`)}longline.new("${address}"):publish_async({ hello = "world" })\nrequire("copas").loop()`,
        },
    ];
}
