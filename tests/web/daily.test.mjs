// An inbox that is open all day: it follows the newest, tells the time, notifies, and lets its keys be.

import assert from 'node:assert/strict';
import { freshName, keysOf, origin, pageTest, push, pushMany, rows, untilIds, untilLive, untilText } from './helpers.mjs';

const PHONE = { viewport: { width: 390, height: 844 }, isMobile: true, hasTouch: true };

const setHidden = (page, hidden) =>
    page.evaluate((hidden) => {
        Object.defineProperty(document, 'hidden', { value: hidden, configurable: true });
        document.dispatchEvent(new Event('visibilitychange'));
    }, hidden);

pageTest('following opens each update as it comes, pauses for an older one, and goes on with the newest', async ({ open }) => {
    const name = freshName();
    const url = `${origin}/${name}`;
    const page = await open(`${origin}/#${name}`);
    await untilLive(page);
    assert.ok(await page.locator('#follow').isHidden(), 'a newcomer is not asked');
    await push(url, { n: 1 });
    await push(url, { n: 2 });
    await untilIds(page, ['#2', '#1']);
    await rows(page).filter({ hasText: '#1' }).click();
    await push(url, { n: 3 });
    await untilIds(page, ['#3', '#2', '#1']);
    await untilText(page, '#detail-title', '#1');

    await page.getByLabel('Follow the newest').check();
    await untilText(page, '#detail-title', '#3');
    await page.waitForFunction((hash) => location.hash === hash, `#${name}`); // which is no longer the address of #1
    await push(url, { n: 4 });
    await untilText(page, '#detail-title', '#4');
    await page.keyboard.press('j'); // though the focus is on the checkbox
    await untilText(page, '#detail-title', '#3');
    await untilText(page, '.follow', 'Following is paused');
    assert.ok(await page.locator('#follow').evaluate((box) => box.indeterminate));
    await push(url, { n: 5 });
    await untilIds(page, ['#5', '#4', '#3', '#2', '#1']);
    await untilText(page, '#detail-title', '#3');
    await page.keyboard.press('k');
    await page.keyboard.press('k'); // the newest
    await untilText(page, '.follow', 'Follow the newest');
    await push(url, { n: 6 });
    await untilText(page, '#detail-title', '#6');

    // Who is at work in what is open keeps it.
    await page.getByRole('button', { name: 'Copy JSON' }).focus();
    await push(url, { n: 7 });
    await untilText(page, '.follow', 'Following is paused');
    await untilText(page, '#detail-title', '#6');
    await page.locator('#follow').click();
    await untilText(page, '#detail-title', '#7');
    assert.ok(await page.locator('#follow').evaluate((box) => box.checked && !box.indeterminate));
    await page.locator('#detail .json').evaluate((body) => getSelection().selectAllChildren(body));
    await push(url, { n: 8 });
    await untilText(page, '.follow', 'Following is paused');
    await page.evaluate(() => getSelection().removeAllRanges());

    // It is remembered, and lets be what an address asks for.
    await page.reload();
    await untilText(page, '#detail-title', '#8');
    await push(url, { n: 9 });
    await untilText(page, '#detail-title', '#9');
    await page.goto(`${origin}/#${name}///2`);
    await untilText(page, '#detail-title', '#2');
    await untilText(page, '.follow', 'Following is paused');
    await page.locator('#follow').click();
    await page.locator('#follow').uncheck();
    await push(url, { n: 10 });
    await rows(page).filter({ hasText: '#10' }).waitFor();
    await untilText(page, '#detail-title', '#9');
    await page.getByLabel('Follow the newest').check();
    await untilText(page, '#detail-title', '#10');

    // What the filter does not let through is not opened.
    await page.fill('#filter', '"n":1');
    await untilIds(page, ['#10', '#1']);
    await push(url, { n: 2 });
    await push(url, { n: 12 });
    await untilText(page, '#detail-title', '#12');

    const phone = await open(`${origin}/#${name}`, PHONE);
    await rows(phone).first().waitFor();
    assert.ok(await phone.locator('#follow').isHidden(), 'there it would cover the list');
});

pageTest('while it follows, many updates come to rest at the newest, and few of them are opened', async ({ open }) => {
    const name = freshName();
    const page = await open(`${origin}/#${name}`);
    await untilLive(page);
    await push(`${origin}/${name}`, { n: 0 });
    await page.getByLabel('Follow the newest').check();
    await page.evaluate(() => {
        window.opened = 0;
        new MutationObserver(() => window.opened++).observe(document.getElementById('detail'), { childList: true });
    });
    const start = performance.now();
    for (let n = 1; n <= 60; n++) await push(`${origin}/${name}`, { n });
    await untilText(page, '#detail-title', '#61');
    const most = (performance.now() - start) / 300 + 2; // as many as it opens at the most
    assert.ok((await page.evaluate(() => window.opened)) <= most);
    await pushMany(`${origin}/${name}`, 1000, (n) => `{"n":${n}}`);
    await untilText(page, '#detail-title', '#1061');
    assert.equal(await page.locator('#list').evaluate((list) => list.scrollTop), 0);
});

pageTest('times are told by how long ago they were, with the exact ones behind them, and days begin with their dates', async ({ open }) => {
    const name = freshName();
    const url = `${origin}/${name}`;
    await push(url, { n: 1 });
    const page = await open(undefined, { locale: 'en-GB', timezoneId: 'UTC' });
    await page.clock.install();
    await page.goto(`${origin}/#${name}`);
    await untilIds(page, ['#1']);
    const time = rows(page).locator('time');
    const at = await time.getAttribute('datetime');
    assert.match(at, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/);
    assert.equal(await time.innerText(), 'now');
    // As the browser says it: Node may know another version of the language.
    const clock = await page.evaluate((at) => new Date(at).toLocaleTimeString('en-GB'), at);
    assert.ok((await time.getAttribute('title')).includes(clock));
    await untilText(page, '#detail .facts', `${clock} (now)`);
    await page.clock.runFor(61_000);
    await untilText(page, '#list time', '1 min ago');
    await untilText(page, '#detail .facts', `${clock} (1 min ago)`);
    // Whoever comes back to the tab does not wait for the next tick.
    await setHidden(page, true);
    await page.clock.runFor(65_000);
    assert.equal(await time.innerText(), '1 min ago');
    await setHidden(page, false);
    assert.equal(await time.innerText(), '2 min ago');

    // Of days: those of stored times cannot be chosen, so it is the page's clock that goes.
    const later = await open(undefined, { locale: 'en-GB', timezoneId: 'UTC' });
    const midnight = new Date(at).setUTCHours(24, 0, 0, 0);
    await later.clock.setFixedTime(midnight + 1000);
    await later.goto(`${origin}/#${name}`);
    await untilIds(later, ['#1']);
    const date = await later.evaluate((at) => new Date(at).toLocaleDateString('en-GB', { weekday: 'short', month: 'short', day: 'numeric' }), at);
    const day = () => later.locator('#list time').getAttribute('data-day');
    assert.equal(await day(), date);
    assert.ok((await rows(later).evaluate((row) => getComputedStyle(row.querySelector('time'), '::before').content)).includes(date));
    await later.clock.setFixedTime(midnight + 3 * 86_400_000);
    await later.reload();
    await untilIds(later, ['#1']);
    assert.equal(await day(), ''); // the date stands there anyway
    assert.match(await later.locator('#list time').innerText(), new RegExp(`\\d+ .* ${clock}`));
    await untilText(later, '#detail .facts', /\(3 days ago\)/);
});

pageTest('the day of two neighbours is compared, and nothing is marked within one', async ({ open }) => {
    const page = await open(`${origin}/robots.txt`);
    const marks = await page.evaluate(async () => {
        const { markDay } = await import('/-/web/times.js');
        const noon = new Date().setHours(0, 0, 1, 0);
        const mark = (at, newer) => {
            const time = document.createElement('time');
            markDay(time, at, newer);
            return time.dataset.day !== undefined;
        };
        return [mark(noon), mark(noon, noon + 1000), mark(noon - 2000, noon), mark(noon - 3000, noon - 2000), mark(undefined, noon), mark(noon - 9 * 86_400_000, noon - 2000)];
    });
    assert.deepEqual(marks, [false, false, true, false, false, true]);
});

/** Notifications that the test sees, and may click on. */
const watchNotifications = (page) =>
    page.addInitScript(() => {
        window.notified = [];
        window.Notification = class {
            static permission = 'granted';
            static requestPermission() {
                window.asked = (window.asked ?? 0) + 1;
                return Promise.resolve('granted');
            }
            constructor(title, options) {
                Object.assign(this, { title, ...options });
                window.notified.push(this);
            }
            close() {
                this.isClosed = true;
            }
        };
    });

const notified = (page) => page.evaluate(() => window.notified.map(({ title, body, tag, isClosed = false }) => ({ title, body, tag, isClosed })));

pageTest('notifications: asked for by a click, one for a burst, without a secret, and a click leads to the update', async ({ open }) => {
    const { all, send } = keysOf();
    const page = await open();
    await watchNotifications(page);
    await page.goto(`${origin}/#${all}`);
    await untilLive(page);
    assert.ok(await page.locator('#notify').isHidden(), 'a newcomer is not asked');
    await push(`${origin}/${all}`, { n: 1 });
    await untilIds(page, ['#1']);
    await setHidden(page, true);
    await push(`${origin}/${all}`, { n: 2 });
    await page.waitForFunction(() => document.title === '(1) longline');
    await setHidden(page, false);
    assert.equal(await page.evaluate(() => window.asked), undefined);
    await page.getByLabel('Notify me').check();
    assert.equal(await page.evaluate(() => window.asked), 1);
    await push(`${origin}/${all}`, { n: 3 });
    await untilIds(page, ['#3', '#2', '#1']);
    assert.deepEqual(await notified(page), [], 'whoever looks is not notified');

    await setHidden(page, true);
    const start = performance.now();
    for (let n = 1; n <= 50; n++) await push(`${origin}/${all}`, { n, key: all });
    await page.waitForFunction(() => window.notified.at(-1)?.title === '50 new updates');
    const said = await notified(page);
    const most = (performance.now() - start) / 1000 + 1; // one a second
    assert.ok(said.length <= most, `${said.length} notifications of one burst`);
    assert.deepEqual(said.at(-1), { title: '50 new updates', body: `${send.slice(0, 8)}…: 50`, tag: 'longline', isClosed: false });
    assert.ok(!JSON.stringify(said).includes(all.slice(2)));
    await page.evaluate(() => window.notified.at(-1).onclick());
    await untilText(page, '#detail-title', '#53');
    await page.waitForFunction((hash) => location.hash === hash, `#${all}///53`);
    await setHidden(page, false);
    assert.ok((await notified(page)).at(-1).isClosed);

    // The choice is remembered, and can be taken back.
    await page.reload();
    await untilText(page, '#detail-title', '#53');
    assert.ok(await page.locator('#notify').isChecked());
    await page.locator('#notify').uncheck();
    await setHidden(page, true);
    await push(`${origin}/${all}`, { n: 54 });
    await page.waitForFunction(() => document.title === '(1) longline');
    assert.deepEqual(await notified(page), []);
});

pageTest('notifications tell of the other channels as well, at once, and lead there', async ({ open }) => {
    const page = await open();
    await watchNotifications(page);
    await page.addInitScript(() => localStorage.setItem('longline.notify', 'on'));
    await page.goto(`${origin}/`);
    await untilLive(page);
    const first = new URL(page.url()).hash.slice(1);
    await push(`${origin}/${first}`, { n: 0 });
    await page.getByRole('button', { name: 'Name it…' }).click();
    await page.keyboard.type('Shop');
    await page.keyboard.press('Enter');
    await page.click('#fresh');
    await page.locator('#channels a').nth(1).waitFor();
    await untilLive(page);
    const waits = page.waitForRequest(/\/-\/poll\?sleep=25/);
    await setHidden(page, true);
    await waits;
    await push(`${origin}/${first}`, { n: 1 });
    await page.waitForFunction(() => window.notified.at(-1)?.body === 'Shop: 1');
    assert.equal(await page.title(), '(1) longline');
    await push(`${origin}/${first}`, { n: 2 });
    await page.waitForFunction(() => window.notified.at(-1)?.body === 'Shop: 2');
    await page.evaluate(() => window.notified.at(-1).onclick());
    await untilIds(page, ['#3', '#2', '#1']);
    await page.waitForFunction((hash) => location.hash === hash, `#${first}`);
});

pageTest('a browser that denies notifications is said, and so is one that has none', async ({ open }) => {
    const name = freshName();
    await push(`${origin}/${name}`, { n: 1 });
    const page = await open(`${origin}/#${name}`); // this Chromium denies them unasked
    await untilIds(page, ['#1']);
    await page.locator('#notify').click();
    await untilText(page, '#notices', 'The browser denies notifications');
    assert.ok(!(await page.locator('#notify').isChecked()));
    const bare = await open();
    await bare.addInitScript(() => delete window.Notification);
    await bare.goto(`${origin}/#${name}`);
    await untilIds(bare, ['#1']);
    await bare.locator('#notify').click();
    await untilText(bare, '#notices', 'no notifications');
    assert.ok(!(await bare.locator('#notify').isChecked()));
    // On phones, browsers only say so when there is something to notify of.
    const phone = await open();
    await phone.addInitScript(() => {
        window.Notification = class {
            static permission = 'granted';
            static requestPermission = async () => 'granted';
            constructor() {
                throw new TypeError('Illegal constructor');
            }
        };
    });
    await phone.goto(`${origin}/#${name}`);
    await untilIds(phone, ['#1']);
    await phone.locator('#notify').check();
    await setHidden(phone, true);
    await push(`${origin}/${name}`, { n: 2 });
    await untilText(phone, '#notices', 'no notifications');
    assert.ok(!(await phone.locator('#notify').isChecked()));
});

pageTest('keys of a single character can be switched off; the others stay', async ({ open }) => {
    const name = freshName();
    for (let n = 1; n <= 3; n++) await push(`${origin}/${name}`, { n });
    const page = await open(`${origin}/#${name}`);
    await untilText(page, '#detail-title', '#3');
    await page.keyboard.press('?');
    await page.getByLabel('Use keys of a single character').uncheck();
    await page.keyboard.press('Escape');
    for (const key of ['j', '/', '?', 'k']) await page.keyboard.press(key);
    assert.ok(await page.locator('#keys-help').isHidden());
    assert.match(await page.locator('#detail-title').innerText(), /#3/);
    assert.notEqual(await page.evaluate(() => document.activeElement.id), 'filter');
    await page.focus('#list');
    await page.keyboard.press('ArrowDown');
    await untilText(page, '#detail-title', '#2');
    await page.keyboard.press('Enter');
    await page.waitForFunction((hash) => location.hash === hash, `#${name}///2`);
    await page.reload();
    await untilText(page, '#detail-title', '#2');
    await page.keyboard.press('k');
    await page.keyboard.press('?');
    assert.ok(await page.locator('#keys-help').isHidden());
    await page.click('#show-keys');
    await page.getByLabel('Use keys of a single character').check();
    await page.click('#keys-close');
    await page.keyboard.press('k');
    await untilText(page, '#detail-title', '#3');
});

pageTest('following leaves alone who reads a dialog, or further down in the list', async ({ open }) => {
    const name = freshName();
    await pushMany(`${origin}/${name}`, 60, (n) => `{"n":${n}}`);
    const page = await open(`${origin}/#${name}`);
    await untilText(page, '#detail-title', '#60');
    await page.getByLabel('Follow the newest').check();
    await page.getByRole('button', { name: 'Compare…' }).click();
    await push(`${origin}/${name}`, { n: 61 });
    await untilText(page, '.follow', 'Following is paused');
    assert.match(await page.locator('#detail-title').textContent(), /#60/);
    await page.keyboard.press('Escape');
    await page.getByLabel('Following is paused').click();
    await untilText(page, '#detail-title', '#61');
    await page.locator('#list').evaluate((list) => (list.scrollTop = 1000));
    await push(`${origin}/${name}`, { n: 62 });
    await untilText(page, '.follow', 'Following is paused');
    assert.ok((await page.locator('#list').evaluate((list) => list.scrollTop)) >= 1000);
});
