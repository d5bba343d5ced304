// The keys of a channel, and its purge.

import assert from 'node:assert/strict';
import { createHash, randomInt } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { inspect } from 'node:util';
import { Channel, LonglineError } from '../index.js';
import * as node from '../node.js';
import { openChannel, startLongline, startScript, take, test } from './helpers.mjs';

const LETTERS = 'abcdefghijklmnopqrstuvwxyz234567';
const { keys: KEYS, key_urls: URLS } = JSON.parse(await readFile(new URL('../../conformance.json', import.meta.url), 'utf8'));

/** What Node's own SHA-256 makes of it. */
function nextKey(key, prefix) {
    const bits = Array.from(createHash('sha256').update(`longline:${key}`).digest(), (byte) => byte.toString(2).padStart(8, '0')).join('');
    return prefix + bits.match(/.{5}/g).slice(0, 26).map((five) => LETTERS[parseInt(five, 2)]).join('');
}

function randomKeys() {
    const first = `r_${Array.from({ length: 26 }, () => LETTERS[randomInt(32)]).join('')}`;
    const second = nextKey(first, 'v_');
    return [first, second, nextKey(second, 'w_')];
}

test('the addresses that only read and only send', () => {
    for (const [first, second, third] of [...KEYS, ...Array.from({ length: 100 }, randomKeys)]) {
        const { readOnlyUrl, sendOnlyUrl } = new Channel(`https://h.example/${first}`);
        assert.deepEqual([readOnlyUrl, sendOnlyUrl], [`https://h.example/${second}`, `https://h.example/${third}`]);
    }
    const withKeys = (text) => text && text.replace(/[RVW]/g, (letter) => KEYS[0]['RVW'.indexOf(letter)]);
    for (const { url, v, w } of URLS) {
        for (const kind of [Channel, node.Channel]) {
            const { readOnlyUrl, sendOnlyUrl } = new kind(withKeys(url));
            assert.deepEqual([readOnlyUrl, sendOnlyUrl], [withKeys(v), withKeys(w)], url);
        }
    }
});

test('new keys', () => {
    const seen = new Set();
    for (const [base, before, after] of [['https://h.example', 'https://h.example/', ''], ['http://h.example:81/a/', 'http://h.example:81/a/', ''], ['https://h.example/a?b=c#d', 'https://h.example/a/', '?b=c']]) {
        for (let i = 0; i < 20; i++) {
            const { url, readOnlyUrl, sendOnlyUrl, ...others } = node.newKeys(base);
            const [first, second, third] = [url, readOnlyUrl, sendOnlyUrl].map((one) => {
                assert.ok(one.startsWith(before) && one.endsWith(after));
                return one.slice(before.length, one.length - after.length);
            });
            assert.match(first, /^r_[a-z2-7]{26}$/);
            assert.deepEqual([second, third, others], [nextKey(first, 'v_'), nextKey(second, 'w_'), {}]);
            seen.add(first);
        }
    }
    assert.equal(seen.size, 60);
    assert.equal(new Set([...seen].join('').replaceAll('_', '')).size, 32);
    for (const bad of ['h.example', 'ftp://SECRET']) assert.throws(() => node.newKeys(bad), (error) => error instanceof TypeError && !error.stack.includes('SECRET'));
});

test('an error tells no key', async (t) => {
    const [[key]] = KEYS;
    const body = { ok: false, error_code: 403, error_description: 'This address only sends' };
    const { url } = await startScript(t, [{ status: 403, body }, { status: 301, headers: { Location: `/${key}` } }]);
    const channel = openChannel(t, new URL(key, url));
    for (const status of [403, 0]) {
        await assert.rejects(channel.purge(), (error) => {
            assert.equal(error.status, status);
            return !inspect(error, { depth: 9 }).includes('aaaaaaaaaa');
        });
    }
});

test('purge', async (t) => {
    const gone = (upto) => ({ body: { ok: true, gone: upto } });
    const foreign = [{ body: '<html>' }, { body: { ok: true } }, { body: { ok: true, gone: '1' } }];
    const { url, requests } = await startScript(t, [gone(7), gone(0), gone(5), ...foreign]);
    const channel = openChannel(t, `${url}?appname=x`);
    const { signal } = new AbortController();
    assert.deepEqual(await channel.purge(), { gone: 7 });
    assert.deepEqual(await channel.purge({ upto: 0 }), { gone: 0 });
    assert.deepEqual(await channel.purge({ upto: 5, signal }), { gone: 5 });
    for (const _ of foreign) await assert.rejects(channel.purge({ signal }), { name: 'LonglineError', status: 200 });
    const asked = ['', '?upto=0', '?upto=5', '', '', ''];
    assert.deepEqual(requests.map(({ method, url }) => [method, url]), asked.map((query) => ['DELETE', `/channel${query}`]));
});

test('a slip purges nothing', async (t) => {
    const { url, requests } = await startScript(t, []);
    const channel = openChannel(t, url);
    const { ts } = channel.updates({ name: 'bot' }); // the server knows it, not we
    for (const slip of [5, '5', null, { ts: 5 }, { upTo: 5 }, { upto: ts }, { upto: null }, { upto: '5' }, { upto: -1 }, { upto: 0.5 }, { upto: NaN }]) {
        await assert.rejects(channel.purge(slip), (error) => error instanceof TypeError || error instanceof RangeError, inspect(slip));
    }
    assert.deepEqual(requests, []);
});

test('a redirect of a DELETE is not followed: it may have lost the query, and then it would purge all', async (t) => {
    const moved = { status: 308, headers: { Location: '/channel' } };
    const direct = await startScript(t, [moved, moved]);
    const proxy = await startScript(t, [moved, moved]);
    const through = new node.Channel('http://longline.test/channel', { proxy: new URL(proxy.url).origin });
    for (const channel of [openChannel(t, direct.url), through]) {
        await assert.rejects(channel.purge({ upto: 5 }), { name: 'LonglineError', status: 0 });
        await assert.rejects(channel.forgetConsumer('bot'), { name: 'LonglineError', status: 0 });
    }
    for (const { requests } of [direct, proxy]) assert.deepEqual(requests.map(({ method }) => method), ['DELETE', 'DELETE']);
});

test('the three addresses and a purge, of the real server', async (t) => {
    const { url: base } = await startLongline(t);
    const { url, readOnlyUrl, sendOnlyUrl } = node.newKeys(new URL('/', base));
    const [all, reader, sender] = [url, readOnlyUrl, sendOnlyUrl].map((one) => openChannel(t, one));
    for (const n of [1, 2, 3]) assert.deepEqual(await sender.push({ n }), { ts: n });
    for (const channel of [all, reader]) assert.deepEqual(await take(channel.updates(), 3), [{ n: 1 }, { n: 2 }, { n: 3 }]);

    const refused = [reader.push({}), reader.pushBatch([{}]), reader.purge(), sender.purge(), reader.forgetConsumer('bot'), sender.consumers(), sender.updates().next()];
    for (const { reason } of await Promise.allSettled(refused)) {
        assert.ok(reason instanceof LonglineError);
        assert.deepEqual([reason.status, reason.isOwn], [403, true]);
        assert.match(reason.description, /^This address /);
    }

    const waiting = all.updates({ ts: 3 }).next();
    assert.deepEqual(await all.purge({ upto: 2 }), { gone: 2 });
    const missed = [];
    const onMissed = (count) => missed.push(count);
    assert.deepEqual(await take(reader.updates({ onMissed }), 1), [{ n: 3 }]);
    assert.deepEqual(await all.purge(), { gone: 3 });
    await sender.push({ n: 4 });
    assert.deepEqual((await waiting).value, { n: 4 });
    assert.deepEqual(await take(reader.updates({ onMissed }), 1), [{ n: 4 }]);
    assert.deepEqual(missed, [2, 3]);
});
