// Against longline itself.

import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { gzipSync } from 'node:zlib';
import { LonglineError } from '../index.js';
import { openChannel, startLongline, take, test, timedTest } from './helpers.mjs';

const range = (count, from = 1) => Array.from({ length: count }, (_, i) => from + i);

test('updates come in order, first the old ones, then each as it is pushed', async (t) => {
    const { url } = await startLongline(t);
    const channel = openChannel(t, url);
    assert.deepEqual(await channel.push({ n: 1 }), { ts: 1 });
    assert.deepEqual(await channel.push([2]), { ts: 2 });
    const updates = channel.updates();
    assert.deepEqual((await updates.next()).value, { n: 1 });
    assert.deepEqual((await updates.next()).value, [2]);
    assert.equal(updates.ts, 1);
    const third = updates.next();
    assert.equal(updates.ts, 2);
    await channel.push({ n: 3 });
    assert.deepEqual(await third, { value: { n: 3 }, done: false });
    await updates.return();
    assert.equal(updates.ts, 2);
    assert.deepEqual(await updates.next(), { value: undefined, done: true });
});

test('ts: after an update, the last ones, and of an empty channel', async (t) => {
    const { url } = await startLongline(t);
    const channel = openChannel(t, url);
    const waiting = channel.entries({ ts: -2 }).next();
    await channel.push({ n: 1 });
    assert.equal((await waiting).value.ts, 1);
    for (const n of range(4, 2)) await channel.push({ n });
    assert.deepEqual(await take(channel.updates({ ts: 3 }), 2), [{ n: 4 }, { n: 5 }]);
    const last = channel.entries({ ts: -2 });
    const { value } = await last.next();
    assert.deepEqual([value.ts, value.update, last.ts], [4, { n: 4 }, 3]);
    channel.close();
});

test('missed and reset', async (t) => {
    const { url } = await startLongline(t, { args: ['--data-provider', 'memory', '--channel-storage-maxsize', '3'] });
    const channel = openChannel(t, url);
    for (const n of range(5)) await channel.push({ n });
    const events = [];
    const on = { onMissed: (count) => events.push({ missed: count }), onReset: (ts) => events.push({ reset: ts }) };
    for await (const { n } of channel.updates({ ts: 1, limit: 1, ...on })) {
        events.push(n);
        if (n === 5) break;
    }
    assert.deepEqual(events, [{ missed: 1 }, 3, 4, 5]);

    events.length = 0;
    const ahead = channel.updates({ ts: 21, ...on });
    const next = ahead.next();
    while (!events.length) await sleep(5);
    await channel.push({ n: 6 });
    assert.deepEqual((await next).value, { n: 6 });
    assert.deepEqual(events, [{ reset: 5 }]);
    await ahead.return();
});

test('10,000 updates through pages of 100', async (t) => {
    const { port, url } = await startLongline(t, { args: ['--data-provider', 'memory', '--channel-storage-maxsize', '10000'] });
    const bodies = range(10_000).map((n) => `{"n":${n}}`);
    const socket = connect(port, '127.0.0.1'); // pipelined: 10,000 fetches would take their time
    socket.end(bodies.map((body) => `POST /channel HTTP/1.1\r\nHost: x\r\nContent-Length: ${body.length}\r\n\r\n${body}`).join(''));
    for await (const _ of socket); // until all are answered
    let polls = 0;
    let expected = 0;
    for await (const { ts, update, text } of openChannel(t, url).entries({ onReply: () => polls++ })) {
        assert.deepEqual([ts, update.n, text], [++expected, expected, `{"n":${expected}}`]);
        if (ts === 10_000) break;
    }
    assert.equal(polls, 100);
});

test('ids of 20 digits are exact in the text, and all else of it too', async (t) => {
    const { url } = await startLongline(t);
    const channel = openChannel(t, url);
    const texts = [
        '{"id":12345678901234567890,"f":1.10}',
        '[ 9007199254740993 , {"__proto__":{"a":1},"a":1,"a":2} ]',
        String.raw`{"s":"\"]},[{\\","\u0061":"\ud83d\ude00 😀 я","nest":[[[{}]],[]],"rtl":"\u202e"}`,
        '{}',
    ];
    for (const text of texts) await channel.push(text);
    const entries = await take(channel.entries(), texts.length);
    assert.deepEqual(entries.map((entry) => entry.text), texts);
    assert.deepEqual(entries.map((entry) => entry.update), texts.map((text) => JSON.parse(text)));
});

test('full: the whole request', async (t) => {
    const { url } = await startLongline(t);
    const before = Date.now();
    const raw = '{"id":12345678901234567890}';
    await openChannel(t, `${url}?appname=a%20b`, { headers: { 'X-Kind': 'ping' } }).push(raw);
    await fetch(url, { method: 'POST', body: Uint8Array.of(0xff, 0), headers: { 'Content-Type': 'text/plain' } });
    const packed = gzipSync('{"z":1}');
    await fetch(url, { method: 'POST', body: packed, headers: { 'Content-Encoding': 'gzip' } });
    const [first, second, third] = await take(openChannel(t, url).entries({ full: true }), 3);
    assert.equal(first.text, '{"id":12345678901234567890,"appname":"a b"}');
    assert.equal(first.update.appname, 'a b');
    assert.equal(first.raw, raw);
    assert.equal(first.query, 'appname=a%20b');
    assert.equal(first.method, 'POST');
    assert.equal(first.headers['x-kind'], 'ping');
    assert.ok(first.at >= before - 1 && first.at <= Date.now() + 1);
    assert.deepEqual(Object.keys({ ...first }), ['ts', 'text', 'update', 'at', 'method', 'query', 'headers', 'from', 'raw']);
    assert.deepEqual([second.ts, second.raw], [2, Uint8Array.of(0xff, 0)]);
    assert.equal(second.text, '{"body_base64":"/wA="}');
    assert.deepEqual([third.raw, third.coded], ['{"z":1}', new Uint8Array(packed)]);
});

test('a server that restarts in mid-poll: nothing is lost', async (t) => {
    const directory = await mkdtemp(join(tmpdir(), 'longline-js-'));
    t.after(() => rm(directory, { recursive: true }));
    const args = ['--data-path', join(directory, 'longline.db')];
    const first = await startLongline(t, { args });
    const channel = openChannel(t, first.url, { backoffMs: 20 });
    await channel.push({ n: 1 });
    const errors = [];
    const updates = channel.updates({ onError: (error, waitMs) => errors.push({ error, waitMs }) });
    assert.deepEqual((await updates.next()).value, { n: 1 });
    const second = updates.next();
    await sleep(50); // so that the poll is under way; nothing depends on it
    await first.stop();
    while (errors.length < 2) await sleep(5);
    await startLongline(t, { args, port: first.port });
    await channel.push({ n: 2 });
    assert.deepEqual((await second).value, { n: 2 });
    for (const { error, waitMs } of errors) {
        assert.ok(error instanceof LonglineError);
        assert.equal(error.status, 0);
        assert.ok(waitMs >= 10);
    }
    await updates.return();
});

test('a server that lost its memory: reset', async (t) => {
    const first = await startLongline(t);
    const channel = openChannel(t, first.url, { backoffMs: 20 });
    for (const n of range(3)) await channel.push({ n });
    const resets = [];
    const updates = channel.updates({ onReset: (ts) => resets.push(ts) });
    for (const n of range(3)) assert.deepEqual((await updates.next()).value, { n });
    const next = updates.next();
    await first.stop();
    await startLongline(t, { port: first.port });
    while (!resets.length) await sleep(5);
    await channel.push({ n: 4 });
    assert.deepEqual((await next).value, { n: 4 });
    assert.deepEqual(resets, [0]);
    await updates.return();
});

test('1 MiB of one string, and nesting as deep as the server takes', async (t) => {
    const { url } = await startLongline(t);
    const channel = openChannel(t, url);
    const long = `["${'\\"]{'.repeat(250_000)}"]`;
    const deep = '['.repeat(200) + ']'.repeat(200);
    await channel.push(long);
    await channel.push(deep);
    const entries = await take(channel.entries(), 2);
    assert.ok(entries[0].text === long && entries[1].text === deep);
    const full = await take(channel.entries({ full: true }), 2);
    assert.ok(full[0].text === long && full[0].raw === long && full[1].text === deep);
});

test('push: what the server refuses', async (t) => {
    const { url } = await startLongline(t, { args: ['--data-provider', 'memory', '--max-body', '1000', '--strict-json', 'on'] });
    const channel = openChannel(t, url);
    await assert.rejects(channel.push('['.repeat(201) + ']'.repeat(201)), (error) => {
        assert.ok(error instanceof LonglineError);
        assert.deepEqual([error.name, error.status, error.retryAfter], ['LonglineError', 400, undefined]);
        assert.match(error.description, /nested deeper than 200 levels/);
        assert.equal(error.message, `400 ${error.description}`);
        return true;
    });
    await assert.rejects(channel.push({ a: 'x'.repeat(2000) }), { status: 413 });
    await assert.rejects(openChannel(t, new URL('/-/nothing', url)).push({}), { status: 404 });
    await assert.rejects(channel.push(undefined), TypeError);
    assert.deepEqual(await channel.push({}), { ts: 1 });
});

test('batches', async (t) => {
    const { url } = await startLongline(t, { args: ['--data-provider', 'memory', '--strict-json', 'on'] });
    const channel = openChannel(t, `${url}?q=1`);
    const texts = ['{"n":1,\n"m":[1.10]}', { n: 2, text: 'two\nlines' }, '[3]'];
    assert.deepEqual(await channel.pushBatch(new Set(texts)), { ts: 3 });
    assert.deepEqual(await channel.pushBatch(range(500).map((n) => ({ n }))), { ts: 503 });
    const entries = await take(channel.entries(), 4);
    assert.equal(entries[0].text, '{"n":1, "m":[1.10],"q":"1"}');
    assert.deepEqual(entries[1].update, { n: 2, text: 'two\nlines', q: '1' });
    assert.deepEqual(entries[2].update, { body: [3], q: '1' });
    assert.equal(entries[3].ts, 4);
    await assert.rejects(channel.pushBatch([{}, '['.repeat(201) + ']'.repeat(201)]), { status: 400, message: /Line 2: .*200 levels/ });
    await assert.rejects(channel.pushBatch([]), { status: 400 });
    for (const none of [undefined, '', ' \n']) await assert.rejects(channel.pushBatch([{}, none]), TypeError);
    assert.deepEqual(await channel.push({}), { ts: 504 });
});

test('polls: what the server refuses is thrown', async (t) => {
    const { url } = await startLongline(t);
    const retried = [];
    const updates = openChannel(t, url).updates({ limit: 0, onError: (error) => retried.push(error) });
    await assert.rejects(updates.next(), { name: 'LonglineError', status: 400, description: 'limit is a whole number from 1' });
    assert.deepEqual(await updates.next(), { value: undefined, done: true });
    assert.deepEqual(retried, []);
    await assert.rejects(take(openChannel(t, new URL('/a/b', url)).updates(), 1), { status: 404 });
});

timedTest('429 of the real server: asked again after Retry-After', async (t) => {
    const { url } = await startLongline(t, { args: ['--data-provider', 'memory', '--rate-limit-limit', '2', '--rate-limit-frame', '1'] });
    const channel = openChannel(t, url);
    await channel.push({ n: 1 });
    const waits = [];
    const updates = channel.updates({ limit: 1, onError: (error, waitMs) => waits.push([error.status, error.retryAfter, waitMs]) });
    await updates.next();
    await assert.rejects(channel.push({ n: 2 }), { status: 429, retryAfter: 1 });
    const next = updates.next();
    while (!waits.length) await sleep(5);
    assert.deepEqual(waits.map(([status, retryAfter]) => [status, retryAfter]), [[429, 1]]);
    assert.ok(waits[0][2] >= 1000 && waits[0][2] <= 1500);
    await sleep(1000); // the window
    await channel.push({ n: 2 });
    assert.deepEqual((await next).value, { n: 2 });
    await updates.return();
});
