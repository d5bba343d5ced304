// What to paste elsewhere so that updates come to an address, or from it: {title, note, code} for each sender or language.
// What sends gets the sending address, what reads gets the reading one; where there is none, nothing reads.

import { root } from './channel.js';

export function snippetsFor({ sendAddress: address, readAddress }) {
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
