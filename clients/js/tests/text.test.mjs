// Cutting updates out of a reply: through a `fetch` that answers with a given text.

import assert from 'node:assert/strict';
import { Channel } from '../index.js';
import { take, test } from './helpers.mjs';

/** What one poll makes of a reply's text: its entries, or the error that it reports. `chunk`: bytes that come at a time. */
async function read(text, { chunk = 1 << 20, ...options } = {}) {
    const bytes = typeof text === 'string' ? new TextEncoder().encode(text) : text;
    const fetch = async () => new Response(new ReadableStream({
        start(controller) {
            for (let at = 0; at < bytes.length; at += chunk) controller.enqueue(bytes.slice(at, at + chunk));
            controller.close();
        },
    }));
    const channel = new Channel('http://test/x', { fetch });
    let count;
    let failed;
    const entries = channel.entries({ ...options, onReply: ({ ts }) => (count = ts), onError(error) {
        failed = error;
        channel.close();
    } });
    const first = await entries.next();
    if (failed) throw failed;
    return [first.value, ...(count > 1 ? await take(entries, count - 1) : [])];
}

const wrap = (items) => `{"ok":true,"ts":${items.length},"updates":[${items.join(',')}]}`;

/** A generator of numbers in [0, below), the same in every run. */
function random(seed) {
    return (below) => {
        seed = (seed * 1103515245 + 12345) % 2147483648;
        return Math.floor((seed / 2147483648) * below);
    };
}

/** Some JSON text: odd but valid. */
function anyText(pick, depth = 0) {
    const space = () => ['', '', '', ' ', '\n\t', '\r'][pick(6)];
    const string = () => `"${Array.from({ length: pick(6) }, () => ['a', '\\"', '\\\\', ']', '}', ',', '[{', '\\u005d', '\\n', 'я', '😀', '\u2028', '/', '\\/', ':', '\x7f'][pick(16)]).join('')}"`;
    const scalars = ['0', '-0', '-1.50e+10', '12345678901234567890', '1E400', 'true', 'false', 'null', '9007199254740993'];
    const kind = depth > 5 ? pick(2) : pick(5);
    if (kind === 0) return scalars[pick(scalars.length)];
    if (kind === 1) return string();
    const parts = Array.from({ length: pick(4) }, () => `${space()}${kind > 2 ? `${string()}${space()}:${space()}` : ''}${anyText(pick, depth + 1)}${space()}`);
    const inner = parts.length ? parts.join(',') : space();
    return kind > 2 ? `{${inner}}` : `[${inner}]`;
}

test('any valid text comes out as it was', async () => {
    const pick = random(1);
    for (let round = 0; round < 300; round++) {
        const texts = Array.from({ length: 1 + pick(8) }, () => `[${anyText(pick)}]`);
        const padded = texts.map((text) => `${['', ' ', '\r\n'][pick(3)]}${text}${['', '\t'][pick(2)]}`);
        const entries = await read(wrap(padded), { chunk: 1 + pick(40) });
        assert.deepEqual(entries.map(({ text }) => text), texts);
        assert.deepEqual(entries.map(({ ts }) => ts), texts.map((_, i) => i + 1));
        assert.deepEqual(entries.map(({ update }) => update), texts.map((text) => JSON.parse(text)));
    }
});

test('what JSON.parse refuses is refused, and nothing else', async () => {
    const pick = random(2);
    const odd = '{}[]",:\\ue0+-.1 \n\0tfn\x1f';
    let refused = 0;
    for (let round = 0; round < 3000; round++) {
        let text = wrap([`[${anyText(pick)}]`]);
        const at = '{"ok":true,"ts":1,"updates":['.length + pick(text.length - 31);
        // toWellFormed in other words: a character above U+FFFF may just have been cut in two.
        text = new TextDecoder().decode(new TextEncoder().encode(text.slice(0, at) + odd[pick(odd.length)] + text.slice(at + pick(2))));
        let parsed;
        try {
            parsed = JSON.parse(text);
        } catch {
            refused++;
            await assert.rejects(read(text), { name: 'LonglineError', status: 200 }, text);
            continue;
        }
        // It may have become another reply that is valid: of no or several updates, or of a part that was a string.
        if (parsed.ts !== 1 || parsed.updates?.length !== 1) continue;
        const [entry] = await read(text);
        assert.deepEqual(entry.update, parsed.updates[0]);
        assert.deepEqual(JSON.parse(entry.text), parsed.updates[0]);
    }
    assert.ok(refused > 500 && refused < 2900, String(refused));
});

test('members in any order, unknown ones, and names that are traps', async () => {
    const [entry] = await read(' { "updates" : [ {"updates":[1],"ts":9} ] ,"__proto__":{"ts":8},"x":["updates",[2]],"ok":true, "ts" : 1 } ');
    assert.deepEqual([entry.ts, entry.text], [1, '{"updates":[1],"ts":9}']);
    const [full] = await read('{"ts":1,"updates":[{"raw":"\\"body\\":[0]","body": [12345678901234567890 ] ,"query":"","headers":{"body":"1"},"at":5,"method":"POST","ts":1}]}', { full: true });
    assert.deepEqual([full.text, full.raw, full.headers, full.at], ['[12345678901234567890 ]', '"body":[0]', { body: '1' }, 5]);
    assert.deepEqual(['path', 'from', 'same_as'].filter((name) => name in full), []);
    const [repeated] = await read('{"ts":1,"updates":[{"ts":1,"same_as":41,"at":5,"method":"PUT","path":"/v1","from":"::1","query":"","headers":{},"body":{},"raw":"{}"}]}', { full: true });
    assert.deepEqual([repeated.path, repeated.from, repeated.same_as], ['/v1', '::1', 41]);
    const [proto] = await read(wrap(['{"__proto__":{"polluted":1}}']));
    assert.ok(Object.hasOwn(proto.update, '__proto__'));
    assert.equal({}.polluted, undefined);
});

test('the text is cut out once, when it is first read', async () => {
    const [entry] = await read(wrap(['{"a":1}']));
    const descriptor = () => Object.getOwnPropertyDescriptor(entry, 'text');
    assert.equal(typeof descriptor().get, 'function');
    assert.equal(entry.text, '{"a":1}');
    assert.equal(descriptor().value, '{"a":1}');
    assert.deepEqual({ ...entry }, { ts: 1, text: '{"a":1}', update: { a: 1 } });
});

test('1 MiB of anything takes a moment', async () => {
    const size = 1 << 20;
    const texts = {
        string: `["${'a'.repeat(size)}"]`,
        escapes: `["${'\\\\'.repeat(size / 2)}"]`,
        digits: `[${'1'.repeat(size)}]`,
        spaces: `[${' '.repeat(size)}]`,
        keys: `{${Array.from({ length: size / 11 }, (_, i) => `"${i + 100_000}":1`).join()}}`,
        flat: `[${'1,'.repeat(size / 2)}1]`,
        nested: `[${Array(2000).fill('['.repeat(250) + ']'.repeat(250)).join()}]`,
    };
    for (const [name, text] of Object.entries(texts)) {
        const began = process.cpuUsage();
        const [entry] = await read(wrap([text]));
        const { user, system } = process.cpuUsage(began);
        const ms = (user + system) / 1000; // of CPU: the machine has other work to do
        assert.ok(entry.text === text, name);
        assert.ok(ms < 1500, `${name}: ${ms} ms of CPU`); // some 100 ms; a bad rule would take minutes
    }
});

test('nesting beyond what longline stores does no harm', async () => {
    const nested = (levels) => wrap(['['.repeat(levels) + ']'.repeat(levels)]);
    for (const levels of [500, 500_000]) assert.equal((await read(nested(levels)))[0].text.length, 2 * levels);
    await assert.rejects(read(wrap(['['.repeat(500_000)])), { status: 200, message: /no JSON$/ });
});

test('an error does not show what is in a reply', async () => {
    await assert.rejects(read(wrap(['{"password":"secret"'])), ({ message, cause }) => !/secret/.test(message + cause.message));
});

test('replies after a large one, and after one that was cut, are their own', async () => {
    const bodies = [wrap([`["${'x'.repeat(6 << 20)}"]`]), '{"ok":true,"ts":9,"upda', wrap(['["y"]', '["z"]'])];
    const fetch = async (_, { signal }) => new Response(bodies.shift() ?? new ReadableStream({ start: (controller) => signal.addEventListener('abort', () => controller.error()) }));
    const channel = new Channel('http://test/x', { fetch, backoffMs: 1 });
    assert.deepEqual((await take(channel.updates({ onError() {} }), 2)).map(([text]) => text.length), [6 << 20, 1]);
});

test('text is UTF-8 whatever way it is cut, and nothing else', async () => {
    const text = '["я😀\u2028€"]';
    for (let chunk = 1; chunk < 6; chunk++) assert.equal((await read(wrap([text]), { chunk }))[0].text, text);
    await assert.rejects(read(Uint8Array.from([...new TextEncoder().encode('{"ok":true,"ts":1,"updates":[["'), 0xc3, 0x28, ...new TextEncoder().encode('"]]}')])), { status: 0 });
});

/** Large replies are read in another way: by their brackets and quotes. */
const PAD = `["${'x'.repeat(2 << 20)}"]`;

test('a large reply: each text and each value comes out as it was', async () => {
    const pick = random(3);
    for (let round = 0; round < 20; round++) {
        const texts = [PAD, ...Array.from({ length: 1 + pick(8) }, () => `[${anyText(pick)}]`)];
        const entries = await read(wrap(texts.map((text) => ` ${text}\t`)));
        assert.deepEqual(entries.map(({ text }) => text), texts);
        assert.deepEqual(entries.map(({ ts }) => ts), texts.map((_, i) => i + 1));
        assert.deepEqual(entries.map(({ update }) => update), texts.map((text) => JSON.parse(text)));
    }
});

test('a large reply of view=full: each member is what it is in a small one', async () => {
    const item = (body, raw) => `{"ts":1,"at":5,"method":"POST","query":"a=1","headers":{"x":"y"},"path":"/p","body":${body},${raw}}`;
    const of = async (item) => (await read(`{"ok":true,"epoch":"e","ts":1,"updates":[${item}]}`, { full: true }))[0];
    for (const raw of ['"raw":"{}"', '"raw_base64":"AAE=","coded_base64":"Ag=="']) {
        const [small, large] = [await of(item('[1]', raw)), await of(item(PAD, raw))];
        for (const name of ['ts', 'at', 'method', 'query', 'headers', 'path', 'from', 'same_as', 'raw', 'coded']) assert.deepEqual(large[name], small[name], name);
        assert.deepEqual([large.text, large.update], [PAD, JSON.parse(PAD)]);
        assert.deepEqual(Object.keys(large), Object.keys(small));
    }
});

test('a large reply that is none of longline is an error that shows nothing of it', async () => {
    const whole = wrap([PAD]);
    const others = [whole.slice(0, -2), whole.slice(0, -3), whole.slice(0, 100) + PAD, `<html>${PAD}`, `{"ts":1,"updates":[${PAD}\u00a0]}`, `{"ts":secret,"updates":[${PAD}]}`, `{secret"ts":1,"updates":[${PAD}]}`, `{"ts":1}${' '.repeat(3 << 20)}`, `[${PAD}]`, PAD];
    for (const text of others) {
        await assert.rejects(read(text), (error) => /The reply is not longline's: no/.test(error.message) && !/secret|xx/.test(error.message), text.slice(0, 40));
    }
});
