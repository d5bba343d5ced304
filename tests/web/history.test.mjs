// What is older than the page: it opens on the newest, and everything that is kept can be found and has an address.

import assert from 'node:assert/strict';
import { FAILED_REQUEST, freshName, hashOf, keysOf, origin, pageTest, push, pushMany, readAll, rows, untilIds, untilLive, untilText } from './helpers.mjs';

const PHONE = { viewport: { width: 390, height: 844 }, isMobile: true, hasTouch: true };
const large = (n, word = '') => JSON.stringify({ n, word, fill: 'x'.repeat(4000) });

/** A channel of so many updates, on a server of its own that keeps them all. */
async function channelOf(servers, count, make) {
    const server = await servers.start(['--data-provider', 'memory', '--channel-storage-maxsize', '20000']);
    const name = freshName();
    const url = `${server.origin}/${name}`;
    await pushMany(url, count, make);
    return { name, url, page: `${server.origin}/#${name}`, origin: server.origin };
}

// ---------------------------------------------------------------------------------------------- the newest

pageTest('it opens on the newest update, however many replies that takes, and history is not new', async ({ open }) => {
    const name = freshName();
    await pushMany(`${origin}/${name}`, 400, (n) => large(n + 1));
    for (let n = 401; n <= 430; n++) await push(`${origin}/${name}`, `{"n":${n},"fill":"${'y'.repeat(100_000)}"}`);
    const page = await open();
    await page.addInitScript(() => {
        window.tinted = 0;
        new MutationObserver(() => (window.tinted += document.querySelectorAll('.row.new').length)).observe(document, { childList: true, subtree: true });
    });
    await page.goto(`${origin}/#${name}`);
    await untilText(page, '#detail-title', '#430');
    assert.match(await page.locator('.row[aria-selected=true]').innerText(), /#430/);
    assert.equal(await page.locator('#list').evaluate((list) => list.scrollTop), 0);
    assert.equal(await page.evaluate(() => window.tinted), 0);
    await push(`${origin}/${name}`, { n: 431 });
    await page.locator('.row.new', { hasText: '#431' }).waitFor();
    await untilText(page, '#detail-title', '#430'); // what is read stays
});

// ---------------------------------------------------------------------------------------------- older ones

pageTest('older updates come as one scrolls, down to the first', async ({ open, servers }) => {
    const { page: url } = await channelOf(servers, 2500, (n) => `{"n":${n + 1}}`);
    const page = await open(url);
    await untilText(page, '#kept', 'the newest 100 are here');
    await page.focus('#list');
    await page.waitForFunction(() => {
        document.getElementById('list').scrollTop = 1e9;
        return [...document.querySelectorAll('.row .id')].some(({ textContent }) => textContent === '#1');
    });
    assert.equal(await page.locator('#kept').innerText().then((text) => text.includes('are here')), false, 'all are');
    assert.ok((await rows(page).count()) < 60);
    await page.keyboard.press('End');
    await untilText(page, '#detail-title', '#1');
});

pageTest('the filter looks through everything that is kept, and says so', async ({ open, servers }) => {
    const { page: url } = await channelOf(servers, 3000, (n) => large(n + 1, [7, 1500, 2990].includes(n + 1) ? 'needle' : 'hay'));
    const page = await open(url);
    await untilText(page, '#detail-title', '#3000');
    await page.fill('#filter', 'needle');
    await untilIds(page, ['#2990', '#1500', '#7']);
    await untilText(page, '#kept', '3 shown; all that is kept has been looked through');
    await page.evaluate(() => {
        const title = document.getElementById('empty-title');
        window.said = [];
        new MutationObserver(() => window.said.push(title.textContent)).observe(title, { childList: true });
    });
    await page.fill('#filter', 'nobody wrote this');
    await untilText(page, '#empty', 'No update holds that');
    assert.ok(await page.evaluate(() => window.said.includes('Looking…')));
    await page.fill('#filter', 'body.word:needle');
    await untilIds(page, ['#2990', '#1500', '#7']);
    await page.fill('#filter', 'body.n:2*');
    await untilText(page, '#kept', '1,111 shown');
});

pageTest('conditions reach further back than what a page looks at first', async ({ open, servers }) => {
    const { page: url } = await channelOf(servers, 15_000, (n) => `{"n":${n + 1}}`);
    const page = await open(`${url}//body.n%3A42`);
    await untilIds(page, ['#42']);
    await untilText(page, '#detail-title', '#42');
    await page.fill('#filter', 'body.n:none');
    await untilText(page, '#empty', 'No update meets that');
});

pageTest('#N leads to the update of that id', async ({ open, servers }) => {
    const { page: url } = await channelOf(servers, 3000, (n) => `{"n":${n + 1}}`);
    const page = await open(url);
    await untilText(page, '#detail-title', '#3000');
    for (const id of ['#17', '#2999', '#1']) {
        await page.fill('#filter', id);
        await untilIds(page, [id]);
        await untilText(page, '#detail-title', id);
    }
    await page.fill('#filter', '#4000');
    await untilText(page, '#empty', 'No update holds that');
});

// ---------------------------------------------------------------------------------------------- addresses of updates

pageTest('every update has an address, and leads to it also when it is old', async ({ open, servers }) => {
    const { name, page: url, origin } = await channelOf(servers, 3000, (n) => `{"n":${n + 1}}`);
    const page = await open(url);
    await untilText(page, '#detail-title', '#3000');
    assert.equal(await hashOf(page), `#${name}`, 'what the page opens by itself is not in the address');
    await rows(page).filter({ hasText: '#2998' }).click();
    assert.equal(await hashOf(page), `#${name}///2998`);
    await page.keyboard.press('ArrowDown');
    await untilText(page, '#detail-title', '#2997');
    await page.waitForFunction((hash) => location.hash === hash, `#${name}///2997`);
    await page.reload();
    await untilText(page, '#detail-title', '#2997');

    const other = await open(`${origin}/#${name}///12`);
    await untilText(other, '#detail-title', '#12');
    assert.match(await other.locator('#detail .json').innerText(), /"n": 12/);
    await other.evaluate((hash) => (location.hash = hash), `#${name}///3000`);
    await untilText(other, '#detail-title', '#3000');
    await other.evaluate((hash) => (location.hash = hash), `#${name}///9000`);
    await untilText(other, '#notices', '#9000 is not kept');
});

pageTest('on a phone, the way back from an open update is the list', async ({ open }) => {
    const name = freshName();
    for (let n = 1; n <= 5; n++) await push(`${origin}/${name}`, { n });
    const page = await open('about:blank', PHONE);
    await page.goto(`${origin}/#${name}`);
    await untilIds(page, ['#5', '#4', '#3', '#2', '#1']);
    const isOpen = () => page.evaluate(() => document.body.classList.contains('reading'));
    const untilClosed = () => page.waitForFunction(() => !document.body.classList.contains('reading'));
    await rows(page).filter({ hasText: '#3' }).click();
    await untilText(page, '#detail-title', '#3');
    assert.equal(await hashOf(page), `#${name}///3`);
    await page.goBack();
    await untilClosed();
    assert.equal(await hashOf(page), `#${name}`);
    await page.goForward();
    await untilText(page, '#detail-title', '#3');
    assert.ok(await isOpen());
    // The page's own button is the same way.
    await page.getByRole('button', { name: '← All updates' }).click();
    await untilClosed();
    await page.waitForFunction((hash) => location.hash === hash, `#${name}`);
    await rows(page).filter({ hasText: '#1' }).click();
    await page.goBack();
    await untilClosed();
    await page.goBack();
    assert.equal(page.url(), 'about:blank');

    // Who came by a link to the update gets to the list, and leaves from there.
    await page.goto(`${origin}/#${name}///2`);
    await untilText(page, '#detail-title', '#2');
    await page.getByRole('button', { name: '← All updates' }).click();
    await untilClosed();
    assert.equal(await hashOf(page), `#${name}`);
});

pageTest('a link to an update only reads, and opens it', async ({ open }) => {
    const { all, read, send } = keysOf();
    for (let n = 1; n <= 3; n++) await push(`${origin}/${send}`, { n });
    const page = await open(`${origin}/#${all}`, { permissions: ['clipboard-read', 'clipboard-write'] });
    await rows(page).filter({ hasText: '#2' }).click();
    await untilText(page, '#detail-title', '#2');
    await page.getByRole('button', { name: 'Copy link' }).click();
    await page.getByRole('button', { name: 'Copied' }).waitFor();
    const link = await page.evaluate(() => navigator.clipboard.readText());
    assert.equal(link, `${origin}/#${read}///2`);
    const other = await open(link);
    await untilText(other, '#detail-title', '#2');
    assert.equal(await other.getByRole('button', { name: /^(Send again|Delete)/ }).count(), 0);
    assert.equal(await other.getByRole('button', { name: 'Copy link' }).count(), 1);
    // The address of a plain secret does everything: it is not offered as a link to give away.
    const name = freshName();
    await push(`${origin}/${name}`, { n: 1 });
    const plain = await open(`${origin}/#${name}`);
    await untilText(plain, '#detail-title', '#1');
    assert.equal(await plain.getByRole('button', { name: 'Copy link' }).count(), 0);
});

// ---------------------------------------------------------------------------------------------- keys

pageTest('/, j, k and Enter do what one expects, ? tells them, and none gets in the way of typing', async ({ open }) => {
    const name = freshName();
    for (let n = 1; n <= 5; n++) await push(`${origin}/${name}`, { n, word: n % 2 ? 'odd' : 'even' });
    const page = await open(`${origin}/#${name}`);
    await untilText(page, '#detail-title', '#5');
    for (const [key, id] of [['j', '#4'], ['j', '#3'], ['k', '#4'], ['k', '#5'], ['k', '#5']]) {
        await page.keyboard.press(key);
        await untilText(page, '#detail-title', id);
    }
    await page.keyboard.press('/');
    await page.keyboard.type('odd/jk?');
    assert.equal(await page.inputValue('#filter'), 'odd/jk?');
    await untilText(page, '#empty', 'No update holds that');
    await page.keyboard.press('Escape');
    await untilIds(page, ['#5', '#4', '#3', '#2', '#1']);
    assert.equal(await page.inputValue('#filter'), '');
    await page.keyboard.press('j');
    await page.keyboard.press('Enter');
    await page.waitForFunction((hash) => location.hash === hash, `#${name}///4`);

    await page.keyboard.press('?');
    await page.locator('#keys-help[open]').waitFor();
    await page.keyboard.press('j');
    assert.match(await page.locator('#detail-title').innerText(), /#4/);
    for (const key of ['/', 'j', 'k', 'Enter', 'Esc']) await page.locator('#keys-help kbd', { hasText: key }).first().waitFor();
    await page.keyboard.press('Escape');
    await page.locator('#keys-help').waitFor({ state: 'hidden' });
    await page.locator('#show-keys').click();
    await page.locator('#keys-close').click();
    // A button is pressed by Enter, as ever.
    await page.locator('#pause').focus();
    await page.keyboard.press('Enter');
    await untilText(page, '#state', 'Paused');

    const phone = await open(`${origin}/#${name}`, PHONE);
    await untilIds(phone, ['#5', '#4', '#3', '#2', '#1']);
    await rows(phone).filter({ hasText: '#4' }).click();
    await untilText(phone, '#detail-title', '#4');
    await phone.keyboard.press('j');
    await untilText(phone, '#detail-title', '#3');
    await phone.goBack();
    await phone.waitForFunction((hash) => location.hash === hash && !document.body.classList.contains('reading'), `#${name}`);
});

// ---------------------------------------------------------------------------------------------- since

pageTest("since:TIME is what came from then on, in the reader's time zone, and what comes", async ({ open }) => {
    const name = freshName();
    const url = `${origin}/${name}`;
    for (let n = 1; n <= 3; n++) await push(url, { n, word: 'old' });
    const [, , { at }] = await readAll(url);
    while (Date.now() <= at + 1) await new Promise((resolve) => setTimeout(resolve, 1));
    for (const name of ['fourth', 'fifth']) await push(url, { name, word: 'young' });
    const time = new Date(at + 1).toISOString();
    const page = await open(`${origin}/#${name}`, { timezoneId: 'Asia/Kolkata', expected: FAILED_REQUEST });
    await untilText(page, '#detail-title', '#5');
    await page.fill('#filter', `since:${time}`);
    await untilIds(page, ['#5', '#4']);
    await untilText(page, '#kept', '2 shown');
    await push(url, { n: 6 });
    await untilIds(page, ['#6', '#5', '#4']);
    // The same moment, as the clock on the reader's wall has it.
    const wall = new Date(at + 1 + 5.5 * 3600e3).toISOString().slice(0, -1);
    for (const typed of [`since:${wall}`, `since:"${wall.replace('T', ' ')}"`]) {
        await page.fill('#filter', '');
        await untilIds(page, ['#6', '#5', '#4', '#3', '#2', '#1']);
        await page.fill('#filter', typed);
        await untilIds(page, ['#6', '#5', '#4']);
    }
    await page.fill('#filter', `since:${time} body.word:young fourth`);
    await untilIds(page, ['#4']);
    await page.fill('#filter', `since:${time} #2`);
    await untilText(page, '#empty', 'No update holds that');
    await page.fill('#filter', 'since:2h');
    await untilIds(page, ['#6', '#5', '#4', '#3', '#2', '#1']);
    await page.fill('#filter', 'since:2099-01-01');
    await untilText(page, '#empty', 'No update meets that');
    for (const [typed, complaint] of [['since:', 'needs a time'], ['since:yesterday', 'since is how long ago'], ['since:10m !since:1h', /\S/]]) {
        await page.fill('#filter', '');
        await page.waitForFunction(() => !document.getElementById('filter-error').textContent);
        await page.fill('#filter', typed);
        await untilText(page, '#filter-error', complaint);
    }
    const other = await open(`${origin}/#${name}//${encodeURIComponent(`since:${time}`)}`);
    await untilIds(other, ['#6', '#5', '#4']);
});

pageTest('since a time that is long ago: thousands are there, down to the first of them and no further', async ({ open, servers }) => {
    const { url, page: address } = await channelOf(servers, 1500, (n) => `{"n":${n + 1}}`);
    const updates = await readAll(url);
    const from = updates.find(({ at }) => at > updates[0].at) ?? updates[0];
    const page = await open(`${address}//${encodeURIComponent(`since:${new Date(from.at).toISOString()}`)}`);
    await untilText(page, '#kept', `${(1500 - from.ts + 1).toLocaleString('en')} shown`);
    await page.focus('#list');
    await page.keyboard.press('End');
    await untilText(page, '#detail-title', `#${from.ts} `);
    assert.ok(await page.locator('#look-back').isHidden());
});

// ---------------------------------------------------------------------------------------------- looking further back

pageTest('after 20,000 updates it asks before it looks further back', async ({ open, servers }) => {
    const server = await servers.start(['--data-provider', 'memory', '--channel-storage-maxsize', '30000']);
    const name = freshName();
    await pushMany(`${server.origin}/${name}`, 21_000, (n) => (n === 10 ? '{"word":"needle"}' : '{"word":"hay"}'));
    const page = await open(`${server.origin}/#${name}`);
    await untilText(page, '#detail-title', '#21000');
    await page.fill('#filter', 'needle');
    await untilText(page, '#kept', /looked through down to #\d/);
    await page.locator('#look-back').waitFor();
    assert.match(await page.locator('#empty').innerText(), /No update from #[\d,.]+ on holds that/);
    await page.getByRole('button', { name: 'Look further back' }).click();
    await untilIds(page, ['#11']);
    await untilText(page, '#kept', 'all that is kept has been looked through');
    assert.ok(await page.locator('#look-back').isHidden());
});

for (const [what, typed] of [['a text', 'needle'], ['a condition', 'body.word:needle'], ['an id', '#11']]) {
    pageTest(`a search that fails is said, and can be tried again: ${what}`, async ({ open, servers }) => {
        const { page: url } = await channelOf(servers, 12_000, (n) => (n === 10 ? '{"word":"needle"}' : '{"word":"hay"}'));
        const page = await open(url, { expected: FAILED_REQUEST });
        await untilText(page, '#detail-title', '#12000');
        let isAway = true;
        // What is older is asked for with its id; the poll that waits is not.
        await page.route(/[?&]ts=\d+&.*sleep=0/, (route) => (isAway && route.request().method() === 'GET' ? route.abort() : route.continue()));
        await page.fill('#filter', typed);
        await untilText(page, '#empty', 'Not all could be looked through: The server cannot be reached');
        assert.match(await page.locator('#kept').innerText(), /The server cannot be reached/);
        const failed = page.waitForEvent('requestfailed', (request) => request.url().includes('sleep=0'));
        await page.getByRole('button', { name: 'Try again' }).click();
        await failed;
        await page.getByRole('button', { name: 'Try again' }).waitFor();
        await untilText(page, '#empty', 'Not all could be looked through');
        isAway = false;
        await page.getByRole('button', { name: 'Try again' }).click();
        await untilIds(page, ['#11']);
        await untilText(page, '#detail-title', '#11');
        assert.ok(await page.locator('#look-back').isHidden());
        assert.doesNotMatch(await page.locator('#kept').innerText(), /cannot be reached/);
    });
}

pageTest('older updates that do not come are said, and can be asked for again', async ({ open, servers }) => {
    const { page: url } = await channelOf(servers, 400, (n) => `{"n":${n + 1}}`);
    const page = await open(url, { expected: FAILED_REQUEST });
    await untilText(page, '#kept', 'the newest 100 are here');
    let isAway = true;
    await page.route(/[?&]ts=(?!400\b)\d+&/, (route) => (isAway ? route.abort() : route.continue()));
    await page.focus('#list');
    await page.keyboard.press('End');
    await untilText(page, '#kept', 'older ones did not come: The server cannot be reached');
    isAway = false;
    await page.getByRole('button', { name: 'Try again' }).click();
    await page.keyboard.press('End');
    await page.waitForFunction(() => !document.getElementById('kept').textContent.includes('did not come'));
    await page.focus('#list');
    await page.keyboard.press('End');
    await untilText(page, '#detail-title', '#1');
});

pageTest('older updates that did not come do so by themselves once the server is back', async ({ open, servers }) => {
    const args = await servers.sqlite();
    const server = await servers.start(args);
    const name = freshName();
    await pushMany(`${server.origin}/${name}`, 400, (n) => `{"n":${n + 1}}`);
    const page = await open(`${server.origin}/#${name}`, { expected: FAILED_REQUEST });
    await untilText(page, '#kept', 'the newest 100 are here');
    await server.stop();
    await untilText(page, '#state', 'Next try in');
    await page.focus('#list');
    await page.keyboard.press('End');
    await untilText(page, '#kept', 'older ones did not come: The server cannot be reached');
    await page.fill('#filter', 'nobody wrote this');
    await untilText(page, '#empty', 'Not all could be looked through');
    await servers.start(args, server.port);
    await untilText(page, '#empty', 'No update holds that');
    await page.fill('#filter', '');
    await page.waitForFunction(() => !document.getElementById('kept').textContent.includes('did not come'));
});
