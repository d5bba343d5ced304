// The chat, with two people in two browsers.

import assert from 'node:assert/strict';
import { FAILED_REQUEST, freshName, origin, pageTest, push, pushMany, readAll, untilLive, untilText } from './helpers.mjs';

const messages = (page) => page.locator('.message p');

async function say(page, text, name) {
    if (name) await page.fill('#name', name);
    await page.fill('#text', text);
    await page.press('#text', 'Enter');
}

pageTest('two browsers chat: old and new messages, names, one\'s own on the other side', async ({ open }) => {
    const channel = freshName();
    await push(`${origin}/${channel}`, { name: 'Zoe', text: 'from before' });
    const ann = await open(`${origin}/-/chat#${channel}`);
    const bob = await open(`${origin}/-/chat#${channel}`);
    for (const page of [ann, bob]) await messages(page).filter({ hasText: 'from before' }).waitFor();
    await say(ann, 'hello <b>Bob</b> 🍋', 'Ann');
    await messages(bob).filter({ hasText: 'hello <b>Bob</b> 🍋' }).waitFor();
    await say(bob, 'hello Ann', 'Bob');
    for (const page of [ann, bob]) await messages(page).filter({ hasText: 'hello Ann' }).waitFor();
    for (const [page, mine] of [[ann, 'Ann'], [bob, 'Bob']]) {
        assert.deepEqual(await page.locator('.message b').allInnerTexts(), ['Zoe', 'Ann', 'Bob']);
        assert.deepEqual(await messages(page).allInnerTexts(), ['from before', 'hello <b>Bob</b> 🍋', 'hello Ann']);
        assert.deepEqual(await page.locator('.message.mine b').allInnerTexts(), [mine]);
        assert.equal(await page.locator('.message time').count(), 3);
        assert.equal(await page.inputValue('#text'), '');
    }
    // The name is kept, and the messages come again.
    await ann.reload();
    await messages(ann).nth(2).waitFor();
    assert.equal(await ann.inputValue('#name'), 'Ann');
    assert.deepEqual((await readAll(`${origin}/${channel}`)).map(({ body }) => body)[1], { name: 'Ann', text: 'hello <b>Bob</b> 🍋' });
});

pageTest('several rooms: one is made by naming it, others see what they have not read there', async ({ open }) => {
    const channel = freshName();
    const ann = await open(`${origin}/-/chat#${channel}`);
    const bob = await open(`${origin}/-/chat#${channel}`);
    for (const page of [ann, bob]) await untilLive(page);
    await say(ann, 'in main', 'Ann');
    await messages(bob).filter({ hasText: 'in main' }).waitFor();
    await ann.fill('#room-name', 'lemons & limes');
    await ann.press('#room-name', 'Enter');
    assert.equal(await ann.locator('#room-title').innerText(), 'lemons & limes');
    assert.equal(await messages(ann).count(), 0);
    await say(ann, 'sour');
    await messages(ann).filter({ hasText: 'sour' }).waitFor();
    await bob.locator('#rooms a', { hasText: 'lemons' }).locator('.count', { hasText: '1' }).waitFor();
    assert.equal(await bob.title(), '(1) Chat · longline');
    assert.deepEqual(await messages(bob).allInnerTexts(), ['in main']);

    // The focus stays on a room while messages come.
    const link = bob.locator('#rooms a', { hasText: 'lemons' });
    await link.focus();
    await say(ann, 'sweet');
    await bob.locator('.count', { hasText: '2' }).waitFor();
    assert.match(await bob.evaluate(() => document.activeElement.textContent), /lemons/);
    await bob.keyboard.press('Enter');
    await messages(bob).filter({ hasText: 'sweet' }).waitFor();
    assert.deepEqual(await messages(bob).allInnerTexts(), ['sour', 'sweet']);
    assert.equal(await bob.title(), 'Chat · longline');
    assert.equal(await bob.locator('.count').count(), 0);

    // Its link opens the same room, and the way back leads to main.
    const carol = await open(bob.url());
    await messages(carol).filter({ hasText: 'sour' }).waitFor();
    assert.equal(await carol.locator('#room-title').innerText(), 'lemons & limes');
    await bob.goBack();
    await messages(bob).filter({ hasText: 'in main' }).waitFor();
    assert.deepEqual(await messages(bob).allInnerTexts(), ['in main']);
});

pageTest('a room of a long name is the same for all, and its messages are seen', async ({ open }) => {
    const page = await open(`${origin}/-/chat#${freshName()}/${'long'.repeat(70)}`);
    await untilLive(page);
    await say(page, 'here', 'Ann');
    await messages(page).filter({ hasText: 'here' }).waitFor();
    assert.ok((await page.locator('#room-title').innerText()).length <= 41);
});

pageTest('what is no message is not shown, and a hostile one is text', async ({ open }) => {
    const channel = freshName();
    const url = `${origin}/${channel}`;
    for (const text of ['{"n":1}', '[1]', '{"text":7}', '{"text":null}', '{"__proto__":{"text":"inherited"}}']) await push(url, text);
    await push(url, '{"name":"<script>window.hacked=1</script>","text":"<img src=x onerror=window.hacked=1>","room":{}}');
    await push(url, '{"name":"a\u202eb","text":"left\u202eright","__proto__":{"room":"x"}}');
    await push(url, { name: 'x'.repeat(5000), text: 'y'.repeat(900_000), room: 'main' });
    for (let n = 0; n < 150; n++) await push(url, { text: 'spam', room: `room ${n}` });
    const page = await open(`${origin}/-/chat#${channel}`);
    await messages(page).nth(2).waitFor();
    assert.equal(await messages(page).count(), 3);
    const texts = await page.locator('.message').allInnerTexts();
    assert.match(texts[0], /<script>window\.hacked=1<\/script>[^]*<img src=x onerror=window\.hacked=1>/);
    assert.match(texts[1], /a\\u202eb[^]*left\\u202eright/);
    assert.ok(texts[2].length < 5000 && /900,000 characters/.test(texts[2]));
    assert.equal(await page.locator('#rooms li').count(), 100);
    assert.equal(await page.evaluate(() => window.hacked), undefined);
});

pageTest('a message that could not be sent is said, and not lost', async ({ open, servers }) => {
    const server = await servers.start();
    const page = await open(`${server.origin}/-/chat#${freshName()}`, { expected: /^Failed to load resource/ });
    await untilLive(page);
    await server.stop();
    await say(page, 'into the void', 'Ann');
    await untilText(page, '#error', 'Not sent');
    assert.equal(await page.inputValue('#text'), 'into the void');
    await servers.start(undefined, server.port);
    await untilLive(page);
    await page.press('#text', 'Enter');
    await messages(page).filter({ hasText: 'into the void' }).waitFor();
    assert.equal(await page.locator('#error').innerText(), '');
});

pageTest('the invitation is the link to this room', async ({ open }) => {
    const url = `${origin}/-/chat#${freshName()}/tea`;
    const page = await open(url, { permissions: ['clipboard-read', 'clipboard-write'] });
    await page.click('#invite');
    await untilText(page, '#invite', 'Copied');
    assert.equal(await page.evaluate(() => navigator.clipboard.readText()), url);
});

pageTest('a fragment that names no channel is said, and nothing is sent', async ({ open }) => {
    const page = await open();
    const asked = new Set();
    page.on('request', (request) => asked.add(new URL(request.url()).pathname));
    const names = [];
    for (const fragment of ['#%', '#..', `#${'x'.repeat(300)}`, '#a%2Fb', '#-', '#name/%']) {
        await page.goto(`${origin}/-/chat${fragment}`);
        if (fragment === '#..') await page.reload(); // the others are changes of an open page
        await untilText(page, '#state', 'names no channel');
        for (const id of ['composer', 'new-room', 'retry']) assert.ok(await page.locator(`#${id}`).isHidden(), id);
        // A sound one, in the same page, is opened.
        names.push(freshName());
        await page.goto(`${origin}/-/chat#${names.at(-1)}`);
        await untilLive(page);
        await say(page, 'hello', 'Ann');
        await messages(page).first().waitFor();
        assert.equal(await messages(page).count(), 1);
    }
    assert.deepEqual([...asked].filter((path) => !path.startsWith('/-/')).sort(), names.map((name) => `/${name}`).sort());
});

pageTest('after a hundred rooms there is one more, and one can talk in it', async ({ open }) => {
    const name = freshName();
    await pushMany(`${origin}/${name}`, 120, (n) => JSON.stringify({ name: 'x', text: 'spam', room: `room ${n}` }));
    const page = await open(`${origin}/-/chat#${name}`);
    await page.fill('#room-name', 'mine');
    await page.keyboard.press('Enter');
    await page.fill('#name', 'Ann');
    await page.fill('#text', 'hello');
    await page.keyboard.press('Enter');
    await page.locator('.message', { hasText: 'hello' }).waitFor();
    assert.equal(await page.locator('#rooms a[aria-current]').innerText(), 'mine');
    assert.ok((await page.locator('#rooms a').count()) <= 100);
});

pageTest('the link of a room is the same one while messages come', async ({ open }) => {
    const name = freshName();
    await push(`${origin}/${name}`, { name: 'Bob', text: '1', room: 'tea' });
    const page = await open(`${origin}/-/chat#${name}`);
    const link = await page.locator('#rooms a', { hasText: 'tea' }).elementHandle();
    await push(`${origin}/${name}`, { name: 'Bob', text: '2', room: 'tea' });
    await page.locator('.count').waitFor();
    assert.ok(await link.evaluate((node) => node.isConnected));
});

pageTest('an address in a message is a link, and nothing else is one', async ({ open }) => {
    const name = freshName();
    const url = `${origin}/${name}`;
    const cases = [
        ['see https://example.org/a?b=1#c.', ['https://example.org/a?b=1#c']],
        ['(https://example.org/x) and http://localhost:3000', ['https://example.org/x', 'http://localhost:3000']],
        ['https://de.wikipedia.org/wiki/Köln!', ['https://de.wikipedia.org/wiki/Köln']],
        ['https://example.org.', ['https://example.org']],
        ['javascript:alert(1) data:text/html,x ftp://example.org //example.org', []],
        ['https://bank.example@evil.example/ https://bank.exampleа/', []],
        ['https://"><img src=x onerror=window.hacked=1>', []],
        ['https://example.org/\u202egnp.exe', ['https://example.org/']],
    ];
    for (const [text] of cases) await push(url, { name: 'Ann', text });
    const page = await open(`${origin}/-/chat#${name}`);
    await page.locator('.message').nth(cases.length - 1).waitFor();
    for (const [index, [text, links]] of cases.entries()) {
        const message = page.locator('.message').nth(index).locator('p');
        assert.deepEqual(await message.locator('a').allInnerTexts(), links, text);
        assert.equal(await message.innerText(), text.replace('\u202e', '\\u202e'));
    }
    for (const link of await page.locator('.message a').all()) {
        assert.match(await link.evaluate(({ href, target, rel }) => `${href} ${target} ${rel}`), /^https?:\/\/\S+ _blank noopener noreferrer nofollow$/);
    }
    assert.equal(await page.evaluate(() => window.hacked), undefined);
});

pageTest('an error leaves the newest message in view, is said plainly, and goes when the server is back', async ({ open, servers }) => {
    const server = await servers.start();
    const name = freshName();
    await pushMany(`${server.origin}/${name}`, 60, (n) => JSON.stringify({ name: 'Bob', text: `message ${n}` }));
    const page = await open(`${server.origin}/-/chat#${name}`, { expected: /^Failed to load resource/, viewport: { width: 390, height: 600 } });
    await page.locator('.message', { hasText: 'message 59' }).waitFor();
    await untilLive(page);
    const tops = await page.evaluate(() => ['name', 'text', 'say'].map((id) => document.getElementById(id).getBoundingClientRect().top));
    assert.equal(new Set(tops).size, 1, 'the composer is one row on a phone');
    await server.stop();
    await say(page, 'into the void', 'Ann');
    assert.equal(await untilText(page, '#error', 'Not sent'), 'Not sent: The server cannot be reached');
    const isInView = () => {
        const box = document.getElementById('messages');
        return box.scrollHeight - box.scrollTop - box.clientHeight < 2;
    };
    await page.waitForFunction(isInView);
    await untilText(page, '#state', 'The server cannot be reached');
    const { port } = server;
    await servers.start(undefined, port);
    await untilLive(page);
    await page.waitForFunction(() => document.getElementById('error').textContent === '');
    assert.equal(await page.inputValue('#text'), 'into the void');
    await page.waitForFunction(isInView);
});

pageTest('what takes or gives room in the frame after a scroll: who is at the end stays there, who leaves it is left alone', async ({ open }) => {
    const name = freshName();
    const url = `${origin}/${name}`;
    await pushMany(url, 60, (n) => JSON.stringify({ name: 'Bob', text: `message ${n}` }));
    const page = await open(`${origin}/-/chat#${name}`, { viewport: { width: 390, height: 600 } });
    await page.locator('.message', { hasText: 'message 59' }).waitFor();
    // Scrolls to so far from the end, then to another place, whose event comes with the frame that has the error; returns how far it is then.
    const distance = (from, to, error) =>
        page.evaluate(
            async ([from, to, error]) => {
                const box = document.getElementById('messages');
                const frames = () => new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(resolve))));
                const end = () => box.scrollHeight - box.clientHeight;
                box.scrollTop = end() - from;
                await frames();
                box.scrollTop = end() - to;
                document.getElementById('error').textContent = error;
                await frames();
                await frames();
                return end() - box.scrollTop;
            },
            [from, to, error],
        );
    const error = 'It is long. '.repeat(40);
    for (const from of [20, 300]) {
        assert.ok((await distance(from, 0, error)) < 2, `from ${from}`);
        await distance(0, 0, '');
    }
    assert.ok((await distance(0, 300, error)) > 300);
    // Room that is given back may bring the end into view, without a scroll.
    const height = () => page.locator('#messages').evaluate((box) => box.clientHeight);
    const less = await height();
    await distance(0, 0, '');
    const room = (await height()) - less;
    await distance(0, 0, error);
    assert.ok((await distance(room + 20, room + 20, '')) < 2);
    await push(url, { name: 'Bob', text: 'the next' });
    await page.locator('.message', { hasText: 'the next' }).waitFor();
    assert.ok((await page.locator('#messages').evaluate((box) => box.scrollHeight - box.scrollTop - box.clientHeight)) < 2);
    assert.ok(await page.locator('#to-end').isHidden());
});

pageTest('what was not sent in one room is not put into another', async ({ open }) => {
    const name = freshName();
    const page = await open(`${origin}/-/chat#${name}`, { expected: FAILED_REQUEST });
    await untilLive(page);
    let fail;
    await page.route(`**/${name}`, async (route) => {
        if (route.request().method() !== 'POST') return route.continue();
        await new Promise((resolve) => (fail = resolve));
        return route.abort();
    });
    const asked = page.waitForRequest((request) => request.method() === 'POST');
    await say(page, 'for main only', 'Ann');
    await asked;
    await page.fill('#room-name', 'other');
    await page.press('#room-name', 'Enter');
    await untilText(page, '#room-title', 'other');
    fail();
    assert.match(await untilText(page, '#error', 'Not sent'), /“for main only”/);
    assert.equal(await page.inputValue('#text'), '');
});
