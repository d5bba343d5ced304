// What strangers may send, and what may stand in a link to the page: it is shown as text, and does not freeze it.

import assert from 'node:assert/strict';
import { freshName, keysOf, origin, pageTest, push, pushMany, rows, untilLive, untilText, watchWork, workOf } from './helpers.mjs';

const WORK_MAX_MS = 4000; // far more than any of them takes, on a busy machine too; far less than a freeze

async function show(open, body, options, server = origin) {
    const name = freshName();
    const page = await open(`${server}/#${name}`);
    await untilLive(page);
    await watchWork(page);
    await push(`${server}/${name}${options?.query ?? ''}`, body, options);
    await rows(page).first().waitFor();
    await untilText(page, '#detail-title', '#1');
    return page;
}

async function isUnharmed(page) {
    assert.equal(await page.evaluate(() => window.hacked), undefined);
    assert.equal(await page.evaluate(() => ({}).hacked), undefined);
    assert.equal(await page.locator('#detail :is(script, img, iframe, svg, a, style)').count(), 0);
    assert.ok((await page.locator('*').count()) < 2500);
    const work = await workOf(page);
    assert.ok(work < WORK_MAX_MS, `its main thread was busy for ${Math.round(work)} ms`);
    // It goes on.
    await push(await page.locator('#address').innerText(), { after: 1 });
    await rows(page).filter({ hasText: '{"after":1}' }).waitFor();
}

const markup = '<script>window.hacked=1</script><img src=x onerror=window.hacked=1><a href="javascript:window.hacked=1">x</a>';

pageTest('markup, wherever it stands, is text', async ({ open }) => {
    const body = JSON.stringify({ text: markup, [markup]: [markup], appname: markup, event: markup });
    const page = await show(open, body, { query: `?${new URLSearchParams({ [markup]: markup })}`, headers: { 'X-GitHub-Event': markup, 'User-Agent': markup, 'X-Markup': markup } });
    await page.locator('#detail .part').evaluateAll((parts) => parts.forEach((part) => (part.open = true)));
    const text = await page.locator('#detail').innerText();
    assert.ok(text.split('<script>window.hacked=1</script>').length >= 8, text);
    assert.match(await rows(page).first().innerText(), /<script>/);
    await page.fill('#filter', markup);
    await untilText(page, '#kept', '1 shown');
    await page.fill('#filter', '');
    await isUnharmed(page);
});

pageTest('__proto__, constructor and the like are members as any other', async ({ open }) => {
    const page = await show(open, '{"__proto__":{"hacked":1,"type":"inherited"},"constructor":{"prototype":{"hacked":1}},"toString":1,"hasOwnProperty":2,"__proto__":3}', {
        query: '?__proto__[hacked]=1',
        headers: { __proto__x: '1', constructor: '2' },
    });
    const text = await page.locator('#detail .json').innerText();
    assert.equal(text.split('"__proto__": ').length, 3);
    for (const part of ['"hacked": 1', '"toString": 1', '"hasOwnProperty": 2', '"__proto__[hacked]": "1"']) assert.ok(text.includes(part), part);
    await isUnharmed(page);
});

pageTest('1 MiB of one string, number, name, … is shown in part and does not freeze the page', async ({ open }) => {
    const name = freshName();
    const page = await open(`${origin}/#${name}`);
    await untilLive(page);
    let id;
    for (const [what, body] of Object.entries({
        string: `{"a":"${'x'.repeat(1048560)}"}`,
        escapes: `{"a":"${'\\u202e'.repeat(174700)}"}`,
        backslashes: `{"a":"${'\\\\'.repeat(524200)}"}`,
        quotes: `{"a":"${'\\"'.repeat(524200)}"}`,
        number: `{"a":${'1'.repeat(1048560)}}`,
        name: `{"${'x'.repeat(1048560)}":1}`,
        space: `{"a":1${' '.repeat(1048560)}}`,
        brackets: `[${'[],'.repeat(349500)}[]]`,
        members: `{${'"a":1,'.repeat(174700)}"a":1}`,
    })) {
        await watchWork(page);
        id = await push(`${origin}/${name}`, body);
        await page.locator('.row', { hasText: `#${id}` }).click();
        await untilText(page, '#detail-title', `#${id}`);
        const length = () => page.locator('#detail').evaluate((detail) => detail.innerText.length);
        assert.ok((await length()) < 30_000, what);
        const more = page.locator('#detail .json').getByRole('button', { name: /more characters|100 more/ });
        if (!['name', 'space'].includes(what)) {
            const before = await length();
            await more.click();
            assert.ok((await length()) > before, what);
        }
        const work = await workOf(page);
        assert.ok(work < WORK_MAX_MS, `of ${what} its main thread was busy for ${Math.round(work)} ms`);
    }
    await isUnharmed(page);
});

pageTest('1 MiB of text that is no JSON', async ({ open }) => {
    const page = await show(open, `${'<b>\u202e'.repeat(130_000)}`, { type: 'text/plain' });
    await page.locator('#detail').getByText('As it came').click();
    await isUnharmed(page);
});

for (const depth of [64, 200]) {
    pageTest(`depth ${depth} is folded and can be opened`, async ({ open }) => {
        const page = await show(open, '{"a":'.repeat(depth - 1) + '[1]' + '}'.repeat(depth - 1));
        const closed = page.locator('#detail .json details:not([open]) > summary');
        for (let level = 0; level < 30; level++) await closed.evaluate((summary) => summary.click());
        assert.ok((await page.locator('#detail .json details[open]').count()) >= 34);
        await isUnharmed(page);
    });
}

pageTest('marks that turn or hide text are shown as what they are', async ({ open }) => {
    const marks = '\u202e\u202a\u2066\u2069\u200f\u200b\ufeff\u061c\u0085';
    const page = await show(open, JSON.stringify({ [`name${marks}`]: `text${marks}`, event: `e${marks}`, appname: `s${marks}`, hebrew: 'שלום' }), {
        query: `?${new URLSearchParams({ [`q${marks}`]: `v${marks}` })}`,
    });
    const text = await page.locator('body').innerText();
    for (const mark of marks) assert.ok(!text.includes(mark), mark.codePointAt().toString(16));
    for (const part of ['name', 'text', 'e', 's', 'q', 'v']) assert.ok(text.includes(`${part}\\u202e\\u202a`), part);
    assert.ok(text.includes('שלום'));
    await isUnharmed(page);
});

pageTest('a million keys, on a server that takes such a body', async ({ open, servers }) => {
    const server = await servers.start(['--data-provider', 'memory', '--max-body', String(32 << 20)]);
    const body = `{${Array.from({ length: 1_000_000 }, (_, n) => `"k${n}":${n}`).join()}}`;
    const page = await show(open, body, {}, server.origin);
    assert.match(await page.locator('#detail .json').innerText(), /"k0": 0[^]*"k99": 99/);
    await page.locator('#detail').getByRole('button', { name: 'Show 100 more' }).click();
    await page.getByText('"k199": 199').waitFor();
    await isUnharmed(page);
});

// ---------------------------------------------------------------------------------------------- links to the page

pageTest('a fragment that names no channel is said, and nothing is sent', async ({ open }) => {
    const page = await open();
    const asked = new Set();
    page.on('request', (request) => asked.add(new URL(request.url()).pathname));
    const names = [];
    for (const fragment of ['#%', '#..', `#${'x'.repeat(300)}`, '#a%2Fb', '#-', '#%00', '#favicon.ico']) {
        await page.goto(`${origin}/${fragment}`);
        if (fragment === '#..') await page.reload(); // the others are changes of an open page
        await untilText(page, '#state', 'names no channel');
        for (const id of ['copy-address', 'connect', 'send', 'send-test', 'pause', 'retry']) assert.ok(await page.locator(`#${id}`).isHidden(), id);
        await page.click('#fresh');
        await untilLive(page);
        names.push(new URL(page.url()).hash.slice(1));
        await page.click('#send-test');
        await rows(page).first().waitFor();
    }
    assert.deepEqual([...asked].filter((path) => path !== '/' && !path.startsWith('/-/')).sort(), names.flatMap((name) => [`/${name}`, `/${name}/consumers`, `/${name}/refused`, `/${keysOf(name).send}`]).sort());
});

pageTest('#a/b is the channel a, as the chat has it with the room b', async ({ open }) => {
    const name = freshName();
    await push(`${origin}/${name}`, { n: 1 });
    const page = await open(`${origin}/#${name}/b`);
    await rows(page).first().waitFor();
    assert.equal(await page.locator('#address').innerText(), `${origin}/${name}`);
    await page.click('#to-chat');
    await untilText(page, '#room-title', 'b');
});

pageTest('a name of 256 bytes, of markup and of other scripts is a name', async ({ open }) => {
    const page = await open();
    for (const name of ['x'.repeat(256), '<img src=x onerror=window.hacked=1>', '"\'><b>', 'лимон 🍋', '#?&=%25+', '.a', "'*alert(1)*'"]) {
        await page.goto(`${origin}/#${encodeURIComponent(name)}`);
        await untilLive(page);
        await page.click('#send-test');
        await rows(page).first().waitFor();
        const address = await page.locator('#address').innerText();
        assert.match(address, /^[\w:/.%~-]+$/);
        assert.equal((await (await fetch(address)).json()).updates.length, 1);
        assert.equal((await (await fetch(`${origin}/${encodeURIComponent(name)}`)).json()).updates.length, 1);
    }
    assert.equal(await page.evaluate(() => window.hacked), undefined);
});

pageTest('what writing needs is left as it is, also where it is not seen', async ({ open }) => {
    const name = freshName();
    const needed = ['👨‍👩‍👧', 'خانه‌ها', '🏳️‍🌈', 'क्‍ष', '1️⃣', '👩🏽‍💻'];
    for (const text of needed) await push(`${origin}/${name}`, { name: 'Ann', text });
    await push(`${origin}/${name}`, { name: 'A\u200dnn\u{e0041}\u3164', text: 'forged' });
    const page = await open(`${origin}/-/chat#${name}`);
    await page.locator('.message').nth(needed.length).waitFor();
    assert.deepEqual((await page.locator('.message p').allInnerTexts()).slice(0, -1), needed);
    assert.equal(await page.locator('.message b').last().innerText(), 'A\\u200dnn\\u{e0041}\\u3164');
});
