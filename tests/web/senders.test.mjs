// What services really send, in the console: methods and paths, files of a form, the same delivery twice; and what the
// server refused of it.

import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { deflateSync } from 'node:zlib';
import { FAILED_REQUEST, freshName, origin, pageTest, push, readAll, rows, untilIds, untilLive, untilText } from './helpers.mjs';

// ---------------------------------------------------------------------------------------------- requests

pageTest('an update tells its method, its path and who sent it; "send again" and curl keep them', async ({ open }) => {
    const name = freshName();
    const url = `${origin}/${name}`;
    await fetch(`${url}/v1/alerts%20x?a=1`, { method: 'PUT', headers: { 'Content-Type': 'application/json', 'X-Forwarded-For': '203.0.113.7' }, body: '{"event":"up"}' });
    await push(url, { event: 'plain' });
    const page = await open(`${origin}/#${name}`, { permissions: ['clipboard-read', 'clipboard-write'] });
    const row = rows(page).filter({ hasText: '#1' });
    assert.match(await row.innerText(), /up PUT \/v1\/alerts%20x/);
    assert.doesNotMatch(await rows(page).filter({ hasText: '#2' }).innerText(), /POST/);
    await row.click();
    await untilText(page, '#detail-title', '#1');
    assert.match(await page.locator('#detail .facts').first().innerText(), /^PUT \/v1\/alerts%20x · from 203\.0\.113\.7 · /);
    await page.getByRole('button', { name: 'Copy as curl' }).click();
    await page.waitForFunction(() => navigator.clipboard.readText().then((text) => text.startsWith('curl -g -X PUT ')));
    assert.ok((await page.evaluate(() => navigator.clipboard.readText())).endsWith(`'${url}/v1/alerts%20x?a=1'`));
    await page.locator('#detail').getByRole('button', { name: 'Send again' }).click();
    await rows(page).filter({ hasText: '#3' }).waitFor();
    const [first, , again] = await readAll(url);
    assert.deepEqual([again.method, again.path, again.query, again.raw], [first.method, first.path, first.query, first.raw]);
    for (const text of ['alerts%20x', 'put /v1', '203.0.113.7']) {
        await page.fill('#filter', text);
        await untilIds(page, text === '203.0.113.7' ? ['#1'] : ['#3', '#1']);
    }
});

pageTest('a path that leads elsewhere is shown, and not sent again', async ({ open }) => {
    const [name, other] = [freshName(), freshName()];
    const { port } = new URL(origin);
    const { connect } = await import('node:net');
    const socket = connect(Number(port), '127.0.0.1');
    socket.write(`POST /${name}/%2e%2e/${other} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}`);
    for await (const _ of socket);
    const page = await open(`${origin}/#${name}`);
    await untilText(page, '#detail-title', '#1');
    assert.match(await page.locator('#detail .facts').first().innerText(), /POST \/%2e%2e\//);
    await page.locator('#detail').getByRole('button', { name: 'Send again' }).click();
    await rows(page).filter({ hasText: '#2' }).waitFor();
    assert.equal((await readAll(`${origin}/${other}`)).length, 0);
});

// ---------------------------------------------------------------------------------------------- files

function crc32(bytes) {
    let crc = ~0;
    for (const byte of bytes) {
        crc ^= byte;
        for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ 0xedb88320 : crc >>> 1;
    }
    return ~crc >>> 0;
}

function chunk(type, data) {
    const body = Buffer.concat([Buffer.from(type), data]);
    const framed = Buffer.alloc(8 + body.length);
    framed.writeUInt32BE(data.length);
    body.copy(framed, 4);
    framed.writeUInt32BE(crc32(body), 4 + body.length);
    return framed;
}

/** A PNG of one colour, whose head may say that it is larger than it is. */
function png(width, height = width, said = width) {
    const head = Buffer.from([0, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0, 0]);
    head.writeUInt32BE(said);
    head.writeUInt32BE(height, 4);
    const lines = Buffer.alloc((width + 1) * height, 0x77);
    for (let line = 0; line < height; line++) lines[line * (width + 1)] = 0;
    return Buffer.concat([Buffer.from('\x89PNG\r\n\x1a\n', 'latin1'), chunk('IHDR', head), chunk('IDAT', deflateSync(lines)), chunk('IEND', Buffer.alloc(0))]);
}

const GIF = Buffer.from('R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7', 'base64');
const AVIF = Buffer.from(
    'AAAAIGZ0eXBhdmlmAAAAAGF2aWZtaWYxbWlhZk1BMUIAAADybWV0YQAAAAAAAAAoaGRscgAAAAAAAAAAcGljdAAAAAAAAAAAAAAAAGxpYmF2aWYAAAAADnBpdG0AAAAAAAEAAAAeaWxvYwAAAABEAAABAAEAAAABAAABGgAAAB0AAAAoaWluZgAAAAAAAQAAABppbmZlAgAAAAABAABhdjAxQ29sb3IAAAAAamlwcnAAAABLaXBjbwAAABRpc3BlAAAAAAAAAAIAAAACAAAAEHBpeGkAAAAAAwgICAAAAAxhdjFDgQ0MAAAAABNjb2xybmNseAACAAIAAYAAAAAXaXBtYQAAAAAAAAABAAEEAQKDBAAAACVtZGF0EgAKCBgANogQEAwgMg8f8D///8WfhwB8+ErK42A=',
    'base64',
);
const SVG = Buffer.from('<svg xmlns="http://www.w3.org/2000/svg" width="10" height="10"><script>window.hacked=1</script></svg>');

async function pushForm(url, fields) {
    const form = new FormData();
    for (const [name, value, filename, type] of fields) {
        if (filename === undefined) form.append(name, value);
        else form.append(name, new Blob([value], { type }), filename);
    }
    const response = await fetch(url, { method: 'POST', body: form });
    assert.equal(await response.text(), 'OK');
}

pageTest('the files of a form: name, type and size, a picture as a picture, and a download of the exact bytes', async ({ open }) => {
    const name = freshName();
    await pushForm(`${origin}/${name}`, [
        ['from', 'Ann'],
        ['photo', png(40, 30), 'garden.png', 'image/png'],
        ['docs', 'two\nlines é', 'notes.txt', 'text/plain'],
        ['docs', Buffer.from([0, 255, 1]), '../up\u202egpj.exe', 'application/octet-stream'],
    ]);
    const page = await open(`${origin}/#${name}`);
    const files = page.locator('#detail .files > li');
    await files.nth(2).waitFor();
    assert.match(await page.locator('#detail').innerText(), /Files \(3\)/);
    assert.match(await files.nth(0).innerText(), /^garden\.png\s+field photo · image\/png · \d+ bytes/);
    assert.match(await files.nth(2).innerText(), /up\\u202egpj\.exe\s+field docs · application\/octet-stream · 3 bytes/);
    await page.waitForFunction(() => document.querySelector('.files img').naturalWidth === 40 && document.querySelector('.files img').naturalHeight === 30);
    assert.equal(await page.locator('.files img').getAttribute('alt'), 'garden.png');
    assert.equal(await page.locator('.files img').count(), 1);
    for (const [index, suggested, bytes] of [
        [0, 'garden.png', png(40, 30)],
        [1, 'notes.txt', Buffer.from('two\nlines é')],
        [2, /^[^/\\\u202e]*up_u202egpj\.exe$/, Buffer.from([0, 255, 1])],
    ]) {
        const [download] = await Promise.all([page.waitForEvent('download'), files.nth(index).getByRole('button', { name: /^Download/ }).click()]);
        if (suggested instanceof RegExp) assert.match(download.suggestedFilename(), suggested);
        else assert.equal(download.suggestedFilename(), suggested);
        assert.deepEqual(await readFile(await download.path()), bytes);
    }
});

pageTest('a file that only says that it is one does not keep an update from being shown', async ({ open }) => {
    const name = freshName();
    const forged = { a: { content_type: 'image/png', size: 1, body_base64: '%%%' }, b: 'the rest' };
    const headers = { 'Content-Type': 'multipart/form-data; boundary=B' };
    await fetch(`${origin}/${name}`, { method: 'POST', headers, body: JSON.stringify(forged) });
    const page = await open(`${origin}/#${name}`);
    await page.locator('#detail .files > li').waitFor();
    assert.match(await page.locator('#detail').innerText(), /the rest/);
    assert.equal(await page.locator('.files img').count(), 0);
});

pageTest('each kind of picture that cannot script is shown', async ({ open }) => {
    const painter = await open(`${origin}/robots.txt`);
    const drawn = await painter.evaluate(async () => {
        const canvas = Object.assign(document.createElement('canvas'), { width: 30, height: 20 });
        canvas.getContext('2d').fillRect(0, 0, 10, 10);
        const made = {};
        for (const [name, type, quality] of [['jpeg', 'image/jpeg', 0.9], ['webp', 'image/webp', 0.5], ['lossless', 'image/webp', 1]]) {
            const blob = await new Promise((resolve) => canvas.toBlob(resolve, type, quality));
            made[name] = Array.from(new Uint8Array(await blob.arrayBuffer()));
        }
        return made;
    });
    const name = freshName();
    await pushForm(`${origin}/${name}`, [
        ['a', GIF, 'a.gif', 'image/gif'],
        ['b', Buffer.from(drawn.jpeg), 'b.jpg', 'image/jpeg'],
        ['c', Buffer.from(drawn.webp), 'c.webp', 'image/webp'],
        ['d', Buffer.from(drawn.lossless), 'd.webp', 'IMAGE/WEBP'],
        ['e', AVIF, 'e.avif', 'image/avif'],
    ]);
    const page = await open(`${origin}/#${name}`);
    await page.waitForFunction(() => [...document.querySelectorAll('.files img')].map((image) => `${image.alt} ${image.naturalWidth}`).join() === 'a.gif 1,b.jpg 30,c.webp 30,d.webp 30,e.avif 2');
});

pageTest('no other file is shown: markup, SVG, what is not what it says, what would be huge', async ({ open }) => {
    const name = freshName();
    const url = `${origin}/${name}`;
    await pushForm(url, [
        ['svg', SVG, 'a.svg', 'image/svg+xml'],
        ['named', SVG, 'b.png', 'image/png'],
        ['html', '<script>window.hacked=1</script>', 'c.html', 'text/html'],
        ['text', 'GIF89a', 'd.gif', 'image/gif'],
        ['huge', png(8, 8, 0x7fffffff), 'e.png', 'image/png'],
        ['cut', png(40).subarray(0, 20), 'f.png', 'image/png'],
        ['jpeg', Buffer.from([0xff, 0xd8, 0xff, 0xe0, 0, 0]), 'g.jpg', 'image/jpeg'],
        ['markup', 'x', '<img src=x onerror=window.hacked=1>', 'text/<b>'],
        ['broken', png(40).subarray(0, 40), 'h.png', 'image/png'],
    ]);
    const page = await open(`${origin}/#${name}`);
    await page.locator('.files > li').nth(8).waitFor();
    await page.waitForFunction(() => !document.querySelector('.files img'));
    assert.equal(await page.locator('#detail :is(script, img, iframe, svg, a, style, object, embed)').count(), 0);
    // A file that is opened is no page: its blob has no type that runs.
    const [download] = await Promise.all([page.waitForEvent('download'), page.getByRole('button', { name: 'Download c.html' }).click()]);
    assert.match(download.url(), /^blob:/);
    const type = await page.evaluate(async () => {
        const made = [];
        const make = URL.createObjectURL;
        URL.createObjectURL = (blob) => (made.push(blob.type), make.call(URL, blob));
        document.querySelector('[aria-label="Download a.svg"]').click();
        return made;
    });
    assert.deepEqual(type, ['application/octet-stream']);
    assert.equal(await page.evaluate(() => window.hacked), undefined);
    // JSON that only looks like files is not drawn as such; nor is what lacks a member of one.
    await push(url, { a: { content_type: 'image/png', size: 1, body_base64: 'AA==' } });
    await untilText(page, '#kept', '2 updates');
    await rows(page).filter({ hasText: '#2' }).click();
    await untilText(page, '#detail-title', '#2');
    assert.equal(await page.locator('.files').count(), 0);
});

pageTest('a thousand files are listed in part', async ({ open }) => {
    const name = freshName();
    await pushForm(`${origin}/${name}`, Array.from({ length: 300 }, (_, n) => [`f${n % 3}`, png(4), `${n}.png`, 'image/png']));
    const page = await open(`${origin}/#${name}`);
    await untilText(page, '.files', 'and 250 more files');
    assert.match(await page.locator('#detail').innerText(), /Files \(300\)/);
    assert.equal(await page.locator('.files img').count(), 12);
});

// ---------------------------------------------------------------------------------------------- duplicates

pageTest('the same delivery again is marked, and leads to the first', async ({ open, servers }) => {
    const { origin } = await servers.start(['--data-provider', 'memory', '--channel-storage-maxsize', '4']);
    const name = freshName();
    const url = `${origin}/${name}`;
    for (const id of ['x', 'y', 'z', 'y', 'x']) await push(url, { event: id }, { headers: { 'X-GitHub-Delivery': id } });
    const page = await open(`${origin}/#${name}`);
    await untilText(page, '#detail-title', '#5');
    for (const [id, isAgain] of [['#2', false], ['#3', false], ['#4', true], ['#5', true]]) {
        assert.equal(/again/.test(await rows(page).filter({ hasText: id }).innerText()), isAgain, id);
    }
    assert.match(await page.locator('#detail').innerText(), /The same delivery as #1/);
    await page.locator('#detail').getByRole('button', { name: '#1' }).click();
    await untilText(page, '#notices', '#1 is not kept any more');
    await page.fill('#filter', '#4');
    await untilIds(page, ['#4']);
    await rows(page).first().click();
    await page.locator('#detail').getByRole('button', { name: '#2' }).click();
    await untilText(page, '#detail-title', '#2');
    assert.equal(await page.locator('.row[aria-selected=true] .id').innerText(), '#2');
    await untilIds(page, ['#5', '#4', '#3', '#2']);
});

// ---------------------------------------------------------------------------------------------- refused pushes

/** A server that refuses what is larger than 4 KiB. */
const small = (servers) => servers.start(['--data-provider', 'memory', '--max-body', '4096']);

async function refuse(url, init) {
    const response = await fetch(url, { method: 'POST', ...init });
    assert.ok(response.status >= 400);
}

pageTest('why a webhook does not arrive: what was refused, why, and what to do, where nothing has come yet', async ({ open, servers }) => {
    const server = await small(servers);
    const name = freshName();
    const url = `${server.origin}/${name}`;
    await refuse(`${url}/v1`, { body: 'x'.repeat(5000) });
    const page = await open(`${server.origin}/#${name}`);
    const text = await untilText(page, '#refused[open]', 'Raise MAX_BODY');
    assert.match(text, /^1 push was refused in the last hour: The body is larger than MAX_BODY \(413\)/);
    assert.match(text, /M: POST \/v1 from 127\.0\.0\.1, 5\.00 kB/);
    assert.ok(await page.locator('#refused li').isVisible(), 'it is open');
    assert.ok(await page.locator('#empty').isVisible());
    await untilText(page, '#said', 'refused in the last hour');
});

pageTest('a push to the address that reads is told at the channel, with what to do', async ({ open, servers }) => {
    const server = await small(servers);
    const name = `v_${'a'.repeat(26)}`;
    await refuse(`${server.origin}/${name}`, { body: '{}' });
    const page = await open(`${server.origin}/#${name}`);
    const text = await untilText(page, '#refused', 'Give it the sending one, which begins with w_');
    assert.match(text, /^1 push was refused in the last hour: This address only reads: .* \(403\)/);
});

pageTest('what is refused is asked for now and then while the page is seen, and grouped by its reason', async ({ open, servers }) => {
    const server = await small(servers);
    const name = freshName();
    const url = `${server.origin}/${name}`;
    await push(url, { n: 1 });
    const page = await open();
    await page.clock.install();
    let asked = 0;
    page.on('request', (request) => request.url().endsWith('/refused') && asked++);
    await page.goto(`${server.origin}/#${name}`);
    await rows(page).first().waitFor();
    assert.ok(await page.locator('#refused').isHidden());
    for (let n = 0; n < 3; n++) await refuse(url, { body: 'x'.repeat(5000) });
    await refuse(`${url}/getUpdates`, { body: '{}' });
    await page.clock.fastForward(31_000);
    await untilText(page, '#refused', '4 pushes were refused in the last hour');
    assert.ok(await page.locator('#refused ul').isHidden(), 'where updates come it is closed');
    await page.click('#refused summary');
    const items = page.locator('#refused li');
    assert.match(await items.nth(0).innerText(), /This path does not take this method \(405\)[^]*POST \/getUpdates[^]*only takes GET/);
    assert.match(await items.nth(1).innerText(), /The body is larger than MAX_BODY \(413\)\s+3 times, last/);
    assert.equal(await items.count(), 2);
    // It stays open when more comes, and is not asked for by a page that nobody sees.
    await refuse(url, { body: 'x'.repeat(5000) });
    await page.clock.fastForward(31_000);
    await untilText(page, '#refused', '5 pushes were refused');
    assert.ok(await items.first().isVisible());
    await page.evaluate(() => Object.defineProperty(document, 'hidden', { value: true, configurable: true }));
    const before = asked;
    await page.clock.fastForward(95_000);
    const told = page.waitForResponse((response) => response.url().endsWith('/refused'));
    await page.evaluate(() => {
        delete document.hidden;
        document.dispatchEvent(new Event('visibilitychange'));
    });
    await told;
    assert.equal(asked, before + 1);
    // Another address has none.
    await page.click('#fresh');
    assert.ok(await page.locator('#refused').isHidden());
});

pageTest('where updates have come it is closed, also when they are slower', async ({ open, servers }) => {
    const server = await small(servers);
    const name = freshName();
    await push(`${server.origin}/${name}`, { n: 1 });
    await refuse(`${server.origin}/${name}/getUpdates`);
    const page = await open();
    let goOn;
    const isTold = new Promise((resolve) => (goOn = resolve));
    await page.route(`**/${name}?*`, async (route) => {
        await isTold;
        await route.continue();
    });
    await page.goto(`${server.origin}/#${name}`);
    await page.locator('#refused summary').waitFor();
    goOn();
    await rows(page).first().waitFor();
    assert.ok(await page.locator('#refused ul').isHidden());
    // Where none has, it opens; and stays closed once the reader has closed it.
    await page.goto(`${server.origin}/#${name}2`);
    await untilLive(page);
    await refuse(`${server.origin}/${name}2/getUpdates`);
    await page.reload();
    await page.locator('#refused ul').waitFor();
    await page.click('#refused summary');
    await page.click('#pause');
    await page.click('#pause');
    await untilLive(page);
    assert.ok(await page.locator('#refused ul').isHidden());
});

pageTest('each reason has words of its own, and those of strangers are text', async ({ open, servers }) => {
    const server = await small(servers);
    const name = freshName();
    const page = await open();
    const markup = '<img src=x onerror=window.hacked=1>\u202e';
    const reasons = ['busy', 'store_away', 'unknown', 'constructor'];
    await page.route(`**/${name}/refused`, (route) => {
        const refused = reasons.map((reason) => ({ at: Date.now(), status: 503, reason, error: `${reason} ${markup}`, method: markup, path: markup, from: markup }));
        return route.fulfill({ json: { ok: true, refused } });
    });
    await page.goto(`${server.origin}/#${name}`);
    const text = await untilText(page, '#refused[open]', '4 pushes were refused');
    assert.ok(text.includes('<img src=x onerror=window.hacked=1>\\u202e'));
    for (const part of ['raise BUFFER_SIZE', '/-/health', 'not sound HTTP']) assert.ok(text.includes(part), part);
    assert.equal(await page.locator('#refused img').count(), 0);
    assert.equal(await page.evaluate(() => window.hacked), undefined);
});

pageTest('a server or proxy that tells nothing of it does no harm', async ({ open }) => {
    for (const answer of [{ status: 404, json: { ok: false } }, { body: '<html>' }, { json: { refused: 'x' } }]) {
        const name = freshName();
        const page = await open(undefined, { expected: FAILED_REQUEST });
        await page.route(`**/${name}/refused`, (route) => route.fulfill(answer));
        await page.goto(`${origin}/#${name}`);
        await untilLive(page);
        await push(`${origin}/${name}`, { n: 1 });
        await rows(page).first().waitFor();
        assert.ok(await page.locator('#refused').isHidden());
    }
});

pageTest('NDJSON is sent as a batch', async ({ open }) => {
    const name = freshName();
    const page = await open(`${origin}/#${name}`);
    await untilLive(page);
    await page.click('#send summary');
    await page.selectOption('#send-type', 'application/x-ndjson');
    await page.fill('#send-body', '{"n":1}\n{"n":2}');
    await page.locator('#send-form').getByRole('button').click();
    await untilIds(page, ['#2', '#1']);
});
