// For whom the page is: keyboards, screen readers, phones, dark rooms.

import assert from 'node:assert/strict';
import { createRequire } from 'node:module';
import { FAILED_REQUEST, freshName, keysOf, origin, pageTest, push, rows, untilIds, untilLive, untilText } from './helpers.mjs';

const axe = createRequire(import.meta.url).resolve('axe-core/axe.min.js');

/** Fails on a finding of axe-core that is serious or critical. */
async function isAccessible(page, what) {
    await page.addScriptTag({ path: axe });
    // In the dark only the colours are others.
    const { violations } = await page.evaluate(() => window.axe.run(matchMedia('(prefers-color-scheme: dark)').matches ? { runOnly: ['color-contrast'] } : {}));
    const bad = violations.filter(({ impact }) => impact === 'serious' || impact === 'critical');
    assert.deepEqual(bad.map(({ id, nodes }) => [id, nodes.map(({ html, failureSummary }) => `${html} ${failureSummary}`)]), [], what);
}

/** Pushes what the server refuses. */
async function refuse(url) {
    const { status } = await fetch(`${url}/getUpdates`, { method: 'POST', body: '{}' });
    assert.equal(status, 405);
}

/** Pushes a form with a picture of one pixel. */
async function pushPicture(url) {
    const form = new FormData();
    form.append('photo', new Blob([Buffer.from('R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7', 'base64')], { type: 'image/gif' }), `${'long'.repeat(40)}.gif`);
    await (await fetch(url, { method: 'POST', body: form })).text();
}

for (const colorScheme of ['light', 'dark']) {
    const options = { expected: FAILED_REQUEST, bypassCSP: true, colorScheme, reducedMotion: 'reduce' }; // no colour is caught on its way

    pageTest(`axe-core finds nothing serious, ${colorScheme}: the inbox`, async ({ open }) => {
        const name = freshName();
        const url = `${origin}/${name}`;
        const page = await open(`${origin}/#${name}`, options);
        await untilLive(page);
        const ground = await page.evaluate(() => getComputedStyle(document.documentElement).backgroundColor);
        assert.equal(Math.max(...ground.match(/\d+/g)) < 64, colorScheme === 'dark', ground);
        await page.click('#own');
        await page.click('#send summary');
        await isAccessible(page, 'empty');
        await refuse(url);
        await page.reload(); // which asks at once
        await untilText(page, '#refused', '1 push was refused');
        await isAccessible(page, 'empty, and a push refused');
        await pushPicture(url);
        await push(`${url}?appname=a`, { a: { b: [1, 'x', null, true] }, long: 'x'.repeat(3000) });
        await push(url, 'plain', { type: 'text/plain', headers: { 'Idempotency-Key': 'x' } });
        await push(url, 'plain', { type: 'text/plain', headers: { 'Idempotency-Key': 'x' } });
        await rows(page).filter({ hasText: '#1' }).click();
        await page.locator('#detail .files img').waitFor();
        await isAccessible(page, 'files, and a delivery that came again');
        await rows(page).filter({ hasText: '#4' }).click();
        await untilText(page, '#detail', 'The same delivery as #3');
        await isAccessible(page, 'a delivery that came again is open');
        await push(url, Buffer.from(Array.from({ length: 2000 }, (_, n) => n % 256)), { type: 'application/octet-stream' });
        await rows(page).filter({ hasText: '#5' }).click();
        await page.locator('#detail .hex').waitFor();
        await isAccessible(page, 'bytes');
        await page.keyboard.press('?');
        await page.locator('#keys-help[open]').waitFor();
        await isAccessible(page, 'the keys');
        await page.keyboard.press('Escape');
        await rows(page).filter({ hasText: '#2' }).click();
        await untilText(page, '#detail-title', '#2');
        await page.locator('#detail .part').evaluateAll((parts) => parts.forEach((part) => (part.open = true)));
        await page.route('**/*', (route) => (route.request().method() === 'POST' ? route.abort() : route.continue()));
        await page.getByRole('button', { name: 'Send again' }).click();
        await page.locator('#notices p').waitFor();
        await isAccessible(page, 'an update open, and a notice');
    });

    pageTest(`axe-core finds nothing serious, ${colorScheme}: consumers, questions and filters`, async ({ open }) => {
        const name = freshName();
        const url = `${origin}/${name}`;
        await push(url, { a: 1 });
        await push(url, { a: 2 });
        await fetch(`${url}?as=mailer&ts=1`);
        const page = await open(`${origin}/#${name}`, options);
        await untilLive(page);
        await page.click('#consumers summary');
        await page.getByRole('button', { name: 'Forget mailer…' }).click();
        await isAccessible(page, 'consumers, and a question');
        await page.getByRole('button', { name: 'Keep it' }).click();
        await page.click('#delete-all');
        await isAccessible(page, 'the question before all is deleted');
        await page.keyboard.press('Escape');
        await page.focus('#filter');
        await isAccessible(page, 'the help of the filter');
        await page.fill('#filter', 'body');
        await page.fill('#filter', 'body.a');
        await untilText(page, '#filter-error', 'needs a colon');
        await isAccessible(page, 'a filter that is wrong');
        await page.click('#pause');
        await page.fill('#filter', 'nothing of that');
        await untilText(page, '#empty', 'No update holds that');
        await isAccessible(page, 'filtered, paused');
        await page.goto(`${origin}/#%`);
        await untilText(page, '#state', 'names no channel');
        await isAccessible(page, 'stopped');
    });

    pageTest(`axe-core finds nothing serious, ${colorScheme}: several channels, and an inbox that is followed`, async ({ open }) => {
        const page = await open(`${origin}/`, options);
        await untilLive(page);
        const own = new URL(page.url()).hash.slice(1);
        const { all, read } = keysOf();
        for (let n = 1; n <= 3; n++) await push(`${origin}/${all}`, { n });
        await page.goto(`${origin}/#${read}`);
        await page.getByLabel('Follow the newest').check();
        await push(`${origin}/${own}`, { n: 1 });
        await page.evaluate(() => document.dispatchEvent(new Event('visibilitychange')));
        await page.locator('#channels .count', { hasText: '1' }).waitFor();
        await rows(page).filter({ hasText: '#1' }).click();
        await untilText(page, '.follow', 'Following is paused');
        await isAccessible(page, 'a bar of channels, one of them not kept, and a pause');
        await page.locator('#notify').click();
        await untilText(page, '#notices', 'denies notifications');
        await isAccessible(page, 'no notifications');
        await page.setViewportSize({ width: 390, height: 844 });
        await page.getByRole('button', { name: 'All updates' }).click();
        await isAccessible(page, 'phone, a bar of channels');
        await page.getByRole('button', { name: 'Edit…' }).click();
        await isAccessible(page, 'phone, the names of channels');
        await page.setViewportSize({ width: 1280, height: 800 });
        await isAccessible(page, 'the names of channels');
    });

    pageTest(`axe-core finds nothing serious, ${colorScheme}: downloads, other addresses, differences, and what fails`, async ({ open }) => {
        const name = freshName();
        const url = `${origin}/${name}`;
        await push(url, { a: { b: [1, 2] }, word: 'old' });
        await push(url, { a: { b: [1, 3] }, word: 'young', more: null });
        const page = await open(`${origin}/#${name}`, options);
        await untilText(page, '#detail-title', '#2');
        await page.locator('#detail .json summary').first().focus();
        await page.keyboard.press('End');
        await isAccessible(page, 'a row of the tree, with its buttons');
        await page.getByRole('button', { name: 'Compare…' }).click();
        await page.locator('#compare li').first().waitFor();
        await isAccessible(page, 'a difference');
        await page.locator('#compare').getByRole('spinbutton').fill('9');
        await page.keyboard.press('Enter');
        await untilText(page, '#compare', 'is not kept');
        await page.locator('#compare').getByRole('button', { name: 'Compare others with #2' }).click();
        await isAccessible(page, 'nothing to compare with');
        await page.keyboard.press('Escape');
        await page.getByRole('button', { name: 'Send elsewhere…' }).click();
        for (const title of ['What a browser does', 'From a shell']) await page.locator('#resend').getByText(title).click();
        await page.locator('#resend-address').fill(`${origin}/${freshName()}`);
        await page.keyboard.press('Enter');
        await untilText(page, '#resend', 'The target answered 200');
        await isAccessible(page, 'sent to another address');
        await page.locator('#resend-address').fill('http://127.0.0.1:1/');
        await page.keyboard.press('Enter');
        await untilText(page, '#resend .error', 'There is no answer');
        await isAccessible(page, 'no answer');
        await page.keyboard.press('Escape');
        await page.fill('#filter', 'since:1h young');
        await untilText(page, '#kept', '1 shown');
        await page.click('#download-all');
        await isAccessible(page, 'which updates to download');
        await page.route(/sleep=0/, (route) => route.abort());
        await page.locator('#downloads').getByRole('button', { name: 'Download' }).click();
        await untilText(page, '#downloads .error', 'Not all could be read');
        await isAccessible(page, 'a download that failed');
        await page.keyboard.press('Escape');
        await page.fill('#filter', 'since:1h nobody wrote this');
        await untilText(page, '#empty', 'No update holds that');
        await isAccessible(page, 'nothing since then');
    });

    pageTest(`axe-core finds nothing serious, ${colorScheme}: keys that may do less, and the chat`, async ({ open }) => {
        const name = freshName();
        const url = `${origin}/${name}`;
        const { read, send } = keysOf();
        for (const key of [read, send]) {
            const limited = await open(`${origin}/#${key}`, options);
            await untilText(limited, '#address-hint', key === read ? 'reading link' : 'only sends');
            await isAccessible(limited, key.slice(0, 2));
        }
        const guest = await open(`${origin}/-/chat#${read}`, options);
        await untilLive(guest);
        await isAccessible(guest, 'a chat that is only read');

        const chat = await open(`${origin}/-/chat#${name}`, options);
        await untilLive(chat);
        await isAccessible(chat, 'an empty chat');
        await chat.fill('#name', 'Ann');
        await chat.fill('#text', 'hello');
        await chat.press('#text', 'Enter');
        await push(url, { name: 'Bob', text: 'hello, see https://example.org/tea' });
        await push(url, { name: 'Bob', text: 'tea?', room: 'tea' });
        await chat.locator('.count').waitFor();
        await chat.locator('.message a').waitFor();
        await isAccessible(chat, 'chat');

        const phone = await open(`${origin}/#${name}`, { ...options, viewport: { width: 360, height: 640 } });
        await rows(phone).first().waitFor();
        await isAccessible(phone, 'phone, list');
        await rows(phone).first().click();
        await phone.locator('.back').waitFor();
        await isAccessible(phone, 'phone, an update');
    });
}

/** Presses Tab until the focus is there. */
async function tabTo(page, selector) {
    for (let presses = 0; presses < 60; presses++) {
        await page.keyboard.press('Tab');
        if (await page.evaluate((selector) => document.activeElement.matches(selector), selector)) {
            const outline = await page.evaluate(() => getComputedStyle(document.activeElement).outlineStyle);
            assert.notEqual(outline, 'none', `the focus on ${selector} is seen`);
            return;
        }
    }
    throw new Error(`No Tab leads to ${selector}`);
}

pageTest('keyboard only: from the first look to an update that is read, filtered and sent again', async ({ open }) => {
    const page = await open(`${origin}/`, { permissions: ['clipboard-read', 'clipboard-write'] });
    await untilLive(page);
    const focused = () => page.evaluate(() => document.activeElement.id);
    await tabTo(page, '#skip');
    await page.keyboard.press('Enter');
    assert.equal(await focused(), 'inbox');
    await untilLive(page);
    await page.evaluate(() => document.activeElement.blur());
    await page.reload();
    await untilLive(page);
    await tabTo(page, '#copy-address');
    await page.keyboard.press('Enter');
    await untilText(page, '#copy-address', 'Copied');
    assert.equal(await focused(), 'copy-address');

    // The tabs: one stop, and arrows.
    await tabTo(page, '[role=tab]');
    await page.keyboard.press('ArrowRight');
    assert.match(await page.locator('#tab-code').innerText(), /setWebhook/);
    assert.equal(await page.locator('[role=tab][aria-selected=true]').innerText(), 'Telegram');
    await page.keyboard.press('Tab');
    assert.equal(await focused(), 'tab');

    // Sending.
    await tabTo(page, '#send summary');
    await page.keyboard.press('Enter');
    await tabTo(page, '#send-body');
    for (const n of [1, 2, 3]) {
        await page.keyboard.press('Control+A');
        await page.keyboard.type(`{"n":${n}}`);
        await page.locator('#send-form button:not([aria-busy])').waitFor();
        await page.keyboard.press('Control+Enter');
        await page.locator('.row', { hasText: `{"n":${n}}` }).waitFor();
    }

    // Reading: the list is one stop, with arrows.
    await tabTo(page, '#list');
    const active = () => page.evaluate(() => document.getElementById(document.getElementById('list').getAttribute('aria-activedescendant'))?.textContent);
    await page.keyboard.press('Home');
    assert.match(await active(), /#3/);
    await page.keyboard.press('ArrowDown');
    assert.match(await active(), /#2/);
    await untilText(page, '#detail-title', '#2');
    await page.keyboard.press('End');
    assert.match(await active(), /#1/);
    await untilText(page, '#detail-title', '#1');
    await tabTo(page, '#detail .choices button:nth-last-child(4)');
    await page.keyboard.press('Enter');
    await untilIds(page, ['#4', '#3', '#2', '#1']);
    await tabTo(page, '#detail .json summary');
    assert.equal(await page.getByText('"n": 1').isVisible(), true);
    await page.keyboard.press('Enter');
    await page.getByText('"n": 1').waitFor({ state: 'hidden' });

    await page.keyboard.press('Shift+Tab');
    for (let presses = 0; (await focused()) !== 'filter' && presses < 20; presses++) await page.keyboard.press('Shift+Tab');
    await page.keyboard.type('"n":2');
    await untilIds(page, ['#2']);
    await tabTo(page, '#pause');
    await page.keyboard.press('Space');
    await untilText(page, '#state', 'Paused');
});

pageTest('the focus is not lost: the test update\'s button goes, "use my own" closes', async ({ open }) => {
    const page = await open(`${origin}/`);
    await untilLive(page);
    const focused = () => page.evaluate(() => document.activeElement.id);
    await page.focus('#own');
    await page.keyboard.press('Enter');
    assert.equal(await focused(), 'own-name');
    await page.keyboard.type(freshName());
    await page.keyboard.press('Enter');
    assert.equal(await focused(), 'own');
    await untilLive(page);
    await page.focus('#send-test');
    await page.keyboard.press('Enter');
    await rows(page).first().waitFor();
    await page.waitForFunction(() => document.activeElement.id === 'list');
});

pageTest('a screen reader is told: what has come, also the first; how it is connected, but not each second', async ({ open, servers }) => {
    const server = await servers.start();
    const name = freshName();
    const page = await open(`${server.origin}/#${name}`, { expected: FAILED_REQUEST });
    await untilLive(page);
    await push(`${server.origin}/${name}`, { n: 1 });
    await untilText(page, '#said[aria-live=polite]', '1 update came');
    await push(`${server.origin}/${name}`, { n: 2 });
    await rows(page).nth(1).waitFor();
    const tree = await page.locator('#list').ariaSnapshot();
    assert.match(tree, /listbox "Updates, newest first"/);
    assert.match(tree, /option "#1 n: 1 (now|\d+ sec\. ago) .*\{.*n.*:1\}/);
    assert.equal(await page.locator('.row[aria-selected=true]').count(), 1);
    await server.stop();
    await page.locator('#state[role=status] [aria-hidden=true]', { hasText: /Next try in \d+ s/ }).waitFor();
});

pageTest('a phone: list, detail, back; nothing is wider than the screen', async ({ open }) => {
    const name = freshName();
    const options = { viewport: { width: 360, height: 640 }, isMobile: true, hasTouch: true };
    const fits = async (page, what) => assert.ok((await page.evaluate(() => document.documentElement.scrollWidth)) <= 360, what);
    await refuse(`${origin}/${name}`);
    const page = await open(`${origin}/#${name}`, options);
    await untilText(page, '#refused', 'only takes GET');
    await untilLive(page);
    await fits(page, 'empty');
    assert.ok(await page.locator('#address').isVisible());
    await push(`${origin}/${name}`, { text: 'x'.repeat(500), ['k'.repeat(200)]: 1 });
    await push(`${origin}/${name}`, { n: 2 });
    await rows(page).nth(1).waitFor();
    assert.ok(await page.locator('#detail').isHidden(), 'nothing covers the list until it is chosen');
    await fits(page, 'list');
    await page.locator('#delete-all').tap();
    await fits(page, 'the question');
    const question = await page.locator('#deletion').boundingBox();
    assert.ok(question.x >= 0 && question.x + question.width <= 360);
    await page.getByRole('button', { name: 'Keep them' }).tap();
    await rows(page).filter({ hasText: '#1' }).tap();
    await untilText(page, '#detail-title', '#1');
    const box = await page.locator('#detail').boundingBox();
    assert.deepEqual([box.x, box.y, box.width], [0, 0, 360]);
    await fits(page, 'detail');
    // What comes meanwhile does not push the reader out.
    await push(`${origin}/${name}`, { n: 3 });
    await page.locator('.row .id', { hasText: '#3' }).waitFor({ state: 'attached' });
    assert.ok(await page.locator('#detail').isVisible());
    await page.getByRole('button', { name: '← All updates' }).tap();
    assert.ok(await page.locator('#detail').isHidden());
    await untilIds(page, ['#3', '#2', '#1']);
    await pushPicture(`${origin}/${name}`);
    await rows(page).filter({ hasText: '#4' }).tap();
    await page.locator('#detail .files button').waitFor();
    await fits(page, 'files');
    await page.getByRole('button', { name: '← All updates' }).tap();
    assert.equal(await page.evaluate(() => document.activeElement.id), 'list');

    const chat = await open(`${origin}/-/chat#${name}`, options);
    await untilLive(chat);
    await chat.fill('#name', 'Ann');
    await chat.fill('#text', 'w'.repeat(300));
    await chat.locator('#composer').getByRole('button').tap();
    await chat.locator('.message', { hasText: 'www' }).waitFor();
    await fits(chat, 'chat');
    const send = await chat.locator('#composer').boundingBox();
    assert.ok(send.y + send.height <= 640, 'the composer is on the screen');
});
