// What a program does not ask for: warnings, refusals before anything is sent, the end of a block.

import assert from 'node:assert/strict';
import { Channels } from '../index.js';
import { openChannel, reply, startScript, take, test, timedTest } from './helpers.mjs';

/** The texts that console.warn() gets in this test. */
function warnings(t) {
    const { mock } = t.mock.method(console, 'warn', () => {});
    return () => mock.calls.map(({ arguments: [text] }) => text);
}

timedTest('what has no callback is a warning, with the host and without the path', async (t) => {
    const warned = warnings(t);
    const server = await startScript(t, [(socket) => socket.destroy(), { status: 503, body: '' }, reply(3, [], { reset: true }), reply(9, [{ n: 9 }], { missed: 5 })]);
    const { host } = new URL(server.url);
    assert.deepEqual(await take(openChannel(t, server.url, { backoffMs: 1 }).updates({ ts: 4 }), 1), [{ n: 9 }]);
    const lines = warned();
    assert.equal(lines.length, 4);
    assert.ok(lines.every((line) => line.startsWith(`longline (${host}): `) && !line.includes('channel/') && !line.includes('/channel')), lines.join('\n'));
    assert.match(lines[0], /: No reply: .*; the next try is in 0\.0 s$/);
    assert.match(lines[1], /: 503 Service Unavailable; the next try is in 0\.0 s$/);
    assert.match(lines[2], /: the channel's data is not what it was; going on from ts 3$/);
    assert.match(lines[3], /: 5 updates are no longer kept and have been missed$/);
});

test('so is the error of one of many channels', async (t) => {
    const warned = warnings(t);
    const server = await startScript(t, [{ body: { ok: true, channels: { a: { ok: false, error_code: 403, error_description: 'No' }, b: { ok: true, ts: 1, updates: [{}] } } } }]);
    const channels = new Channels(new URL('.', server.url), { backoffMs: 1 });
    t.after(() => channels.close());
    await take(channels.updates({ a: 0, b: 0 }), 1);
    assert.deepEqual(warned(), [`longline (${new URL(server.url).host}): 403 No; the next try is in 0.0 s`]);
});

test('callbacks silence the warnings', async (t) => {
    const warned = warnings(t);
    const server = await startScript(t, [{ status: 503, body: '' }, reply(3, [], { reset: true }), reply(9, [{}], { missed: 5 })]);
    const silent = () => {};
    await take(openChannel(t, server.url, { backoffMs: 1 }).updates({ onError: silent, onReset: silent, onMissed: silent }), 1);
    assert.deepEqual(warned(), []);
});

test('what is no update is refused before anything is sent', async (t) => {
    const server = await startScript(t, []);
    const channel = openChannel(t, server.url);
    for (const update of ['x', '"x"', '', ' ', '3', 'null', '{"a":', '{} x', 3, null, undefined, true, NaN, new Date(), () => {}]) {
        await assert.rejects(channel.push(update), TypeError, String(update));
        await assert.rejects(channel.pushBatch([{}, update]), TypeError, String(update));
    }
    assert.equal(server.requests.length, 0);
});

test('an object, an array, and the JSON text of one are sent', async (t) => {
    const updates = [{}, [], ' {"n":10000000000000000001}\n', '[]', { toJSON: () => [1] }];
    const server = await startScript(t, updates.map(() => ({ headers: { 'X-Total-Updates': '1' }, body: 'OK' })));
    const channel = openChannel(t, server.url);
    for (const update of updates) await channel.push(update);
    assert.deepEqual(server.requests.map(({ body }) => body), ['{}', '[]', updates[2], '[]', '[1]']);
});

test('using and await using end what they hold', { skip: !Symbol.asyncDispose }, async (t) => {
    const server = await startScript(t, []);
    const channel = openChannel(t, server.url);
    const updates = [channel.updates(), channel.updates()];
    const ends = updates.map((each) => each.next());
    await server.asked(2);
    assert.equal(await updates[0][Symbol.asyncDispose](), undefined);
    assert.deepEqual(await ends[0], { value: undefined, done: true });
    channel[Symbol.dispose]();
    assert.deepEqual(await ends[1], { value: undefined, done: true });
});
