// Updates as files: all that are kept, or what the filter lets through.

import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { gzipSync } from 'node:zlib';
import { FAILED_REQUEST, freshName, keysOf, origin, pageTest, push, pushMany, readAll, untilText } from './helpers.mjs';

/** Asks for all in a form ('NDJSON', 'HAR'), and resolves with the file's name and text. */
async function downloaded(page, form, what) {
    await page.click('#download-all');
    const dialog = page.locator('#downloads');
    if (what) await dialog.getByLabel(what).check();
    await dialog.getByLabel(form).check();
    const [file] = await Promise.all([page.waitForEvent('download'), dialog.getByRole('button', { name: 'Download' }).click()]);
    await untilText(page, '#downloads', 'Saved');
    await dialog.getByRole('button', { name: 'Close' }).click();
    return { name: file.suggestedFilename(), text: await readFile(await file.path(), 'utf8') };
}

/** What HAR 1.2 says of its objects: the members that there must be, and with ? those that there may be. */
const HAR = {
    log: ['version', 'creator', 'entries', '?browser', '?pages', '?comment'],
    creator: ['name', 'version', '?comment'],
    entry: ['startedDateTime', 'time', 'request', 'response', 'cache', 'timings', '?pageref', '?serverIPAddress', '?connection', '?comment'],
    request: ['method', 'url', 'httpVersion', 'cookies', 'headers', 'queryString', 'headersSize', 'bodySize', '?postData', '?comment'],
    response: ['status', 'statusText', 'httpVersion', 'cookies', 'headers', 'content', 'redirectURL', 'headersSize', 'bodySize', '?comment'],
    postData: ['mimeType', 'text', '?params', '?comment'],
    content: ['size', 'mimeType', '?compression', '?text', '?encoding', '?comment'],
    timings: ['send', 'wait', 'receive', '?blocked', '?dns', '?connect', '?ssl', '?comment'],
    pair: ['name', 'value', '?comment'],
};
const NUMBERS = ['time', 'headersSize', 'bodySize', 'status', 'size', 'send', 'wait', 'receive'];

function isHar(kind, object) {
    for (const name of HAR[kind].filter((name) => !name.startsWith('?'))) assert.ok(Object.hasOwn(object, name), `${kind} has no ${name}`);
    for (const [name, value] of Object.entries(object)) {
        assert.ok(name.startsWith('_') || HAR[kind].some((known) => known.replace('?', '') === name), `${kind}.${name} is not of HAR 1.2`);
        if (NUMBERS.includes(name)) assert.equal(typeof value, 'number', `${kind}.${name}`);
        else if (typeof value !== 'object') assert.equal(typeof value, 'string', `${kind}.${name}`);
    }
}

pageTest('all that is kept as NDJSON: each update with its request, every digit and byte', async ({ open }) => {
    const { all, send } = keysOf();
    await push(`${origin}/${send}/hooks/1?app=shop`, '{\n  "id": 12345678901234567890,\r\n  "price": 1.10, "text": "a\\nb\u2028"\n}', { headers: { 'X-GitHub-Event': 'ping' } });
    await push(`${origin}/${send}`, Buffer.from([0, 255, 128, 7]), { type: 'application/octet-stream' });
    await push(`${origin}/${send}`, gzipSync('{"zipped":1.50}'), { headers: { 'Content-Encoding': 'gzip' } });
    const page = await open(`${origin}/#${all}`);
    await untilText(page, '#detail-title', '#3');
    const { name, text } = await downloaded(page, 'NDJSON');
    assert.equal(name, 'updates-1-3.ndjson');
    const lines = text.trimEnd().split('\n');
    const kept = await readAll(`${origin}/${all}`);
    assert.deepEqual(lines.map((line) => JSON.parse(line)), kept);
    assert.ok(/"body":\{\s+"id": 12345678901234567890,\s+"price": 1\.10,/.test(lines[0]), lines[0]);
});

pageTest('all that is kept as HAR 1.2, with the sending address', async ({ open, servers }) => {
    const { all, read, send } = keysOf();
    await push(`${origin}/${send}/hooks/1?app=shop&app=b%20c`, { n: 1 }, { headers: { 'X-GitHub-Event': 'ping' } });
    await push(`${origin}/${send}`, Buffer.from([0, 255, 128, 7]), { type: 'image/x' });
    await push(`${origin}/${send}`, gzipSync('plain text'), { type: 'text/plain', headers: { 'Content-Encoding': 'gzip' } });
    for (const key of [all, read]) {
        const page = await open(`${origin}/#${key}`);
        await untilText(page, '#detail-title', '#3');
        const { name, text } = await downloaded(page, 'HAR');
        assert.equal(name, 'updates-1-3.har');
        assert.ok(!text.includes(all) && !text.includes(read), 'a key that reads is in it');
        const { log, ...others } = JSON.parse(text);
        assert.deepEqual(others, {});
        assert.equal(log.version, '1.2');
        isHar('log', log);
        isHar('creator', log.creator);
        assert.match(log.creator.version, /^\d/);
        const times = (await readAll(`${origin}/${read}`)).map(({ at }) => new Date(at).toISOString());
        assert.deepEqual(log.entries.map(({ startedDateTime }) => startedDateTime), times);
        for (const entry of log.entries) {
            isHar('entry', entry);
            isHar('request', entry.request);
            isHar('postData', entry.request.postData);
            isHar('response', entry.response);
            isHar('content', entry.response.content);
            isHar('timings', entry.timings);
            for (const pair of [...entry.request.headers, ...entry.request.queryString]) isHar('pair', pair);
        }
        const [first, second, third] = log.entries.map(({ request }) => request);
        assert.equal(first.method, 'POST');
        assert.equal(first.url, `${origin}/${send}/hooks/1?app=shop&app=b%20c`);
        assert.deepEqual(first.queryString, [{ name: 'app', value: 'shop' }, { name: 'app', value: 'b c' }]);
        assert.deepEqual(first.headers.find(({ name }) => name === 'x-github-event'), { name: 'x-github-event', value: 'ping' });
        assert.deepEqual([first.postData.mimeType, first.postData.text, first.bodySize], ['application/json', '{"n":1}', 7]);
        assert.deepEqual([second.postData.mimeType, second.postData._encoding], ['image/x', 'base64']);
        assert.deepEqual([...Buffer.from(second.postData.text, 'base64')], [0, 255, 128, 7]);
        assert.equal(third.postData.text, 'plain text');
        assert.equal(third.bodySize, gzipSync('plain text').length);
    }
});

pageTest('what the filter lets through, or all the same everything, also what the page does not hold', async ({ open, servers }) => {
    const server = await servers.start(['--data-provider', 'memory', '--channel-storage-maxsize', '20000']);
    const name = freshName();
    await pushMany(`${server.origin}/${name}`, 3000, (n) => JSON.stringify({ n: n + 1, word: n % 100 ? 'hay' : 'needle', fill: 'x'.repeat(1000) }));
    const page = await open(`${server.origin}/#${name}//body.word%3Aneedle%201`);
    await untilText(page, '#kept', 'shown');
    const idsOf = ({ text }) => text.trimEnd().split('\n').map((line) => JSON.parse(line).ts);
    const all = Array.from({ length: 3000 }, (_, n) => n + 1);
    const file = await downloaded(page, 'NDJSON');
    assert.deepEqual(idsOf(file), all.filter((n) => n % 100 === 1)); // each has a 1
    assert.equal(file.name, 'updates-1-2901.ndjson');
    assert.deepEqual(idsOf(await downloaded(page, 'NDJSON', 'All that is kept')), all);
    await page.fill('#filter', '#17');
    await untilText(page, '#detail-title', '#17');
    assert.deepEqual(idsOf(await downloaded(page, 'NDJSON')), [17]);
    await page.fill('#filter', 'nobody wrote this');
    await untilText(page, '#empty', 'No update holds that');
    await page.click('#download-all');
    await page.locator('#downloads').getByRole('button', { name: 'Download' }).click();
    await untilText(page, '#downloads', 'There is none to download');
});

pageTest('a download says how far it is, can be cancelled, and goes on where the server went away', async ({ open, servers }) => {
    const server = await servers.start();
    const name = freshName();
    await pushMany(`${server.origin}/${name}`, 900, (n) => JSON.stringify({ n: n + 1, fill: 'x'.repeat(4000) }));
    const page = await open(`${server.origin}/#${name}`, { expected: FAILED_REQUEST });
    await untilText(page, '#detail-title', '#900');
    const files = [];
    page.on('download', (file) => files.push(file));
    let polls = 0;
    let act = (route) => route.continue();
    await page.route(/limit=(?!1\b)/, (route) => (/sleep=0/.test(route.request().url()) && ++polls > 1 ? act(route) : route.continue()));
    const dialog = page.locator('#downloads');
    const start = async () => {
        polls = 0;
        await page.click('#download-all');
        await dialog.getByRole('button', { name: 'Download' }).click();
    };
    const held = [];
    act = (route) => held.push(route);
    await start();
    await untilText(page, '#downloads', /Read up to #\d+ of #900: \d+ updates, .* [kM]B/);
    assert.ok((await dialog.locator('progress').getAttribute('value')) > 0);
    await dialog.getByRole('button', { name: 'Cancel' }).click();
    await dialog.waitFor({ state: 'hidden' });

    act = (route) => route.abort();
    await start();
    await untilText(page, '#downloads', 'Not all could be read: The server cannot be reached');
    assert.equal(files.length, 0);
    act = (route) => route.continue();
    const [file] = await Promise.all([page.waitForEvent('download'), dialog.getByRole('button', { name: 'Go on' }).click()]);
    const lines = (await readFile(await file.path(), 'utf8')).trimEnd().split('\n');
    assert.deepEqual(lines.map((line) => JSON.parse(line).body.n), Array.from({ length: 900 }, (_, n) => n + 1));
    for (const route of held) await route.abort().catch(() => {});
});

pageTest('a file that is full is one of several, each whole', async ({ open }) => {
    const name = freshName();
    for (let n = 1; n <= 7; n++) await push(`${origin}/${name}`, { n, fill: 'x'.repeat(1000) });
    const page = await open(`${origin}/#${name}`);
    await untilText(page, '#detail-title', '#7');
    const files = await page.evaluate(async (url) => {
        const { Reading } = await import('./-/web/download.js');
        const { FORMS } = await import('./-/web/har.js');
        const texts = [];
        const reading = new Reading({ address: url, sendAddress: url }, { where: [], text: '' }, { upto: 7, form: FORMS.har, max: 3000 });
        for (let end; end !== 'done'; ) {
            end = await reading.run(new AbortController().signal, () => {});
            texts.push(await reading.contents.blob(FORMS.har.head('1'), FORMS.har.tail).text());
        }
        return texts;
    }, `${origin}/${name}`);
    assert.ok(files.length > 2 && files.length < 7, `${files.length} files`);
    const bodies = files.flatMap((text) => JSON.parse(text).log.entries.map(({ request }) => JSON.parse(request.postData.text).n));
    assert.deepEqual(bodies, [1, 2, 3, 4, 5, 6, 7]);
});
