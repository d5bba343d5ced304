// What once went wrong with older updates, addresses and filters.

import assert from 'node:assert/strict';
import { deflateSync } from 'node:zlib';
import { freshName, hashOf, keysOf, origin, pageTest, push, pushMany, rows, untilIds, untilLive, untilText } from './helpers.mjs';

const PHONE = { viewport: { width: 390, height: 844 } };

/** Each 2 MB: what is asked for at once by what small ones weigh would be a thousand MB. */
pageTest('older updates come a few MB at a time, whatever the newer ones weigh', async ({ open }) => {
    const url = `${origin}/${freshName()}`;
    for (let n = 1; n <= 30; n++) await push(url, { pad: 'x'.repeat(2e6), n });
    await pushMany(url, 100, (n) => `{"small":${n}}`);
    const page = await open(`${origin}/#${url.split('/').at(-1)}`);
    await untilText(page, '#kept', '130 updates so far; the newest 100 are here');
    await page.evaluate(() => {
        const kept = document.getElementById('kept');
        let before = 100;
        window.most = 0;
        new MutationObserver(() => {
            const held = Number(/the newest (\d+) are here/.exec(kept.textContent)?.[1] ?? 130);
            window.most = Math.max(window.most, held - before);
            before = held;
        }).observe(kept, { childList: true });
    });
    await page.locator('#list').focus();
    await page.keyboard.press('End');
    const most = await (await page.waitForFunction(() => window.most)).jsonValue();
    assert.ok(most <= 6, `${most} of 2 MB came at once`);
});

pageTest('an update that is not there yet is said once', async ({ open }) => {
    const name = freshName();
    for (const n of [1, 2, 3]) await push(`${origin}/${name}`, { n });
    const page = await open(`${origin}/#${name}///4`);
    await untilText(page, '#notices', '#4 is not kept.');
    assert.equal(await hashOf(page), `#${name}`);
});

pageTest('what was open and is deleted has no address any more', async ({ open }) => {
    const { all } = keysOf();
    for (let n = 1; n <= 5; n++) await push(`${origin}/${all}`, { n });
    const page = await open(`${origin}/#${all}`);
    await untilIds(page, ['#5', '#4', '#3', '#2', '#1']);
    await rows(page).filter({ hasText: '#3' }).click();
    await untilText(page, '#detail-title', '#3');
    await page.getByRole('button', { name: 'Delete up to #3' }).click();
    await page.getByRole('button', { name: 'Delete for good' }).click();
    await untilIds(page, ['#5', '#4']);
    await untilText(page, '#detail-title', '#5');
    assert.equal(await page.locator('#notices').innerText(), '');
    assert.doesNotMatch(await hashOf(page), /\/3$/);
});

pageTest('on a phone: what is said while an update is open is seen, and one way back is one step', async ({ open }) => {
    const name = freshName();
    const url = `${origin}/${name}`;
    for (const n of [1, 2]) await push(url, { n });
    const page = await open(`${origin}/`, PHONE);
    await page.goto(`${origin}/#${name}`);
    await untilIds(page, ['#2', '#1']);
    await rows(page).filter({ hasText: '#2' }).click();
    await untilText(page, '#detail-title', '#2');
    await page.evaluate((name) => (location.hash = `${name}///9`), name);
    await untilText(page, '#notices', 'is not kept');
    await page.waitForFunction(() => !document.body.classList.contains('reading'));

    await rows(page).filter({ hasText: '#1' }).click();
    await untilText(page, '#detail-title', '#1');
    await page.evaluate(() => {
        const back = [...document.querySelectorAll('#detail button')].find(({ textContent }) => textContent.includes('All updates'));
        back.click();
        back.click();
    });
    await page.waitForFunction(() => !document.body.classList.contains('reading'));
    await untilIds(page, ['#2', '#1']);
    assert.match(await hashOf(page), new RegExp(name));
});

pageTest('a search counts each update once, whenever it comes', async ({ open }) => {
    const page = await open(`${origin}/#${freshName()}`);
    await untilLive(page);
    const found = await page.evaluate(async () => {
        const { Search } = await import('./-/web/search.js');
        const entry = (number) => ({ number, ts: number, text: '{"a":1}', update: { a: 1 }, headers: {}, method: 'POST', query: '' });
        const feed = { entries: [entry(1)], from: 0, isLoaded: true, mayHave: () => false };
        const search = new Search(feed, 'a', () => {});
        feed.entries.push(entry(2)); // in the feed before anybody was told
        search.run();
        feed.entries.push(entry(3));
        search.add([feed.entries[1], feed.entries[2]]);
        const all = search.items.map(({ ts }) => ts).join();
        feed.entries.shift(); // the feed has its bound, and what was found stays
        feed.entries.push(entry(4));
        search.add([feed.entries[2]]);
        return [all, search.items.map(({ ts }) => ts).join(), search.isComplete];
    });
    assert.deepEqual(found, ['1,2,3', '1,2,3,4', true]);
});

pageTest('what is open and matches stays open, however long the look through the others takes', async ({ open }) => {
    const name = freshName();
    await pushMany(`${origin}/${name}`, 1000, (n) => `{"n":"${n} needle"}`);
    const page = await open(`${origin}/#${name}`);
    await untilText(page, '#kept', '1,000 updates so far');
    await page.goto(`${origin}/#${name}///998`);
    await untilText(page, '#detail-title', '#998');
    const slow = await page.context().newCDPSession(page);
    await slow.send('Emulation.setCPUThrottlingRate', { rate: 30 }); // it takes more than a frame
    await page.fill('#filter', 'needle');
    await slow.send('Emulation.setCPUThrottlingRate', { rate: 1 });
    await untilText(page, '#kept', 'all that is kept has been looked through');
    assert.match(await page.locator('#detail-title').textContent(), /#998/);
    assert.match(await hashOf(page), /998$/);
});

function chunk(type, data) {
    const crcTable = (byte) => Array.from({ length: 8 }).reduce((crc) => (crc & 1 ? 0xedb88320 ^ (crc >>> 1) : crc >>> 1), byte);
    const body = Buffer.concat([Buffer.from(type), data]);
    let crc = ~0;
    for (const byte of body) crc = crcTable((crc ^ byte) & 0xff) ^ (crc >>> 8);
    const head = Buffer.alloc(4);
    head.writeUInt32BE(data.length);
    const tail = Buffer.alloc(4);
    tail.writeUInt32BE(~crc >>> 0);
    return Buffer.concat([head, body, tail]);
}

/** A sound picture of this size, in one bit a pixel. */
function pngOf(width, height) {
    const header = Buffer.alloc(13);
    header.writeUInt32BE(width);
    header.writeUInt32BE(height, 4);
    header[8] = 1;
    const rows = Buffer.alloc((Math.ceil(width / 8) + 1) * height);
    return Buffer.concat([Buffer.from('\x89PNG\r\n\x1a\n', 'latin1'), chunk('IHDR', header), chunk('IDAT', deflateSync(rows)), chunk('IEND', Buffer.alloc(0))]);
}

/** A sound picture whose screen is one pixel and whose frame is huge. */
const GIF = Buffer.from('47494638396101000100800000000000ffffff2c00000000204e204e0002024401003b', 'hex');

pageTest('a picture that is larger than it says, or too large, is not shown', async ({ open }) => {
    const name = freshName();
    const url = `${origin}/${name}`;
    await push(url, GIF, { type: 'image/gif' });
    await push(url, pngOf(8000, 8000), { type: 'image/png' });
    await push(url, pngOf(800, 800), { type: 'image/png' });
    const page = await open(`${origin}/#${name}`);
    await page.waitForFunction(() => document.querySelector('#detail img')?.naturalWidth === 800);
    await page.evaluate(() => {
        window.loaded = 0;
        const seen = new MutationObserver((changes) => {
            const images = changes.flatMap(({ addedNodes }) => [...addedNodes]).flatMap((node) => [node, ...(node.querySelectorAll?.('img') ?? [])]);
            for (const image of images) if (image.tagName === 'IMG') image.addEventListener('load', () => window.loaded++);
        });
        seen.observe(document.querySelector('#detail'), { childList: true, subtree: true });
    });
    await rows(page).filter({ hasText: '#2' }).click();
    await untilText(page, '#detail-title', '#2');
    await page.locator('#detail .hex').waitFor();
    assert.equal(await page.locator('#detail img').count(), 0);
    await rows(page).filter({ hasText: '#1' }).click();
    await untilText(page, '#detail-title', '#1');
    await page.locator('#detail .hex').waitFor();
    await page.waitForFunction(() => window.loaded === 1 && !document.querySelector('#detail img'));
});

const TITLES = [
    ['Text · 70.0 kB', 'x'.repeat(70_000), 'text/plain'],
    ['XML · a · 70.0 kB', `<a>${'x'.repeat(69_993)}</a>`, 'application/xml'],
    ['body_base64: %%%', '{"body_base64":"%%%"}', 'application/json'],
    ['body_base64: iVBORw0KGgoAAAA', '{"body_base64":"iVBORw0KGgoAAAA","n":1}', 'application/json'],
    ['body: hi', '{"body":"hi","number":12}', 'application/json'],
    ['Text · 9 bytes', '{no JSON}', 'text/plain'],
    ['HEIC picture · 24 bytes', Buffer.from('\0\0\0\x18ftypheic\0\0\0\0mif1hei\xff', 'latin1'), 'image/heic'],
    ['JSON · 140 kB', JSON.stringify({ n: 'é'.repeat(70_000) }), 'application/json'],
];

pageTest('a row says what its body is', async ({ open }) => {
    const name = freshName();
    for (const [, body, type] of TITLES) await push(`${origin}/${name}`, body, { type });
    const page = await open(`${origin}/#${name}`);
    for (const [index, [title]] of TITLES.entries()) {
        const row = rows(page).filter({ has: page.locator('.id', { hasText: new RegExp(`^#${index + 1}$`) }) });
        assert.ok((await row.innerText()).includes(title), `${await row.innerText()} has ${title}`);
    }
});

pageTest('an update with a header that browsers cannot send is sent again without it', async ({ open }) => {
    const name = freshName();
    await push(`${origin}/${name}`, { n: 1 }, { headers: { 'X-Name': Buffer.from('日本').toString('latin1'), 'X-Other': 'kept' } });
    const page = await open(`${origin}/#${name}`);
    await untilText(page, '#detail-title', '#1');
    await page.getByRole('button', { name: 'Send again' }).click();
    await untilIds(page, ['#2', '#1']);
    await rows(page).filter({ hasText: '#2' }).click();
    await untilText(page, '#detail-title', '#2');
    const [, second] = (await (await fetch(`${origin}/${name}?view=full`)).json()).updates;
    assert.equal(second.headers['x-other'], 'kept');
    assert.equal(second.headers['x-name'], undefined);
});

/** Requests that match wait from now on, until the returned function is called. */
const hold = async (page, pattern) => {
    let release;
    const released = new Promise((resolve) => (release = resolve));
    await page.route(pattern, async (route) => {
        await released;
        await route.continue();
    });
    return release;
};

pageTest('a link to an older update is not overtaken by the newest that is followed', async ({ open }) => {
    const name = freshName();
    const url = `${origin}/${name}`;
    await pushMany(url, 130, (n) => `{"n":${n + 1}}`);
    const page = await open();
    await page.clock.install();
    await page.goto(`${origin}/#${name}`);
    await untilText(page, '#detail-title', '#130');
    await page.locator('#follow').click();
    const release = await hold(page, /ts=11&/);
    const asked = page.waitForRequest(/ts=11&/);
    await page.evaluate((hash) => (location.hash = hash), `${name}///12`);
    await asked;
    await push(url, { n: 131 });
    await rows(page).filter({ hasText: '#131' }).waitFor();
    await page.clock.runFor(1000);
    release();
    await untilText(page, '#detail-title', '#12');
    assert.equal(await hashOf(page), `#${name}///12`);
    await untilText(page, '.follow', 'Following is paused');
});

pageTest('while the server is asked about a condition, what comes does not bring back what it leaves out', async ({ open }) => {
    const name = freshName();
    const url = `${origin}/${name}`;
    for (let n = 1; n <= 5; n++) await push(url, { n });
    const page = await open(`${origin}/#${name}///3`);
    await untilText(page, '#detail-title', '#3');
    const release = await hold(page, /ts=now.*where=/);
    const asked = page.waitForRequest(/ts=now.*where=/);
    await page.fill('#filter', 'body.n:5');
    await asked;
    await push(url, { n: 6 });
    await rows(page).filter({ hasText: '#6' }).waitFor();
    release();
    await untilIds(page, ['#5']);
    await untilText(page, '#detail-title', '#5');
    assert.doesNotMatch(await hashOf(page), /\/3$/);
});

pageTest('an answer to a deletion leaves alone the question that is asked by then', async ({ open }) => {
    const { all } = keysOf();
    for (let n = 1; n <= 5; n++) await push(`${origin}/${all}`, { n });
    const page = await open(`${origin}/#${all}`);
    await untilIds(page, ['#5', '#4', '#3', '#2', '#1']);
    const deletes = (request) => request.method() === 'DELETE';
    let release;
    const released = new Promise((resolve) => (release = resolve));
    await page.route(`**/${all}*`, async (route) => {
        if (deletes(route.request())) await released;
        await route.continue();
    });
    await rows(page).filter({ hasText: '#2' }).click();
    await page.getByRole('button', { name: 'Delete up to #2' }).click();
    const asked = page.waitForRequest(deletes);
    await page.getByRole('button', { name: 'Delete for good' }).click();
    await asked;
    await page.keyboard.press('Escape');
    await page.click('#delete-all');
    assert.ok(await page.getByRole('button', { name: 'Delete for good' }).isEnabled());
    release();
    await untilIds(page, ['#5', '#4', '#3']);
    assert.ok(await page.locator('#deletion').evaluate((dialog) => dialog.open));
});

pageTest('answers that overtake each other: of what is asked again, the later question counts', async ({ open }) => {
    const page = await open();
    await page.clock.install();
    const name = freshName();
    const old = { refused: [{ at: Date.now(), status: 413, reason: 'too_large', error: 'old', method: 'POST', path: '/', from: '::1' }], consumers: [{ name: 'old', ts: 0, lag: 0, at: Date.now() }] };
    for (const what of ['refused', 'consumers']) {
        const url = `**/${name}/${what}`;
        let release;
        const released = new Promise((resolve) => (release = resolve));
        let asked = 0;
        await page.route(url, async (route) => {
            const isFirst = !asked++;
            if (isFirst) await released;
            await route.fulfill({ json: { ok: true, [what]: isFirst ? old[what] : [] } });
        });
        const first = page.waitForRequest(url);
        await page.goto(`${origin}/#${name}`);
        await first;
        const later = page.waitForResponse(url);
        await page.clock.runFor(60_000);
        await (await later).finished();
        await page.clock.runFor(1000);
        const overtaken = page.waitForResponse(url);
        release();
        await (await overtaken).finished();
        await page.evaluate(() => new Promise(requestAnimationFrame));
        assert.ok(await page.locator(`#${what}`).isHidden(), what);
        await page.goto('about:blank');
    }
});

pageTest('a link that is followed while one types leaves what is typed', async ({ open }) => {
    const name = freshName();
    for (let n = 1; n <= 3; n++) await push(`${origin}/${name}`, { n });
    const page = await open(`${origin}/#${name}`);
    await untilText(page, '#detail-title', '#3');
    await page.evaluate((hash) => {
        const filter = document.getElementById('filter');
        filter.value = '"n"';
        filter.dispatchEvent(new Event('input'));
        location.hash = hash;
    }, `${name}///2`);
    await untilText(page, '#detail-title', '#2');
    await page.waitForFunction(() => location.hash.includes('//%22n%22'));
    assert.equal(await page.inputValue('#filter'), '"n"');
});
