// What breaks while a page is open: the server goes and comes back, its store is away, it has had enough, the tab sleeps,
// the line is slow.

import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { FAILED_REQUEST, freshName, origin, pageTest, push, rows, untilIds, untilLive, untilText } from './helpers.mjs';

const expected = FAILED_REQUEST;

pageTest('the server is restarted while the pages are open: they go on, nothing lost, nothing twice', async ({ open, servers }) => {
    const args = await servers.sqlite();
    const server = await servers.start(args);
    const name = freshName();
    const url = `${server.origin}/${name}`;
    const page = await open(`${server.origin}/#${name}`, { expected });
    const chat = await open(`${server.origin}/-/chat#${name}`, { expected });
    for (const each of [page, chat]) await untilLive(each);
    for (let n = 1; n <= 3; n++) await push(url, { text: `${n}` });
    await untilIds(page, ['#3', '#2', '#1']);
    await server.stop();
    for (const each of [page, chat]) assert.match(await untilText(each, '#state', 'Next try in'), /^The server cannot be reached\. Next try in \d+ s$/);
    await page.click('#send summary');
    await page.locator('#send-form').getByRole('button').click();
    await page.locator('#send-error').filter({ hasText: /./ }).waitFor();

    await servers.start(args, server.port);
    for (let n = 4; n <= 6; n++) await push(url, { text: `${n}` });
    await untilIds(page, ['#6', '#5', '#4', '#3', '#2', '#1']);
    await chat.locator('.message').nth(5).waitFor();
    assert.deepEqual(await chat.locator('.message p').allInnerTexts(), ['1', '2', '3', '4', '5', '6']);
    for (const each of [page, chat]) await untilLive(each);
    assert.equal(await page.locator('#notices p').count(), 0);
    await push(url, { text: '7' });
    await untilIds(page, ['#7', '#6', '#5', '#4', '#3', '#2', '#1']);
});

pageTest('a tab that was frozen catches up', async ({ open }) => {
    const name = freshName();
    const page = await open(`${origin}/#${name}`);
    await untilLive(page);
    await push(`${origin}/${name}`, { n: 1 });
    await untilIds(page, ['#1']);
    const devtools = await page.context().newCDPSession(page);
    await devtools.send('Page.enable');
    await devtools.send('Page.setWebLifecycleState', { state: 'frozen' });
    for (let n = 2; n <= 5; n++) await push(`${origin}/${name}`, { n });
    await devtools.send('Page.setWebLifecycleState', { state: 'active' });
    await untilIds(page, ['#5', '#4', '#3', '#2', '#1']);
    await push(`${origin}/${name}`, { n: 6 });
    await untilIds(page, ['#6', '#5', '#4', '#3', '#2', '#1']);
});

pageTest('a hidden tab counts in its title; one that was hidden for long asks anew when it is seen', async ({ open }) => {
    const name = freshName();
    const page = await open(`${origin}/#${name}`);
    await untilLive(page);
    const setHidden = (hidden, afterMs) =>
        page.evaluate(
            ([hidden, afterMs]) => {
                const start = performance.timeOrigin;
                Date.now = () => start + performance.now() + afterMs;
                Object.defineProperty(document, 'hidden', { value: hidden, configurable: true });
                document.dispatchEvent(new Event('visibilitychange'));
            },
            [hidden, afterMs],
        );
    let polls = 0; // after the first push: the one before it may be told late
    page.on('request', (request) => (polls += /\?ts=[12]&/.test(request.url())));
    await setHidden(true, 0);
    await push(`${origin}/${name}`, { n: 1 });
    await page.waitForFunction(() => document.title === '(1) longline');
    await push(`${origin}/${name}`, { n: 2 });
    await page.waitForFunction(() => document.title === '(2) longline');
    await setHidden(false, 1000);
    assert.equal(await page.title(), 'longline');
    await untilIds(page, ['#2', '#1']);
    await untilLive(page);
    assert.equal(polls, 2);

    await setHidden(true, 0);
    const asked = page.waitForRequest(/\?ts=2&/);
    await setHidden(false, 20_000);
    await asked;
    await push(`${origin}/${name}`, { n: 3 });
    await untilIds(page, ['#3', '#2', '#1']);
    await untilLive(page);
});

pageTest('a server that has had enough (429) is said, with when the page asks again; "try now" asks at once', async ({ open, servers }) => {
    const server = await servers.start(['--data-provider', 'memory', '--rate-limit-limit', '6', '--rate-limit-frame', '30']);
    const name = freshName();
    const page = await open(undefined, { expected });
    const told = ['refused', 'consumers'].map((path) => page.waitForResponse((response) => response.url().endsWith(`/${path}`)));
    const waits = page.waitForRequest(/sleep=25/);
    await page.goto(`${server.origin}/#${name}`);
    await Promise.all([...told, waits]);
    await push(`${server.origin}/${name}`, { n: 1 }); // these two, a HEAD, two polls, this, and the next poll is one too many
    assert.match(await untilText(page, '#state', 'Next try in'), /^Too many requests\. Next try in \d+ s$/);
    await untilIds(page, ['#1']);
    const asked = page.waitForResponse((response) => response.status() === 429);
    await page.click('#retry');
    await asked;
    await untilText(page, '#state', 'Too many requests. Next try in');
    await page.click('#send summary');
    await page.locator('#send-form').getByRole('button').click();
    await untilText(page, '#send-error', 'Too many requests');
});

pageTest('a server whose store is away is said, and the page goes on when it is back', async ({ open, servers }) => {
    const folder = await mkdtemp(join(tmpdir(), 'longline-web-'));
    const socket = join(folder, 'redis.sock');
    const startRedis = async () => {
        const child = spawn('redis-server', ['--port', '0', '--unixsocket', socket, '--dir', folder, '--appendonly', 'yes'], { stdio: 'ignore' });
        const exited = once(child, 'exit');
        const serves = () => spawnSync('redis-cli', ['-s', socket, 'ping']).stdout.toString() === 'PONG\n';
        while (!serves()) await new Promise((resolve) => setTimeout(resolve, 10));
        return async () => {
            child.kill();
            await exited;
        };
    };
    let stopRedis = await startRedis();
    try {
        const server = await servers.start(['--data-provider', 'redis', '--redis-url', `unix://${socket}`]);
        const name = freshName();
        const page = await open(`${server.origin}/#${name}`, { expected });
        await untilLive(page);
        await push(`${server.origin}/${name}`, { n: 1 });
        await untilIds(page, ['#1']);
        await stopRedis();
        await page.click('#send summary');
        await page.locator('#send-form').getByRole('button').click();
        await untilText(page, '#send-error', 'Redis'); // it cannot be reached, or did not answer
        const other = await open(`${server.origin}/#${name}`, { expected });
        assert.match(await untilText(other, '#state', 'Next try in'), /^Redis cannot be reached/);

        stopRedis = await startRedis();
        await untilIds(other, ['#1']);
        await untilLive(other);
        // What is known already can be read before longline has heard that Redis has loaded its data.
        for (let answer; answer !== 'OK'; ) {
            answer = await (await fetch(`${server.origin}/${name}`, { method: 'POST', body: '{"n":2}' })).text();
            assert.match(answer, /^OK$|nothing was stored/);
        }
        for (const each of [page, other]) await untilIds(each, ['#2', '#1']);
    } finally {
        await stopRedis();
        await rm(folder, { recursive: true });
    }
});

pageTest('a slow line: the page is read at once, and its files come in one round', async ({ open }) => {
    const page = await open();
    await page.addInitScript(() => {
        window.said = [];
        new MutationObserver(() => window.said.push(document.getElementById('state')?.textContent)).observe(document, { childList: true, subtree: true });
    });
    const devtools = await page.context().newCDPSession(page);
    await devtools.send('Network.enable');
    await devtools.send('Network.emulateNetworkConditions', { offline: false, latency: 300, downloadThroughput: 100_000, uploadThroughput: 100_000 });
    for (const path of ['/', '/-/chat']) {
        await page.goto(`${origin}${path}#${freshName()}`, { waitUntil: 'commit' });
        await page.locator(path === '/' ? '#address-title' : '#invite').waitFor();
        await untilLive(page);
        assert.ok(await page.evaluate(() => window.said.some((text) => text?.includes('Connecting…'))));
        const files = await page.evaluate(() => performance.getEntriesByType('resource').filter(({ name }) => /\/-\/web\/.*\.(js|css)$/.test(name)).map(({ name, startTime, responseEnd }) => ({ name, startTime, responseEnd })));
        assert.ok(files.length >= 7);
        const first = Math.min(...files.map(({ responseEnd }) => responseEnd));
        assert.deepEqual(files.filter(({ startTime }) => startTime > first).map(({ name }) => name), [], 'asked for only when another had come');
    }
});

pageTest('a proxy that keeps the health to itself does no harm', async ({ open }) => {
    const page = await open(undefined, { expected });
    await page.route('**/-/health', (route) => route.fulfill({ status: 404, body: 'no' }));
    await page.goto(`${origin}/#${freshName()}`);
    await untilLive(page);
    await untilText(page, '#kept', 'No update so far');
    assert.doesNotMatch(await page.locator('#kept').innerText(), /keeps/);
});

pageTest('a proxy that lets no HEAD through delays nothing but the word "live"', async ({ open }) => {
    const page = await open(undefined, { expected });
    const name = freshName();
    await push(`${origin}/${name}`, { n: 1 });
    await page.route(`**/${name}?*`, (route) => (route.request().method() === 'HEAD' ? route.fulfill({ status: 405 }) : route.continue()));
    await page.goto(`${origin}/#${name}`);
    await untilIds(page, ['#1']);
    await untilLive(page);
});

pageTest('while what was there before is on its way, no page says that there is nothing', async ({ open }) => {
    const name = freshName();
    await push(`${origin}/${name}`, { name: 'Ann', text: 'old' });
    for (const [path, selector, row] of [['/', '#empty-title', '.row'], ['/-/chat', '.quiet', '.message']]) {
        const page = await open();
        let go;
        const held = new Promise((resolve) => (go = resolve));
        await page.route(`**/${name}?*`, async (route) => {
            if (route.request().method() === 'GET') await held;
            await route.continue();
        });
        await page.goto(`${origin}${path}#${name}`);
        await untilLive(page);
        assert.equal(await page.locator(selector).innerText(), 'Loading…');
        go();
        await page.locator(row).waitFor();
        assert.equal(await page.locator(selector).filter({ visible: true }).count(), 0);
    }
});

pageTest('a tab that nobody has seen for a while leaves the connections to others, and still counts', async ({ open }) => {
    const name = freshName();
    const page = await open(undefined);
    await page.clock.install();
    await page.goto(`${origin}/#${name}`);
    await untilLive(page);
    await page.evaluate(() => {
        Object.defineProperty(document, 'hidden', { value: true });
        document.dispatchEvent(new Event('visibilitychange'));
    });
    const short = page.waitForRequest((request) => request.method() === 'GET' && request.url().includes('sleep=0'));
    await page.clock.runFor(31_000);
    await short;
    await push(`${origin}/${name}`, { n: 1 });
    for (let i = 0; (await page.title()) !== '(1) longline'; i++) {
        assert.ok(i < 50, 'it does not ask any more');
        await page.clock.runFor(5000);
    }
});
