// Several channels in one tab: what this browser keeps of them, what is counted, and by how many requests.

import assert from 'node:assert/strict';
import { FAILED_REQUEST, freshName, keysOf, origin, pageTest, push, rows, untilIds, untilLive, untilText } from './helpers.mjs';

const linkTo = (page, text) => page.locator('#channels a', { hasText: text });
const nameIn = (page) => new URL(page.url()).hash.slice(1);

/** What a reader does who comes back to the tab: it asks at once. */
const look = (page) => page.evaluate(() => document.dispatchEvent(new Event('visibilitychange')));

const setHidden = (page, hidden) =>
    page.evaluate((hidden) => {
        Object.defineProperty(document, 'hidden', { value: hidden, configurable: true });
        document.dispatchEvent(new Event('visibilitychange'));
    }, hidden);

/** Names the channel that is shown, by this button. */
async function nameIt(page, button, title) {
    await page.getByRole('button', { name: button }).click();
    await page.keyboard.type(title);
    await page.keyboard.press('Enter');
    await page.locator('#channels-edit').waitFor({ state: 'hidden' });
}

/** Waits for what the bar says, as 'Shop 3, CI*': the one that is shown has a star. */
async function untilBar(page, text) {
    const said = (wanted) => {
        const said = [...document.querySelectorAll('#channels a')].map((link) => `${[...link.children].filter(({ hidden }) => !hidden).map((part) => part.firstChild.textContent).join(' ')}${link.ariaCurrent ? '*' : ''}`).join(', ');
        return wanted === undefined ? said : said === wanted;
    };
    await page.waitForFunction(said, text).catch(async (error) => {
        throw new Error(`${text} did not come; the bar says ${await page.evaluate(said)}`, { cause: error });
    });
}

pageTest('one channel needs no bar; a second one brings it, with names of one\'s own and what is unseen', async ({ open }) => {
    const page = await open(`${origin}/`);
    await untilLive(page);
    assert.ok(await page.locator('#channels').isHidden());
    assert.ok(await page.locator('#name-it').isHidden(), 'a newcomer has nothing to name');
    const shop = nameIn(page);
    await push(`${origin}/${shop}`, { n: 0 });
    await untilIds(page, ['#1']);
    await nameIt(page, 'Name it…', 'Shop');
    await untilBar(page, 'Shop*');
    assert.equal(await page.title(), 'Shop · longline');
    await page.click('#fresh');
    const ci = nameIn(page);
    await untilBar(page, `Shop, ${keysOf(ci).send.slice(0, 8)}…*`);
    assert.ok(await page.locator('#name-it').isHidden());
    await nameIt(page, 'Edit…', 'CI');
    await untilBar(page, 'Shop, CI*');

    await push(`${origin}/${shop}`, { n: 1 });
    await push(`${origin}/${shop}`, { n: 2 });
    await look(page);
    await untilBar(page, 'Shop 2, CI*');
    assert.equal(await page.title(), '(2) CI · longline');
    await page.reload();
    await untilBar(page, 'Shop 2, CI*');
    await push(`${origin}/${shop}`, { n: 3 });
    await look(page);
    await untilBar(page, 'Shop 3, CI*');

    await linkTo(page, 'Shop').click();
    await untilIds(page, ['#4', '#3', '#2', '#1']);
    await untilBar(page, 'Shop*, CI');
    assert.equal(await page.title(), 'Shop · longline');
    await push(`${origin}/${shop}`, { n: 4 });
    await untilIds(page, ['#5', '#4', '#3', '#2', '#1']);
    await page.goBack();
    await untilBar(page, 'Shop, CI*');
    await look(page);
    await push(`${origin}/${shop}`, { n: 5 });
    await look(page);
    await untilBar(page, 'Shop 1, CI*');
    // What one has come back to is where the next visit begins.
    await linkTo(page, 'Shop').click();
    await untilBar(page, 'Shop*, CI');
    await page.goto('about:blank');
    await page.goto(`${origin}/`);
    await untilIds(page, ['#6', '#5', '#4', '#3', '#2', '#1']);
    await untilBar(page, 'Shop*, CI');
});

pageTest('tabs have the same channels, and what one has seen is seen in the other', async ({ open }) => {
    const page = await open(`${origin}/`);
    await untilLive(page);
    const first = nameIn(page);
    await push(`${origin}/${first}`, { n: 0 });
    await nameIt(page, 'Name it…', 'First');
    const other = await open(`${origin}/`, { context: page.context() });
    await untilLive(other);
    await other.click('#fresh');
    await nameIt(other, 'Edit…', 'Second');
    await untilBar(page, 'First*, Second');
    const second = nameIn(other);
    await push(`${origin}/${second}`, { n: 1 });
    await untilIds(other, ['#1']);
    await setHidden(other, true);
    await push(`${origin}/${second}`, { n: 2 });
    await untilBar(other, 'First, Second 1*');
    await look(page);
    await untilBar(page, 'First*, Second 1');
    await linkTo(page, 'Second').click();
    await untilBar(page, 'First, Second*');
    await untilBar(other, 'First, Second*');
    await push(`${origin}/${first}`, { n: 1 });
    await look(page);
    await look(other);
    await untilBar(page, 'First 1, Second*');
    await untilBar(other, 'First 1, Second*');
});

pageTest('one request asks for all other channels, now and then, and waits for nothing', async ({ open }) => {
    const page = await open();
    await page.clock.install();
    const channels = Array.from({ length: 64 }, (_, n) => ({ name: keysOf().all, title: `Channel ${n}`, isOwn: true }));
    channels[1].name = keysOf(channels[0].name).read; // the server takes one name of a channel
    await page.goto(`${origin}/robots.txt`);
    await page.evaluate((channels) => localStorage.setItem('longline.channels', JSON.stringify(channels)), channels);
    const paths = [];
    page.on('request', (request) => paths.push(new URL(request.url())));
    await page.goto(`${origin}/#${channels[63].name}`);
    await untilLive(page);
    const asked = () => paths.filter(({ pathname }) => pathname === '/-/poll');
    await page.waitForFunction(() => JSON.parse(localStorage.getItem('longline.channels')).slice(0, 63).every(({ seen }) => seen === 0));
    for (const { name } of [0, 2, 3, 4].map((n) => channels[n])) await push(`${origin}/${name}`, { n: 1 });
    const before = asked().length;
    await page.clock.runFor(5000);
    await page.waitForFunction(() => document.title.startsWith('(5) ')); // the first is there twice
    const more = asked().length - before;
    assert.ok(more === 1 || more === 2, `${more} requests`); // the clock goes on beside what is added to it
    for (const { searchParams } of asked()) assert.equal(searchParams.get('sleep'), '0');
    const names = new Set(paths.map(({ pathname }) => pathname.split('/')[1]).filter((name) => name && name !== '-'));
    assert.deepEqual([...names], [channels[63].name], 'no channel but the one that is shown is asked for by its path');
    // There is room for no more: it is shown, and not kept.
    await page.click('#fresh');
    await untilText(page, '#notices', 'keeps no more channels');
    await untilLive(page);
    assert.equal(await page.locator('#channels a').count(), 65);
    assert.equal(await page.locator('#channels a[data-kept=false]').count(), 1);
});

pageTest('ids that begin anew, a server that is away, and nonsense in the storage', async ({ open, servers }) => {
    let server = await servers.start();
    const page = await open(`${server.origin}/`, { expected: FAILED_REQUEST });
    await untilLive(page);
    const first = nameIn(page);
    for (let n = 1; n <= 3; n++) await push(`${server.origin}/${first}`, { n });
    await untilIds(page, ['#3', '#2', '#1']);
    await nameIt(page, 'Name it…', 'First');
    await page.click('#fresh');
    await nameIt(page, 'Edit…', 'Second');
    await untilBar(page, 'First, Second*');
    await server.stop();
    await page.locator('#state[data-state=waiting]').waitFor();
    server = await servers.start(undefined, server.port);
    await push(`${server.origin}/${first}`, { n: 1 });
    await page.evaluate(() => document.getElementById('retry').click()); // it may be hidden by then: the page tries, too
    await untilLive(page);
    await look(page);
    await untilBar(page, 'First 1, Second*');
    for (const nonsense of ['{', '7', '[{"name":7}]', '[null]', '[{"name":"a/b","title":""}]']) {
        await page.evaluate((text) => localStorage.setItem('longline.channels', text), nonsense);
        await page.reload();
        await untilLive(page);
        assert.equal((await page.locator('#channels a').count()) <= 2, true, nonsense);
    }
});

pageTest('what came with a link is not kept unless one says so; what is forgotten is gone from this browser', async ({ open }) => {
    const page = await open(`${origin}/`);
    await untilLive(page);
    const own = nameIn(page);
    const { all, read, send } = keysOf();
    await push(`${origin}/${all}`, { n: 1 });
    await page.goto(`${origin}/#${read}`);
    await untilIds(page, ['#1']);
    const [mine, theirs] = [keysOf(own).send, send].map((name) => `${name.slice(0, 8)}…`);
    await untilBar(page, `${mine}, ${theirs}*`);
    assert.equal(await page.locator('#channels a[data-kept=false]').innerText(), theirs);
    await linkTo(page, mine).click();
    await page.locator('#channels').waitFor({ state: 'hidden' });
    await page.goBack();
    await nameIt(page, 'Edit…', 'Theirs');
    await untilBar(page, `${mine}, Theirs*`);
    await page.goto('about:blank');
    await page.goto(`${origin}/`);
    await untilBar(page, `${mine}*, Theirs`); // whoever sent the link does not choose where this reader begins

    await page.getByRole('button', { name: 'Edit…' }).click();
    await page.locator('#channels-edit [type=checkbox]').first().uncheck();
    await page.keyboard.press('Escape'); // nothing is forgotten yet
    await untilBar(page, `${mine}*, Theirs`);
    await page.getByRole('button', { name: 'Edit…' }).click();
    await page.locator('#channels-edit [type=checkbox]').first().uncheck();
    await page.getByRole('button', { name: 'Save' }).click();
    await untilBar(page, `Theirs, ${mine}*`);
    const stored = await page.evaluate(() => JSON.stringify(localStorage));
    assert.ok(!stored.includes(own), stored);
    await page.goto('about:blank');
    await page.goto(`${origin}/`);
    await untilLive(page);
    assert.ok(![own, read].includes(nameIn(page)));
});

pageTest('the bar tells nobody\'s secret, and strangers\' names are text', async ({ open }) => {
    const secret = `hunter2-${freshName()}`;
    const page = await open(`${origin}/`);
    await untilLive(page);
    await page.click('#own');
    await page.fill('#own-name', secret);
    await page.keyboard.press('Enter');
    await page.waitForFunction((name) => location.hash === `#${name}`, secret);
    await page.click('#fresh');
    await nameIt(page, 'Edit…', '<b>\u202egnp');
    await untilText(page, '#channels a[aria-current]', '<b>\\u202egnp');
    assert.ok(!(await page.locator('body').innerText()).includes('hunter2'));
    await page.locator('#channels a', { hasText: 'hun…' }).waitFor();
    assert.ok(await rows(page).count() === 0);
});

pageTest('what another tab has made is not forgotten by saving names here', async ({ open }) => {
    const page = await open(`${origin}/`);
    await untilLive(page);
    const first = nameIn(page);
    await page.click('#fresh');
    await page.getByRole('button', { name: 'Edit…' }).click();
    const other = await open(`${origin}/`, { context: page.context() });
    await untilLive(other);
    await other.click('#fresh');
    const made = nameIn(other);
    await page.getByRole('button', { name: 'Save' }).click();
    await page.waitForFunction((name) => localStorage.getItem('longline.channels').includes(name), made);
    assert.ok((await page.evaluate(() => localStorage.getItem('longline.channels'))).includes(first));
});

pageTest('a dialog about one channel does not survive the way to another', async ({ open }) => {
    const [x, y] = [freshName(), freshName()];
    for (const n of [1, 2, 3]) await push(`${origin}/${x}`, { x: n });
    await push(`${origin}/${y}`, { y: 1 });
    const page = await open(`${origin}/#${y}`);
    await untilIds(page, ['#1']);
    await page.goto(`${origin}/#${x}`);
    await untilIds(page, ['#3', '#2', '#1']);
    await page.getByRole('button', { name: 'Compare…' }).click();
    await untilText(page, '#compare', 'What #2 had');
    await page.goBack();
    await untilIds(page, ['#1']);
    assert.equal(await page.locator('dialog[open]').count(), 0);
});
