// The servers that the tests talk to: longline itself, and one that plays a script.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createServer } from 'node:http';
import { test as anyTest } from 'node:test';
import { fileURLToPath } from 'node:url';
import { Channel } from '../index.js';

const program = process.env.LONGLINE ?? fileURLToPath(new URL('../../../build/longline', import.meta.url));

/** A test that fails when it hangs. */
export function test(name, options, run) {
    if (!run) [run, options] = [options, {}];
    anyTest(name, { timeout: 120_000, ...options }, run);
}

/** A test of a bound in time, which is tried again, and says so: other work on the machine may delay anything. */
export function timedTest(name, run) {
    test(name, { timeout: 300_000 }, async (t) => {
        for (let left = 2; ; left--) {
            try {
                return await run(t);
            } catch (error) {
                if (!left) throw error;
                t.diagnostic(`tried again: ${error}`);
            }
        }
    });
}

/** Starts longline; the test ends it. Resolves with {port, url (of a channel), stop()}. */
export async function startLongline(t, { port = 0, args = ['--data-provider', 'memory'] } = {}) {
    const child = spawn(program, ['serve', '--listen', `127.0.0.1:${port}`, ...args], { stdio: ['ignore', 'ignore', 'pipe'] });
    const exited = once(child, 'exit');
    const stop = async () => {
        child.kill();
        await exited;
    };
    t.after(stop);
    let log = '';
    for await (const chunk of child.stderr.setEncoding('utf8').iterator({ destroyOnReturn: false })) {
        log += chunk;
        const found = /listening address=127\.0\.0\.1:(\d+)/.exec(log);
        if (!found) continue;
        child.stderr.resume();
        return { port: Number(found[1]), url: `http://127.0.0.1:${found[1]}/channel`, stop };
    }
    throw new Error(`longline did not start: ${log}`);
}

/**
 * Starts a server whose requests are answered by the steps, one each; what comes after them is held for ever.
 * A step is {status, headers, body (text, or what becomes JSON)}, or a function of the socket that is answered by hand.
 * Resolves with {url, requests: [{method, url, query, headers, body, at}], asked(n): when the nth request has come}.
 */
export async function startScript(t, steps) {
    const requests = [];
    const waiting = [];
    const server = createServer(async (request, response) => {
        const { method, url, headers } = request;
        const seen = { method, url, headers, query: Object.fromEntries(new URL(url, 'http://x').searchParams), at: performance.now(), body: '' };
        for await (const chunk of request.setEncoding('utf8')) seen.body += chunk;
        response.once('close', () => (seen.closed = performance.now()));
        const step = steps[requests.push(seen) - 1];
        for (const { n, resolve } of waiting) if (requests.length >= n) resolve(requests[n - 1]);
        if (typeof step === 'function') return step(request.socket);
        if (!step) return;
        const { status = 200, headers: more, body } = step;
        response.writeHead(status, more);
        response.end(typeof body === 'string' ? body : JSON.stringify(body));
    });
    server.listen(0, '127.0.0.1').unref(); // a test that timed out must not keep the process
    await once(server, 'listening');
    t.after(() => {
        server.closeAllConnections();
        server.close();
    });
    const asked = (n) => new Promise((resolve) => (requests.length >= n ? resolve(requests[n - 1]) : waiting.push({ n, resolve })));
    return { url: `http://127.0.0.1:${server.address().port}/channel`, requests, asked };
}

/** A channel that is closed with the test, so that a test that fails leaves no loop behind. */
export function openChannel(t, url, options) {
    const channel = new Channel(url, options);
    t.after(() => channel.close());
    return channel;
}

/** A step: the reply to a poll. */
export function reply(ts, updates, more = {}) {
    return { headers: { 'X-Total-Updates': String(ts) }, body: { ok: true, ts, ...more, updates } };
}

/** Takes so many items and leaves the loop. */
export async function take(iterator, count) {
    const items = [];
    for await (const item of iterator) {
        items.push(item);
        if (items.length === count) break;
    }
    return items;
}
