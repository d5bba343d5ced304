// An update goes to another address, by the browser: what the target gets, and what is said where it does not allow it.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer } from 'node:http';
import { freshName, keysOf, origin, pageTest, push, rows, untilText } from './helpers.mjs';

const CORS = /blocked by CORS policy|^Failed to load resource/;

/** A web server that notes what comes, {method, path, headers, body}; its CORS headers are these. */
async function withTarget(cors, run, answer = 'thanks') {
    const got = [];
    const server = createServer(async (request, response) => {
        const chunks = [];
        for await (const chunk of request) chunks.push(chunk);
        const { method, url: path, headers } = request;
        got.push({ method, path, headers, body: Buffer.concat(chunks) });
        response.writeHead(method === 'OPTIONS' ? 204 : 202, cors).end(method === 'OPTIONS' ? '' : answer);
    }).listen(0, '127.0.0.1');
    await once(server, 'listening');
    try {
        await run({ url: `http://127.0.0.1:${server.address().port}`, got });
    } finally {
        server.closeAllConnections();
        server.close();
    }
}
const ALLOWED = { 'Access-Control-Allow-Origin': '*', 'Access-Control-Allow-Headers': '*', 'Access-Control-Allow-Methods': '*' };

/** Opens the question for the newest update. */
async function ask(page, id) {
    await rows(page).filter({ hasText: `#${id}` }).click();
    await untilText(page, '#detail-title', `#${id}`);
    await page.getByRole('button', { name: 'Send elsewhere…' }).click();
    return page.locator('#resend');
}

pageTest('a target that allows it gets the request as it came, and its answer is seen; the address is remembered', async ({ open }) => {
    await withTarget(ALLOWED, async ({ url, got }) => {
        const { read, send } = keysOf();
        const bytes = Buffer.from(Array.from({ length: 256 }, (_, n) => n));
        await push(`${origin}/${send}/orders/7?app=shop`, '{"n":1.10}', { headers: { 'X-GitHub-Event': 'ping', Authorization: 'secret' } });
        await push(`${origin}/${send}`, bytes, { type: 'application/octet-stream' });
        const page = await open(`${origin}/#${read}`); // who only reads may also send elsewhere
        let dialog = await ask(page, 1);
        assert.match(await dialog.innerText(), /POST, 10 bytes, with content-type, x-github-event; without .*user-agent/);
        await dialog.getByLabel('Address').fill(`${url}/hooks/?key=a#part`);
        await dialog.getByText('From a shell').click();
        await dialog.locator('pre').first().filter({ hasText: 'curl' }).waitFor();
        assert.match(await dialog.locator('pre').first().textContent(), new RegExp(`curl -g .*--data-raw '{"n":1.10}' '${url}/hooks/orders/7\\?key=a`));
        await dialog.getByRole('button', { name: 'Send', exact: true }).click();
        await untilText(page, '#resend', 'The target answered 202 Accepted after');
        assert.match(await dialog.innerText(), /thanks/);
        const { method, path, headers, body } = got.find(({ method }) => method !== 'OPTIONS');
        assert.deepEqual([method, path, body.toString()], ['POST', '/hooks/orders/7?key=a&app=shop', '{"n":1.10}']);
        assert.deepEqual([headers['content-type'], headers['x-github-event'], headers.origin], ['application/json', 'ping', origin]);
        for (const name of ['authorization', 'referer', 'cookie']) assert.equal(headers[name], undefined, name);
        for (const { headers, path } of got) assert.ok(!JSON.stringify([headers, path]).includes(read), 'the key is told');
        await dialog.getByRole('button', { name: 'Close' }).click();

        dialog = await ask(page, 2);
        assert.equal(await dialog.getByLabel('Address').inputValue(), `${url}/hooks/?key=a#part`);
        got.length = 0;
        await page.keyboard.press('Enter');
        await untilText(page, '#resend', 'The target answered 202');
        assert.deepEqual(got.at(-1).body, bytes);
        assert.equal(await page.evaluate(() => Object.values(localStorage).join()).then((text) => text.includes(url)), true);
    });
});

pageTest('a target that does not allow it: JSON is not sent, and that is said; without an answer it arrives as text', async ({ open }) => {
    await withTarget({}, async ({ url, got }) => {
        const name = freshName();
        await push(`${origin}/${name}`, { n: 1 }, { headers: { 'X-GitHub-Event': 'ping' } });
        await push(`${origin}/${name}`, 'plain', { type: 'text/plain' });
        const page = await open(`${origin}/#${name}`, { expected: CORS });
        let dialog = await ask(page, 1);
        await dialog.getByLabel('Address').fill(url);
        const blind = dialog.getByRole('button', { name: 'Send without an answer' });
        assert.ok(await blind.isHidden());
        await dialog.getByRole('button', { name: 'Send', exact: true }).click();
        await untilText(page, '#resend .error', 'the target does not allow this page (CORS); then JSON was not sent');
        assert.deepEqual(got.map(({ method }) => method), ['OPTIONS']);
        await blind.click();
        await untilText(page, '#resend', 'Whether it arrived, and what the target made of it, the browser does not tell');
        const { method, headers, body } = got.at(-1);
        assert.deepEqual([method, body.toString(), headers['x-github-event']], ['POST', '{"n":1}', undefined]);
        assert.match(headers['content-type'], /^text\/plain/);
        await dialog.getByRole('button', { name: 'Close' }).click();

        dialog = await ask(page, 2);
        await dialog.getByRole('button', { name: 'Send', exact: true }).click();
        await untilText(page, '#resend .error', 'plain text may have arrived');
        assert.equal(got.at(-1).body.toString(), 'plain');
    });
});

pageTest('nothing at the address, and what is no address, is said; an answer that is markup stays text', async ({ open }) => {
    const name = freshName();
    await push(`${origin}/${name}`, { n: 1 });
    const page = await open(`${origin}/#${name}`, { expected: CORS });
    const dialog = await ask(page, 1);
    for (const [typed, said] of [['', 'Type an http'], ['example', 'Type an http'], ['ftp://x/', 'Type an http'], ['javascript:alert(1)', 'Type an http'], ['http://a:b@127.0.0.1/', 'no user and password'], ['http://127.0.0.1:1/', 'nothing answers']]) {
        await dialog.getByLabel('Address').fill(typed);
        await dialog.getByRole('button', { name: 'Send', exact: true }).click();
        await untilText(page, '#resend .error', said);
    }
    const long = '<img src=x onerror="window.hacked=1">\u202e' + 'x'.repeat(100_000);
    await withTarget(ALLOWED, async ({ url }) => {
        await dialog.getByLabel('Address').fill(url);
        await dialog.getByRole('button', { name: 'Send', exact: true }).click();
        assert.match(await untilText(page, '#resend .answer', 'The target answered'), /<img src=x onerror="window.hacked=1">\\u202e/);
        assert.ok((await dialog.locator('.answer pre').textContent()).length < 2100);
        assert.equal(await page.evaluate(() => window.hacked), undefined);
    }, long);
});

pageTest('the page itself still connects to its own server only', async ({ open }) => {
    await withTarget(ALLOWED, async ({ url, got }) => {
        const page = await open(`${origin}/#${freshName()}`, { expected: /connect-src|trusted|Content Security Policy/i });
        assert.equal(await page.evaluate((url) => fetch(url).then(() => 'sent', (error) => error.name), url), 'TypeError');
        const made = (name) => page.evaluate((name) => { try { trustedTypes.createPolicy(name, {}); return 'made'; } catch (error) { return error.name; } }, name);
        for (const policy of ['resender', 'other', 'default']) assert.equal(await made(policy), 'TypeError', policy);
        assert.equal(await page.evaluate(() => { try { new Worker('-/web/text.js'); } catch (error) { return error.name; } }), 'TypeError');
        assert.equal(got.length, 0);
    });
});

pageTest('the shell lines repeat it without a browser', async ({ open }) => {
    const { all, read, send } = keysOf();
    for (let n = 1; n <= 3; n++) await push(`${origin}/${send}`, { n });
    const page = await open(`${origin}/#${all}`, { permissions: ['clipboard-read', 'clipboard-write'] });
    const dialog = await ask(page, 2);
    await dialog.getByLabel('Address').fill("http://localhost:8080/it's");
    await dialog.getByText('From a shell, without CORS').click();
    await dialog.getByRole('button', { name: 'Copy longline forward' }).click();
    await dialog.getByText('Copied').waitFor();
    assert.equal(await page.evaluate(() => navigator.clipboard.readText()), `longline forward '${origin}/${read}' 'http://localhost:8080/it'\\''s' --ts 1`);
});

pageTest('what a browser cannot put into a header is left out, and a second click sends nothing', async ({ open }) => {
    await withTarget(ALLOWED, async ({ url, got }) => {
        const name = freshName();
        await push(`${origin}/${name}`, { n: 1 }, { headers: { 'X-Name': Buffer.from('日本').toString('latin1'), 'X-Other': 'kept' } });
        const page = await open(`${origin}/#${name}`);
        const dialog = await ask(page, 1);
        assert.match(await dialog.innerText(), /without .*x-name/);
        await dialog.getByLabel('Address').fill(`${url}/hooks`);
        await dialog.getByRole('button', { name: 'Send', exact: true }).evaluate((button) => {
            button.click();
            button.click();
        });
        await untilText(page, '#resend', 'The target answered 202');
        const posts = got.filter(({ method }) => method === 'POST');
        assert.equal(posts.length, 1);
        assert.deepEqual([posts[0].headers['x-other'], posts[0].headers['x-name']], ['kept', undefined]);
    });
});

pageTest('where the page cannot load what sends, no target is blamed', async ({ open }) => {
    const name = freshName();
    await push(`${origin}/${name}`, { n: 1 });
    const page = await open(`${origin}/#${name}`, { expected: CORS });
    const dialog = await ask(page, 1);
    await page.context().route(/resender/, (route) => route.abort());
    await dialog.getByLabel('Address').fill(`${origin}/${name}`);
    await dialog.getByRole('button', { name: 'Send', exact: true }).click();
    await untilText(page, '#resend .error', 'could not be loaded');
});
