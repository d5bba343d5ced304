// The page on a phone, on a desk and on a wall: what comes first is seen first, and what is filtered keeps its place.

import assert from 'node:assert/strict';
import { freshName, keysOf, origin, pageTest, push, rows, untilIds, untilLive, untilText } from './helpers.mjs';

const PHONE = { viewport: { width: 390, height: 844 }, isMobile: true, hasTouch: true };
const boxOf = (page, selector) => page.locator(selector).first().boundingBox();

/** How many rows of their own these take. */
async function lines(page, selectors) {
    const tops = new Set();
    for (const selector of selectors) {
        const { x, y, width, height } = await boxOf(page, selector);
        assert.ok(x >= 0 && x + width <= page.viewportSize().width, `${selector} is at ${x} to ${x + width}`);
        tops.add(Math.round((y + height / 2) / 10));
    }
    return tops.size;
}

pageTest('on a phone, the updates begin within the upper third of the screen', async ({ open }) => {
    const { all } = keysOf();
    await push(`${origin}/${all}`, { outer: { inner: 1 } });
    const page = await open(`${origin}/#${all}`, PHONE);
    await untilIds(page, ['#1']);
    const { y } = await boxOf(page, '.row');
    assert.ok(y < 281, `the first is at ${y}`);
    assert.equal(await lines(page, ['#address', '#copy-address']), 1);
    assert.equal(await lines(page, ['#fresh', '#own', '#reading-link']), 1);
    assert.equal(await lines(page, ['#filter', '#pause']), 1);
    assert.equal(await lines(page, ['#connect', '#send']), 1);
    // What is closed still opens.
    await page.click('#connect summary');
    assert.ok((await boxOf(page, '#tab-code')).width > 300);
    await rows(page).first().click();
    assert.match(await page.locator('#detail .json').innerText(), /"outer": 1 member[^]*"inner": 1/);
});

pageTest('on a phone, a newcomer sees one address, one button, and what to do', async ({ open }) => {
    for (const name of [keysOf().all, freshName()]) {
        const page = await open(`${origin}/#${name}`, PHONE);
        await untilLive(page);
        for (const id of ['address', 'copy-address', 'send-test']) {
            const { y, height } = await boxOf(page, `#${id}`);
            assert.ok(y >= 0 && y + height <= 844, `#${id} is at ${y} to ${y + height}`);
        }
        const buttons = name.startsWith('r_') ? ['#copy-address', '#fresh', '#own', '#reading-link'] : ['#copy-address', '#fresh', '#own'];
        assert.equal(await lines(page, buttons), buttons.length === 4 ? 2 : 1);
    }
});

pageTest('a large screen is used, and titles are not cut on it', async ({ open }) => {
    const name = freshName();
    await push(`${origin}/${name}`, { action: 'opened', n: 1 }, { headers: { 'X-GitHub-Event': 'pull_request_review_comment_with_a_long_name' } });
    const page = await open(`${origin}/#${name}`, { viewport: { width: 3840, height: 2160 } });
    await untilIds(page, ['#1']);
    const { width, height } = await boxOf(page, '#inbox');
    assert.ok(width > 3840 * 0.8, `${width} px wide`);
    assert.ok(height > 2160 * 0.7, `${height} px high`);
    assert.ok(await page.locator('.row > span:nth-child(2)').evaluate((title) => title.scrollWidth <= title.clientWidth));
});

pageTest('all that the pages are made of is less than 80 kB, and names every file that it needs at once', async ({ open }) => {
    const files = new Map();
    for (const path of ['/', '/-/chat']) {
        const page = await open();
        const sizes = [];
        page.on('response', (response) => /^\/($|-\/(chat|web\/))/.test(new URL(response.url()).pathname) && sizes.push(response));
        await page.goto(`${origin}${path}#${freshName()}`);
        await untilLive(page);
        for (const response of sizes) files.set(new URL(response.url()).pathname, Number(await response.headerValue('Content-Length')));
        // What is not named in the head is only asked for once what asks for it has come.
        const named = await page.evaluate(() => [...document.querySelectorAll('link[rel=modulepreload], script')].map((node) => new URL(node.href ?? node.src, location).pathname));
        const scripts = sizes.map((response) => new URL(response.url()).pathname).filter((file) => file.endsWith('.js'));
        assert.deepEqual([...new Set(scripts)].sort(), named.sort());
    }
    const total = [...files.values()].reduce((sum, size) => sum + size, 0);
    console.log(`# ${files.size} files, ${total} bytes`);
    assert.ok(files.size > 20 && total < 80_000, `${total} bytes`);
});

pageTest('while one filters, the detail is of an update that is shown, and nothing jumps', async ({ open }) => {
    const name = freshName();
    for (let n = 1; n <= 30; n++) await push(`${origin}/${name}`, { n, word: n % 2 ? 'odd' : 'even' });
    const page = await open(`${origin}/#${name}`);
    await untilText(page, '#detail-title', '#30');
    const before = await boxOf(page, '#panes');
    await page.fill('#filter', 'odd');
    await untilText(page, '#detail-title', '#29');
    await rows(page).filter({ hasText: '#25' }).click();
    await page.fill('#filter', '"odd"'); // it still matches, and stays
    await page.waitForFunction(() => location.hash.includes('//%22odd%22'));
    await untilText(page, '#kept', '15 shown');
    assert.match(await page.locator('#detail-title').innerText(), /#25/);
    await page.fill('#filter', 'nobody wrote this');
    await untilText(page, '#empty', 'No update holds that');
    assert.ok(await page.locator('#detail').isHidden());
    assert.deepEqual(await boxOf(page, '#panes'), before);
    assert.equal((await boxOf(page, '#filter')).y, (await boxOf(page, '#pause')).y);
    await page.fill('#filter', 'body.word:even');
    await untilText(page, '#detail-title', '#30');
    await page.fill('#filter', 'body.word:nothing');
    await untilText(page, '#empty', 'No update meets that');
    assert.ok(await page.locator('#detail').isHidden());
    assert.deepEqual(await boxOf(page, '#panes'), before);
    // What comes and matches is opened, as there is nothing else.
    await push(`${origin}/${name}`, { word: 'nothing' });
    await untilText(page, '#detail-title', '#31');
    await page.fill('#filter', '');
    await untilText(page, '#kept', '31 updates so far');
    assert.match(await page.locator('#detail-title').innerText(), /#31/);
});
