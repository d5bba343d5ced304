// A browser's own EventSource: it needs nothing but the address.

import assert from 'node:assert/strict';
import { freshName, origin, pageTest, push } from './helpers.mjs';

/** Opens a page of another origin than that of a test's server. */
const openStranger = (open) => open(`${origin}/robots.txt`, { expected, bypassCSP: true });

// While the server is away.
const expected = /^Failed to load resource|net::ERR_/;

/** Opens one in the page, which notes what it hears. */
async function listen(page, url) {
    await page.evaluate((address) => {
        const source = new EventSource(address);
        window.heard = { opened: 0, events: [] };
        source.onopen = () => window.heard.opened++;
        for (const type of ['message', 'missed', 'reset'])
            source.addEventListener(type, (event) => window.heard.events.push([type, event.lastEventId.split('-')[0], event.data]));
    }, url);
    await page.waitForFunction(() => window.heard.opened === 1, null, { polling: 50 });
}

/** Waits until it has heard so many events, and returns them. */
async function untilHeard(page, count) {
    await page.waitForFunction((wanted) => window.heard.events.length >= wanted, count, { polling: 50 });
    return page.evaluate(() => window.heard.events);
}

/** Messages 1 to `last`. */
const messages = (last) => Array.from({ length: last }, (_, i) => ['message', `${i + 1}`, `{"n":${i + 1}}`]);

for (const epoch of ['', '?epoch=']) {
    pageTest(`EventSource ${epoch || 'without epoch'}: each update once, also over a restart of the server`, async ({ open, servers }) => {
        const args = await servers.sqlite();
        const server = await servers.start(args);
        const url = `${server.origin}/${freshName()}`;
        const page = await openStranger(open);
        await listen(page, url + epoch);
        for (let n = 1; n <= 3; n++) await push(url, { n });
        assert.deepEqual(await untilHeard(page, 3), messages(3));
        await server.stop();
        await servers.start(args, server.port);
        for (let n = 4; n <= 6; n++) await push(url, { n }); // before it is back
        assert.deepEqual(await untilHeard(page, 6), messages(6));
        assert.equal(await page.evaluate(() => window.heard.opened), 2);
    });
}

pageTest('EventSource learns that the server lost its data', async ({ open, servers }) => {
    const server = await servers.start(await servers.sqlite());
    const url = `${server.origin}/${freshName()}`;
    const page = await openStranger(open);
    await listen(page, `${url}?epoch=`);
    for (let n = 1; n <= 3; n++) await push(url, { n });
    await untilHeard(page, 3);
    await server.stop();
    await servers.start(await servers.sqlite(), server.port);
    for (let n = 1; n <= 4; n++) await push(url, { n }); // the counter is past what it has seen
    const heard = await untilHeard(page, 8);
    assert.deepEqual(heard.slice(3).map(([type, id]) => [type, id]), [['reset', '0'], ['message', '1'], ['message', '2'], ['message', '3'], ['message', '4']]);
});

pageTest('EventSource with a text of many lines', async ({ open, servers }) => {
    const server = await servers.start();
    const url = `${server.origin}/${freshName()}`;
    const page = await openStranger(open);
    await listen(page, url);
    await push(url, '{\r\n  "a": [\n    1\n  ]\n}\n');
    const [[type, id, data]] = await untilHeard(page, 1);
    assert.deepEqual([type, id, JSON.parse(data)], ['message', '1', { a: [1] }]);
});
