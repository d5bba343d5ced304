// Against a server that plays a script of faults.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { inspect } from 'node:util';
import { Channel, LonglineError } from '../index.js';
import { openChannel, reply, startScript, take, test, timedTest } from './helpers.mjs';

const HALF = 'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{"ok":true,"ts":1,"upda';
const UNENDED = 'HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{"ok":true,"ts":1,"updates":[{"n":1}';
const answer = (socket, { status = 200, body }) => socket.end(`HTTP/1.1 ${status} Told\r\nConnection: close\r\n\r\n${JSON.stringify(body)}`);
const within100ms = async (promise, began = performance.now()) => {
    const result = await promise;
    const ms = performance.now() - began;
    assert.ok(ms < 100, `took ${ms} ms`);
    return result;
};

timedTest('faults that pass: each is reported, and asked again with the same ts', async (t) => {
    const faults = [
        (socket) => socket.end(HALF), // cut in mid-body
        (socket) => socket.end(UNENDED), // cut, without a length that would tell
        (socket) => socket.destroy(), // no reply
        { body: '<html>' },
        { body: '' },
        { body: '{"ok":true,"ts":1,"updates":[{"n":01}]}' },
        { body: '{"ok":true,"ts":1,"updates":[{"n":1}]} x' },
        { body: '{"ok":true,"ts":1,"updates":{}}' },
        { body: '{"ok":true,"updates":[]}' },
        { body: 'null' },
        (socket) => socket.end('HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{"ok":true,"ts":1,"updates":[["\xff"]]}', 'latin1'), // not UTF-8
        { status: 500, body: { ok: false, error_code: 500, error_description: 'Broken' } },
        { status: 502, body: '<html>' },
        { status: 408, body: '' },
    ];
    const server = await startScript(t, [reply(4, [{ n: 4 }]), ...faults, reply(5, [{ n: 5 }])]);
    const errors = [];
    const channel = openChannel(t, server.url, { backoffMs: 1, backoffMaxMs: 2 });
    const updates = channel.updates({ ts: 3, sleep: 7, limit: 9, onError: (error) => errors.push(error) });
    assert.deepEqual(await take(updates, 2), [{ n: 4 }, { n: 5 }]);
    assert.ok(errors.every((error) => error instanceof LonglineError));
    assert.deepEqual(errors.map((error) => error.status), [0, 200, 0, 200, 200, 200, 200, 200, 200, 200, 0, 500, 502, 408]);
    assert.equal(errors[11].message, '500 Broken');
    assert.equal(errors[12].description, 'Bad Gateway');
    assert.deepEqual(server.requests[0].query, { ts: '3', sleep: '7', limit: '9', epoch: '' });
    for (const { query } of server.requests.slice(1)) assert.equal(query.ts, '4');
});

timedTest('backoff doubles to its bound, with jitter, and starts anew after a good reply', async (t) => {
    const broken = { status: 500, body: '' };
    const server = await startScript(t, [broken, broken, broken, broken, broken, reply(1, [{}]), broken, reply(2, [{}])]);
    const waits = [];
    const channel = openChannel(t, server.url, { backoffMs: 20, backoffMaxMs: 100 });
    await take(channel.updates({ onError: (_, waitMs) => waits.push(waitMs) }), 2);
    [20, 40, 80, 100, 100, 20].forEach((step, i) => assert.ok(waits[i] >= step / 2 && waits[i] <= step, `${waits[i]} of ${step}`));
    waits.slice(0, 5).forEach((ms, i) => {
        const took = server.requests[i + 1].at - server.requests[i].at;
        assert.ok(took >= ms - 2, `${took} of ${ms}`);
    });
});

timedTest('429 and 503 wait for Retry-After, of others it does not count, and it is bounded', async (t) => {
    const busy = (status, seconds) => ({ status, headers: { 'Retry-After': seconds }, body: '' });
    const server = await startScript(t, [busy(429, '1'), busy(503, '1'), busy(500, '9'), busy(503, '0'), busy(503, '-3'), busy(429, 'soon'), busy(503, '9999')]);
    const waits = [];
    const updates = openChannel(t, server.url, { backoffMs: 2, backoffMaxMs: 4 }).updates({ onError: (_, waitMs) => waits.push(waitMs) });
    const ended = updates.next();
    const last = await server.asked(7);
    assert.ok(server.requests[1].at - server.requests[0].at >= 998);
    assert.ok(server.requests[2].at - server.requests[1].at >= 998);
    assert.ok(last.at - server.requests[2].at < 900);
    while (waits.length < 7) await sleep(1);
    for (const [i, ms] of [[0, 1000], [1, 1000], [6, 60_000]]) assert.ok(waits[i] >= ms && waits[i] <= ms * 1.5, `${waits[i]} of ${ms}`);
    assert.notEqual(waits[0], waits[1], 'not all at once');
    assert.ok(waits.slice(2, 6).every((ms) => ms > 0 && ms <= 4));
    await updates.return();
    await ended;
});

test('a 4xx of longline itself is thrown at once', async (t) => {
    for (const status of [400, 404, 405, 409, 413, 431]) {
        const server = await startScript(t, [{ status, body: { ok: false, error_code: status, error_description: 'No' } }]);
        await assert.rejects(take(openChannel(t, server.url).updates(), 1), { status, description: 'No', isOwn: true });
        assert.equal(server.requests.length, 1);
    }
});

test('what a proxy or a login page says passes', async (t) => {
    const page = '<html>Log in</html>';
    const pages = [300, 400, 401, 403, 404, 405, 413, 431].map((status) => ({ status, body: page }));
    const jsons = [{ message: 'Forbidden' }, { ok: false, error_code: 404 }, { ok: true, error_code: 403 }, null, []].map((body) => ({ status: 403, body }));
    const own = [425, 429].map((status) => ({ status, body: { ok: false, error_code: status, error_description: 'Wait' } }));
    const login = [{ status: 302, headers: { Location: '/login' }, body: '' }, { body: page }];
    const nowhere = [{ status: 302, body: '' }];
    const steps = [...pages, ...jsons, ...own, ...login, ...nowhere];
    const server = await startScript(t, [...steps, reply(1, [{ n: 1 }])]);
    const errors = [];
    const channel = openChannel(t, server.url, { backoffMs: 1, backoffMaxMs: 2 });
    assert.deepEqual(await take(channel.updates({ onError: (error) => errors.push(error.status) }), 1), [{ n: 1 }]);
    assert.deepEqual(errors, [...steps.slice(0, -3).map(({ status }) => status), 200, 302]);
});

// The server lets a poll wait a while, and then a proxy ends it.
const CUTS = {
    closed: (socket) => socket.destroy(),
    reset: (socket) => socket.resetAndDestroy(),
    'in mid-body': (socket) => socket.end(HALF),
    ...Object.fromEntries([408, 500, 502, 503, 504, 524].map((status) => [status, (socket) => socket.end(`HTTP/1.1 ${status} Told\r\nContent-Length: 6\r\n\r\n<html>`)])),
};

for (const [how, cut] of Object.entries(CUTS)) {
    timedTest(`a poll that was cut after it waited (${how}): asked again at once, shorter`, async (t) => {
        const cutAfter = (ms) => async (socket) => {
            await sleep(ms);
            cut(socket);
        };
        const server = await startScript(t, [cutAfter(1600), cutAfter(520), reply(1, [{}])]);
        const errors = [];
        const updates = openChannel(t, server.url, { backoffMs: 10_000 }).updates({ sleep: 7, onError: (error, waitMs) => errors.push(waitMs) });
        await take(updates, 1);
        const [first, second, third] = server.requests;
        assert.ok(third.at - first.at < 2900, `${third.at - first.at} ms`);
        assert.equal(first.query.sleep, '7');
        assert.ok(second.query.sleep >= 1.2 && second.query.sleep < 1.6, second.query.sleep);
        assert.equal(third.query.sleep, '1');
        assert.deepEqual(errors, [0], 'two in a row may mean more');
    });
}

timedTest('a dead server behind a slow proxy: told once, and not asked without a pause', async (t) => {
    const dead = async (socket) => {
        await sleep(600);
        CUTS[502](socket);
    };
    const server = await startScript(t, [...Array(5).fill(dead), reply(1, [{}]), dead, dead, reply(2, [{}])]);
    const errors = [];
    const updates = openChannel(t, server.url).updates({ onError: ({ status }, waitMs) => errors.push([status, waitMs, server.requests.length]) });
    await take(updates, 2);
    assert.deepEqual(errors, [[502, 0, 2], [502, 0, 8]]);
    const between = server.requests.map(({ at }, i, { [i + 1]: next }) => next?.at - at);
    assert.ok([2, 3, 4].every((i) => between[i] >= 840 && between[i] < 1400), String(between));
});

timedTest('what ends no waiting poll is a failure: too early, too late, an error of longline, without a wait', async (t) => {
    const own = { ok: false, error_code: 503, error_description: 'The store cannot do this now' };
    const late = (step) => async (socket) => {
        await sleep(600);
        answer(socket, step);
    };
    const server = await startScript(t, [(socket) => socket.destroy(), late({ status: 503, body: own }), late({ status: 408, body: { ...own, error_code: 408 } }), reply(1, [{}])]);
    const waits = [];
    const options = { onError: (error, waitMs) => waits.push(waitMs) };
    await take(openChannel(t, server.url, { backoffMs: 10 }).updates({ sleep: 7, ...options }), 1);
    assert.ok(waits.length === 3 && waits.every((ms) => ms > 0), String(waits));
    assert.ok(server.requests.every(({ query }) => query.sleep === '7'));

    waits.length = 0;
    const other = await startScript(t, [late({ status: 502, body: {} }), reply(1, [{}])]);
    await take(openChannel(t, other.url, { backoffMs: 10 }).updates({ sleep: 0, ...options }), 1);
    assert.ok(waits.length === 1 && waits[0] > 0, String(waits));
});

timedTest('a shorter wait grows again, up to what was asked for', async (t) => {
    const empty = reply(4, []);
    const wait = async (socket) => {
        await sleep(Number(server.requests.at(-1).query.sleep) * 1000 + 5);
        answer(socket, empty);
    };
    const server = await startScript(t, [async (socket) => (await sleep(520), socket.destroy()), wait, wait, wait, reply(5, [{}])]);
    await take(openChannel(t, server.url).updates({ ts: 4, sleep: 1.5 }), 1);
    assert.deepEqual(server.requests.map(({ query }) => query.sleep), ['1.5', '1', '1.25', '1.5', '1.5']);
});

timedTest('no update is late by a second through a proxy that cuts each poll after one', async (t) => {
    const due = 2300; // when the update is there
    const lateMs = await Promise.all(Object.values(CUTS).map(async (cut) => {
        const began = performance.now();
        const held = async (socket) => {
            const left = began + due - performance.now();
            await sleep(Math.min(Math.max(left, 0), 1000));
            if (left > 1000) cut(socket);
            else answer(socket, reply(1, [{}]));
        };
        const server = await startScript(t, Array(20).fill(held));
        await take(openChannel(t, server.url).updates(), 1);
        return performance.now() - began - due;
    }));
    assert.ok(lateMs.every((ms) => ms < 1000), String(lateMs));
});

test('missed, reset and replies are told before the updates; the cursor is the last update handled', async (t) => {
    const server = await startScript(t, [reply(9, [{ n: 8 }, { n: 9 }], { missed: 5 }), reply(2, [], { reset: true }), reply(3, [{ n: 3 }])]);
    const events = [];
    const updates = openChannel(t, server.url).updates({
        ts: 2,
        onMissed: (count) => events.push(`missed ${count} at ${updates.ts}`),
        onReset: (ts) => events.push(`reset to ${ts} at ${updates.ts}`),
        onReply: ({ ts, total }) => events.push(`reply ${ts} of ${total}`),
    });
    for await (const { n } of updates) {
        events.push(`${n} at ${updates.ts}`);
        if (n === 3) break;
    }
    assert.deepEqual(events, ['reply 9 of 9', 'missed 5 at 2', '8 at 7', '9 at 8', 'reply 2 of 2', 'reset to 2 at 9', 'reply 3 of 3', '3 at 2']);
    assert.deepEqual(server.requests.map(({ query }) => query.ts), ['2', '9', '2']);
});

test('a body that throws ends the loop; the cursor brings the same update again', async (t) => {
    const server = await startScript(t, [reply(2, [{ n: 1 }, { n: 2 }]), reply(2, [{ n: 2 }])]);
    const channel = openChannel(t, server.url);
    const updates = channel.updates();
    await assert.rejects(async () => {
        for await (const { n } of updates) if (n === 2) throw new Error('mine');
    }, { message: 'mine' });
    assert.equal(updates.ts, 1);
    assert.deepEqual(await take(channel.updates({ ts: updates.ts }), 1), [{ n: 2 }]);
    assert.equal(server.requests[1].query.ts, '1');
});

test('a callback that throws ends the loop as its body does', async (t) => {
    const server = await startScript(t, [reply(2, [{}], { missed: 1 })]);
    const updates = openChannel(t, server.url).updates({ onMissed() { throw new Error('mine'); } });
    await assert.rejects(updates.next(), { message: 'mine' });
    assert.equal(updates.ts, 0);
});

timedTest('empty replies that come at once do not make it spin', async (t) => {
    const server = await startScript(t, Array(50).fill(reply(0, [])));
    const updates = openChannel(t, server.url, { backoffMs: 40 }).updates({ sleep: 0 });
    const began = performance.now();
    const ended = updates.next();
    await sleep(200);
    await server.asked(2);
    const [count, most] = [server.requests.length, 1 + (performance.now() - began) / 20];
    assert.ok(count <= most, `${count} requests instead of ${most}`);
    await within100ms(updates.return());
    assert.equal((await ended).done, true);
});

timedTest('stop within 100 ms while a poll waits: signal, close(), return(); the server sees it go', async (t) => {
    for (const how of ['signal', 'close', 'return']) {
        const server = await startScript(t, []);
        const channel = openChannel(t, server.url);
        const aborter = new AbortController();
        const updates = channel.updates({ signal: aborter.signal });
        const ended = updates.next();
        const request = await server.asked(1);
        const began = performance.now();
        if (how === 'signal') aborter.abort();
        else if (how === 'close') channel.close();
        else await updates.return();
        assert.deepEqual(await within100ms(ended, began), { value: undefined, done: true }, how);
        while (!request.closed && performance.now() - began < 1000) await sleep(2);
        assert.ok(request.closed - began < 200, how);
        assert.equal(server.requests.length, 1);
    }
});

timedTest('stop within 100 ms while in backoff, and in mid-body', async (t) => {
    const stuck = (socket) => socket.write(HALF);
    for (const step of [{ status: 500, body: '' }, { status: 503, headers: { 'Retry-After': '30' }, body: '' }, stuck]) {
        const server = await startScript(t, [step]);
        const aborter = new AbortController();
        const ended = openChannel(t, server.url, { backoffMs: 60_000, backoffMaxMs: 60_000 }).updates({ signal: aborter.signal }).next();
        await server.asked(1);
        await sleep(50); // so that the reply is there
        aborter.abort();
        assert.equal((await within100ms(ended)).done, true);
    }
});

test('stop between the updates of a reply: no more of them', async (t) => {
    const server = await startScript(t, [reply(3, [{ n: 1 }, { n: 2 }, { n: 3 }])]);
    const channel = openChannel(t, server.url);
    const updates = channel.updates();
    const seen = [];
    for await (const { n } of updates) {
        seen.push(n);
        channel.close();
    }
    assert.deepEqual([seen, updates.ts], [[1], 1]);
    const aborted = channel.updates({ signal: AbortSignal.abort() });
    assert.equal((await aborted.next()).done, true);
    assert.equal(server.requests.length, 1);
    const anew = channel.updates().next(); // a closed channel can be used again
    await server.asked(2);
    channel.close();
    assert.equal((await anew).done, true);
});

test('a reply that is no text leaves its connection to the next request', async (t) => {
    const sockets = new Set();
    const server = await startScript(t, Array(5).fill((socket) => {
        sockets.add(socket);
        socket.write('HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n["\xff', 'latin1');
    }));
    for (let n = 0; n < 5; n++) await assert.rejects(openChannel(t, server.url).push({}), { status: 0 });
    assert.ok(sockets.size < 5);
});

test('a reply that was read to its end leaves its connection to the next request', async (t) => {
    const sockets = new Set();
    const server = await startScript(t, Array(5).fill((socket) => {
        sockets.add(socket);
        socket.write('HTTP/1.1 200 OK\r\nX-Total-Updates: 1\r\nContent-Length: 2\r\n\r\nOK');
    }));
    for (let n = 0; n < 5; n++) await openChannel(t, server.url).push({});
    assert.ok(sockets.size < 5);
});

test('many loops over one channel: no warning, and close() ends them all', async (t) => {
    const warnings = [];
    const warned = (warning) => warnings.push(warning);
    process.on('warning', warned);
    t.after(() => process.off('warning', warned));
    const server = await startScript(t, []);
    const channel = openChannel(t, server.url);
    const loops = Array.from({ length: 20 }, () => channel.updates());
    const ended = loops.slice(1).map((loop) => loop.next());
    await server.asked(19);
    channel.close();
    ended.push(loops[0].next()); // made before the close
    for (const { done } of await Promise.all(ended)) assert.equal(done, true);
    assert.deepEqual(warnings, []);
});

test('an ended loop leaves nothing behind at the signal', async (t) => {
    const server = await startScript(t, [{ status: 500, body: '' }, reply(1, [{}])]);
    const { signal } = new AbortController();
    let listeners = 0;
    for (const [name, step] of [['addEventListener', 1], ['removeEventListener', -1]]) {
        const real = signal[name].bind(signal);
        signal[name] = (...args) => {
            listeners += step;
            return real(...args);
        };
    }
    await take(openChannel(t, server.url, { backoffMs: 1 }).updates({ signal }), 1);
    assert.equal(listeners, 0);
});

timedTest('a reply is given up 15 s after the wait without a byte, but not while bytes come', async (t) => {
    const real = globalThis.setTimeout;
    t.after(() => (globalThis.setTimeout = real));
    globalThis.setTimeout = (run, ms, ...rest) => real(run, ms === 20_000 ? 1000 : ms, ...rest); // 5 s of wait and 15 s
    const stuck = (socket) => socket.write(HALF);
    const slow = async (socket) => {
        socket.write('HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n');
        for (const part of ['{"ok":', 'true,', '"ts":1', ',"upda', 'tes":', '[{}]}']) {
            await new Promise((resolve) => real(resolve, 250)); // far from 1000, and more than that in all
            socket.write(part);
        }
        socket.end();
    };
    const server = await startScript(t, [stuck, slow]);
    const errors = [];
    const updates = openChannel(t, server.url, { backoffMs: 5 }).updates({ sleep: 5, onError: (error) => errors.push(error) });
    assert.deepEqual(await take(updates, 1), [{}]);
    assert.deepEqual(errors.map(({ status, message }) => [status, message]), [[0, 'No reply: it did not come in time']]);
    const ms = server.requests[1].at - server.requests[0].at;
    assert.ok(ms >= 995, `${ms} ms`);
});

test('push: sent once, with its query and headers; errors', async (t) => {
    const ok = { headers: { 'X-Total-Updates': '7' }, body: 'OK' };
    const server = await startScript(t, [
        ok,
        { status: 503, headers: { 'Retry-After': '5' }, body: { error_description: 'The store cannot do this now; nothing was stored' } },
        (socket) => socket.destroy(),
        { body: '<html>of a hotel</html>' },
        { status: 302, headers: { Location: '/elsewhere' }, body: '' },
        reply(1, []),
    ]);
    const channel = openChannel(t, `${server.url}?appname=x%20y`, { headers: { Authorization: 'Basic eDp5' } });
    assert.deepEqual(await channel.push({ a: 1 }), { ts: 7 });
    const [request] = server.requests;
    assert.deepEqual([request.method, request.url, request.body], ['POST', '/channel?appname=x%20y', '{"a":1}']);
    assert.equal(request.headers['content-type'], 'application/json');
    assert.equal(request.headers.authorization, 'Basic eDp5');
    await assert.rejects(channel.push({}), { status: 503, retryAfter: 5, description: 'The store cannot do this now; nothing was stored' });
    await assert.rejects(channel.push({}), { name: 'LonglineError', status: 0, retryAfter: undefined });
    await assert.rejects(channel.push({}), { status: 200 });
    await assert.rejects(channel.push({}), { status: 200 }, 'a redirect made a GET of it');
    assert.equal(server.requests.length, 6);
});

timedTest('push: stop within 100 ms', async (t) => {
    const server = await startScript(t, []);
    const channel = openChannel(t, server.url);
    const aborter = new AbortController();
    const pushed = channel.push({}, { signal: aborter.signal });
    await server.asked(1);
    aborter.abort(new Error('mine'));
    await assert.rejects(within100ms(pushed), { message: 'mine' });
    await assert.rejects(channel.push({}, { signal: AbortSignal.abort(new Error('mine')) }), { message: 'mine' });
});

test('a batch that the server takes for one update', async (t) => {
    const receipt = (headers) => ({ headers: { 'X-Total-Updates': '3', ...headers }, body: 'OK' });
    const server = await startScript(t, [receipt(), receipt({ 'X-Updates': '3' }), receipt({ 'X-Updates': '3' })]);
    const channel = openChannel(t, server.url);
    const unknown = { name: 'LonglineError', status: 200, description: 'The server does not know batches; it has stored the text as one update' };
    await assert.rejects(channel.pushBatch([{}, {}]), unknown);
    await assert.rejects(channel.pushBatch([{}, {}]), { status: 200, description: 'The server has stored 3 updates, not 2' });
    assert.deepEqual(await channel.pushBatch([{}, {}, {}]), { ts: 3 });
});

test('a push to where nobody listens', async () => {
    const server = createServer().listen(0, '127.0.0.1');
    await once(server, 'listening');
    const { port } = server.address();
    await new Promise((resolve) => server.close(resolve));
    await assert.rejects(new Channel(`http://127.0.0.1:${port}/x`).push({}), (error) => error.status === 0 && /^No reply: .*ECONNREFUSED/.test(error.message));
});

test('arguments', () => {
    for (const address of ['SECRET', 'http://local host/SECRET', 'file:///SECRET', 'http://user:password@localhost/SECRET']) {
        assert.throws(() => new Channel(address), (error) => error instanceof TypeError && !inspect(error).includes('SECRET'));
    }
    const channel = new Channel(new URL('http://localhost/x'));
    assert.equal(channel.url, 'http://localhost/x');
    for (const options of [{ ts: '1' }, { ts: 1.5 }, { ts: NaN }, { sleep: -1 }, { sleep: NaN }, { sleep: 'x' }]) {
        assert.throws(() => channel.updates(options), RangeError);
    }
});
