// Where to begin, what to be sent, names, epochs, and many channels in one loop.

import assert from 'node:assert/strict';
import { setTimeout as sleep } from 'node:timers/promises';
import { Channel, Channels } from '../index.js';
import { openChannel, reply, startLongline, startScript, take, test, timedTest } from './helpers.mjs';

const named = (t, url, options) => {
    const channels = new Channels(url, options);
    t.after(() => channels.close());
    return channels;
};

timedTest('now: only what comes, also while the first poll fails', async (t) => {
    const { url } = await startLongline(t);
    const channel = openChannel(t, url);
    await channel.pushBatch([{ n: 1 }, { n: 2 }]);
    const entries = channel.entries({ ts: 'now' });
    assert.equal(entries.ts, 'now');
    const next = entries.next();
    while (entries.ts === 'now') await sleep(2);
    await channel.push({ n: 3 });
    const { value } = await next;
    assert.deepEqual([value.ts, value.update], [3, { n: 3 }]);

    const server = await startScript(t, [{ status: 502, body: '' }, reply(7, []), (socket) => socket.destroy(), reply(8, [{ n: 8 }])]);
    assert.deepEqual(await take(openChannel(t, server.url, { backoffMs: 1 }).updates({ ts: 'now' }), 1), [{ n: 8 }]);
    assert.deepEqual(server.requests.map(({ query }) => [query.ts, query.sleep]), [['now', '0'], ['now', '0'], ['7', '25'], ['7', '25']]);
});

test('since: text, numbers, dates', async (t) => {
    const { url } = await startLongline(t);
    const channel = openChannel(t, url);
    const before = Date.now() / 1000 - 100;
    await channel.pushBatch([{ n: 1 }, { n: 2 }]);
    for (const since of ['10m', '1970-01-02', '1970-01-02 10:00:00', before, new Date(before * 1000)]) {
        const entries = channel.entries({ since });
        assert.equal(entries.ts, undefined);
        assert.deepEqual((await take(entries, 2)).map(({ ts }) => ts), [1, 2], String(since));
    }
    const later = channel.updates({ since: new Date(Date.now() + 60_000) });
    const next = later.next();
    while (later.ts === undefined) await sleep(2);
    await channel.push({ n: 3 });
    assert.deepEqual((await next).value, { n: 3 });
    await assert.rejects(channel.updates({ since: 'yesterday' }).next(), { status: 400, isOwn: true });
    assert.throws(() => channel.updates({ since: '1h', ts: 0 }), TypeError);
});

timedTest('since, so long ago: grows while nobody answers', async (t) => {
    const server = await startScript(t, [async (socket) => (await sleep(1100), socket.destroy()), reply(1, [{}])]);
    await take(openChannel(t, server.url, { backoffMs: 1 }).updates({ since: '10m' }), 1);
    const [first, second] = server.requests.map(({ query }) => query);
    assert.deepEqual([first.since, first.sleep, second.sleep], ['10m', '0', '0']);
    assert.ok(['602s', '603s'].includes(second.since), second.since);
});

test('where: ids and the cursor are exact', async (t) => {
    const { url } = await startLongline(t);
    const channel = openChannel(t, url);
    await channel.pushBatch(Array.from({ length: 30 }, (_, i) => ({ n: i + 1, kind: (i + 1) % 10 ? 'other' : 'tenth' })));
    const skipped = [];
    const entries = channel.entries({ where: 'body.kind:tenth', limit: 2, onReply: (told) => skipped.push(told.skipped) });
    const seen = [];
    for await (const { ts, update, text } of entries) {
        seen.push([ts, update.n, text, entries.ts]);
        if (ts === 30) break;
    }
    assert.deepEqual(seen.map(([ts, n]) => [ts, n]), [[10, 10], [20, 20], [30, 30]]);
    assert.equal(seen[0][2], '{"n":10,"kind":"tenth"}');
    assert.deepEqual(seen.map(([, , , cursor]) => cursor), [9, 10, 29]);
    assert.equal(skipped.reduce((a, b) => a + b), 27);
    assert.deepEqual(await take(channel.updates({ where: ['body.kind:tenth', '!body.n:10|20'] }), 1), [{ n: 30, kind: 'tenth' }]);
    assert.deepEqual(await take(openChannel(t, `${url}?where=body.n:15`).entries(), 1).then(([{ ts, update }]) => [ts, update.n]), [15, 15]);

    const updates = channel.updates({ where: 'body.n:31' });
    const next = updates.next();
    await sleep(50); // so that the poll is under way; nothing depends on it
    await channel.push({ n: 0 });
    await channel.push({ n: 31 });
    assert.deepEqual((await next).value, { n: 31 });
    await assert.rejects(channel.updates({ where: 'nonsense' }).next(), { status: 400 });
});

test('a name: goes on where it was; lag, consumers(), forgetConsumer()', async (t) => {
    const { url } = await startLongline(t);
    const channel = openChannel(t, `${url}?appname=x`);
    for (let n = 1; n <= 5; n++) await channel.push({ n });
    const name = 'bot é&1';
    const first = channel.entries({ name, limit: 2 });
    assert.equal(first.ts, undefined);
    for (const n of [1, 2, 3]) assert.equal((await first.next()).value.ts, n);
    assert.equal(first.lag, 3, 'the poll for the third confirmed two');
    await first.return();
    const before = Date.now() - 20_000;
    const [consumer, ...others] = await channel.consumers();
    assert.deepEqual([consumer.name, consumer.ts, consumer.lag, others], [name, 2, 3, []]);
    assert.ok(consumer.at > before && consumer.at < before + 40_000);

    const second = channel.entries({ name });
    assert.equal((await second.next()).value.ts, 3);
    channel.close();
    await channel.forgetConsumer(name);
    assert.deepEqual(await channel.consumers(), []);
    await channel.forgetConsumer(name);
    assert.equal((await take(channel.entries({ name }), 1))[0].ts, 1);
    await assert.rejects(channel.updates({ name: '' }).next().then(() => channel.updates({ name: 'x'.repeat(65) }).next()), { status: 400 });
});

test('a server that lost its data is found out, also where its counter is further', async (t) => {
    const first = await startLongline(t);
    const channel = openChannel(t, first.url, { backoffMs: 20 });
    await channel.pushBatch([{ n: 1 }, { n: 2 }]);
    const resets = [];
    const updates = channel.updates({ onReset: (ts) => resets.push(ts) });
    for (const n of [1, 2]) assert.deepEqual((await updates.next()).value, { n });
    const next = updates.next();
    await first.stop();
    await startLongline(t, { port: first.port });
    await openChannel(t, first.url).pushBatch([{ m: 1 }, { m: 2 }, { m: 3 }]);
    assert.deepEqual((await next).value, { m: 1 });
    assert.deepEqual(resets, [0]);
    assert.match(updates.epoch, /^[\da-f]{16}$/);

    const { ts, epoch } = updates;
    await updates.return();
    resets.length = 0;
    assert.deepEqual(await take(channel.updates({ ts, epoch, onReset: (ts) => resets.push(ts) }), 1), [{ m: 1 }]);
    assert.deepEqual(await take(channel.updates({ ts: 2, epoch: '00c0ffee00c0ffee', onReset: (ts) => resets.push(ts) }), 1), [{ m: 1 }]);
    assert.deepEqual(resets, [0]);
});

// ---------------------------------------------------------------------------------------------- many channels

const member = ({ body: { ok, ...more } }) => more;
const many = (channels) => ({ body: { ok: true, channels } });

test('many channels: the first poll finds "now", and does not wait', async (t) => {
    const server = await startScript(t, [
        { status: 502, body: '' },
        many({ a: member(reply(7, [], { epoch: 'a1' })), '/b': member(reply(2, [{ n: 1 }, { n: 2 }], { epoch: 'b1' })) }),
        many({ '/b': member(reply(3, [{ n: 3 }], { epoch: 'b2', missed: 4 })), unknown: member(reply(1, [{}])), c: { ok: false, error_code: 503, error_description: 'No' } }),
        many({}),
        many({ a: member(reply(0, [], { epoch: 'a2', reset: true })), c: member(reply(5, [{ n: 5 }], { epoch: 'c1', skipped: 3 })) }),
    ]);
    const events = [];
    const channels = named(t, new URL('/below/', server.url), { backoffMs: 1 });
    const entries = channels.entries({ a: 'now', '/b': 0, c: { ts: 1, epoch: 'c1' } }, {
        onMissed: (count, channel) => events.push(`missed ${count} ${channel}`),
        onReset: (ts, channel) => events.push(`reset ${ts} ${channel}`),
        onError: ({ status }, waitMs, channel) => events.push(`error ${status} ${channel}`),
    });
    for await (const { channel, ts, update, text } of entries) {
        events.push(`${channel} ${ts} ${update.n} ${text}`);
        if (channel === 'c') break;
    }
    assert.deepEqual(events, [
        'error 502 undefined', '/b 1 1 {"n":1}', '/b 2 2 {"n":2}',
        'missed 4 /b', '/b 3 3 {"n":3}', 'error 503 c',
        'reset 0 a', 'c 5 5 {"n":5}',
    ]);
    assert.deepEqual(entries.positions, { a: { ts: 0, epoch: 'a2' }, '/b': { ts: 3, epoch: 'b2' }, c: { ts: 1, epoch: 'c1' } });
    assert.ok(server.requests.every(({ method, url }) => method === 'POST' && url.startsWith('/below/-/poll?')));
    const c = { ts: 1, epoch: 'c1' };
    const first = { a: { ts: 'now' }, '/b': { ts: 0 }, c };
    const later = { a: { ts: 7, epoch: 'a1' }, '/b': { ts: 3, epoch: 'b2' }, c };
    assert.deepEqual(server.requests.map(({ body }) => JSON.parse(body)), [first, first, { ...later, '/b': { ts: 2, epoch: 'b1' } }, later, later]);
    assert.deepEqual(server.requests.map(({ query }) => query.sleep), ['0', '0', '25', '25', '25']);
    assert.deepEqual(server.requests[0].query, { sleep: '0', limit: '100', epoch: '' });
});

timedTest('many channels: a poll that was cut is asked again at once', async (t) => {
    const cut = async (socket) => {
        await sleep(600);
        socket.destroy();
    };
    const server = await startScript(t, [cut, many({ a: member(reply(1, [{ n: 1 }])) })]);
    const channels = named(t, new URL('/', server.url), { backoffMs: 10_000 });
    assert.deepEqual(await take(channels.updates({ a: 0, b: { ts: 5, epoch: 'b' } }), 1), [['a', { n: 1 }]]);
    assert.deepEqual(server.requests.map(({ query }) => query.sleep), ['25', '1']);
});

test('many channels: arguments', (t) => {
    const channels = named(t, 'http://localhost:1/');
    for (const positions of [{}, Object.fromEntries(Array.from({ length: 65 }, (_, i) => [`c${i}`, 0])), { a: '1' }, { a: undefined }, { a: { epoch: 'x' } }]) {
        assert.throws(() => channels.updates(positions), RangeError);
    }
});

test('many channels of the real server', async (t) => {
    const { port } = await startLongline(t);
    const root = `http://127.0.0.1:${port}/`;
    const open = (name) => new Channel(root + encodeURIComponent(name));
    await open('a').push({ n: 1, kind: 'x' });
    await open('é 1').push({ n: 2, kind: 'y' });
    const channels = named(t, root);
    const updates = channels.updates({ a: 0, 'é 1': 'now', quiet: 0 });
    assert.deepEqual((await updates.next()).value, ['a', { n: 1, kind: 'x' }]);
    const next = updates.next();
    while (updates.positions['é 1'].ts === 'now') await sleep(2);
    await open('é 1').push({ n: 3, kind: 'x' });
    assert.deepEqual((await next).value, ['é 1', { n: 3, kind: 'x' }]);
    const last = updates.next();
    await open('quiet').push({ n: 4 });
    assert.deepEqual((await last).value, ['quiet', { n: 4 }]);
    await updates.return();
    const { positions } = updates;
    assert.deepEqual([positions.a.ts, positions['é 1'].ts, positions.quiet.ts], [1, 2, 0]);

    const entries = channels.entries({ a: 0, 'é 1': 0, quiet: 0 }, { where: 'body.kind:x', full: true });
    const found = await take(entries, 2);
    assert.deepEqual(found.map(({ channel, ts, method, raw }) => [channel, ts, method, raw]), [['a', 1, 'POST', '{"n":1,"kind":"x"}'], ['é 1', 2, 'POST', '{"n":3,"kind":"x"}']]);
    const again = channels.entries(positions);
    assert.deepEqual((await take(again, 1)).map(({ channel, ts }) => [channel, ts]), [['quiet', 1]]);
});
