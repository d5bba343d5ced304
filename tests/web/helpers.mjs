// A Chromium and a longline for each test file; a test's pages, each in a browser context of its own, that may complain of
// nothing: an error on the console, an exception or a violation of the page's policy fails the test.

import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { startLongline } from '../../clients/js/tests/helpers.mjs';
import { launchChromium } from './chromium.mjs';

const PATIENCE_MS = 50_000; // how long a condition may take, on a busy machine, before the test says that it never came

/** What a browser itself says of a request that failed; the page cannot keep it from doing so. */
export const FAILED_REQUEST = /^Failed to load resource/;

/** Servers of a file or a test: start(args, port) → {origin, port, stop}. Each has a data path of its own. */
export class Servers {
    #ends = [];

    async start(args = ['--data-provider', 'memory'], port = 0) {
        const server = await startLongline({ after: (end) => this.#ends.push(end) }, { args, port });
        return { ...server, origin: `http://127.0.0.1:${server.port}` };
    }

    /** Arguments for the sqlite provider, in a folder that goes with the servers. */
    async sqlite() {
        const folder = await mkdtemp(join(tmpdir(), 'longline-web-'));
        this.#ends.unshift(() => rm(folder, { recursive: true }));
        return ['--data-provider', 'sqlite', '--data-path', join(folder, 'longline.db')];
    }

    async end() {
        for (const end of this.#ends.reverse()) await end();
    }
}

let browser;
const shared = new Servers();

/** The file's server: in memory, default settings. Use a channel of your own on it. */
export let origin;

before(async () => {
    [browser, { origin }] = await Promise.all([launchChromium(), shared.start()]);
});
after(async () => {
    await browser?.close();
    await shared.end();
});

/**
 * A test of pages: run({open, servers}). open(url, {expected, …}) resolves with a page in a context of its own, whose
 * options are the others; messages that match `expected` are no complaint. What is opened or started ends with the test.
 */
export function pageTest(name, run) {
    test(name, { timeout: 6 * PATIENCE_MS }, async () => {
        const complaints = [];
        const contexts = [];
        const servers = new Servers();
        const open = async (url, { expected, context, ...options } = {}) => {
            if (!context) contexts.push((context = await browser.newContext({ viewport: { width: 1200, height: 800 }, ...options })));
            const page = await context.newPage();
            page.setDefaultTimeout(PATIENCE_MS);
            const complain = (text) => expected?.test(text) || complaints.push(text);
            page.on('console', (message) => message.type() === 'error' && complain(message.text()));
            page.on('pageerror', (error) => complain(error.stack));
            await page.addInitScript(() => {
                const { setTimeout } = window; // "Copied" is not gone before a busy machine looks
                window.setTimeout = (task, ms, ...more) => setTimeout(task, ms === 1500 ? 15_000 : ms, ...more);
                document.addEventListener('securitypolicyviolation', (event) => console.error(`violates ${event.violatedDirective}: ${event.blockedURI} ${event.sample}`));
            });
            if (url) await page.goto(url);
            return page;
        };
        try {
            await run({ open, servers });
            assert.deepEqual(complaints, []);
        } finally {
            await Promise.all(contexts.map((context) => context.close()));
            await servers.end();
        }
    });
}

/** A name that no other test has. */
export function freshName() {
    return randomBytes(16).toString('base64url');
}

/** The key that an r_ or v_ key becomes when it gives up a right, made another way than the page makes it. */
function nextKey(key) {
    const bits = [...createHash('sha256').update(`longline:${key}`).digest()].map((byte) => byte.toString(2).padStart(8, '0')).join('');
    const letters = bits.match(/.{5}/g).slice(0, 26).map((five) => 'abcdefghijklmnopqrstuvwxyz234567'[parseInt(five, 2)]);
    return { r: 'v_', v: 'w_' }[key[0]] + letters.join('');
}

/** {all, read, send}: an r_ key and what is derived of it; a new one where none is given. */
export function keysOf(all = `r_${[...randomBytes(26)].map((byte) => 'abcdefghijklmnopqrstuvwxyz234567'[byte % 32]).join('')}`) {
    const read = nextKey(all);
    return { all, read, send: nextKey(read) };
}

/** Pushes, and resolves with the update's id. */
export async function push(url, body, { type = 'application/json', headers } = {}) {
    const payload = typeof body === 'string' || body instanceof Uint8Array ? body : JSON.stringify(body);
    const response = await fetch(url, { method: 'POST', headers: { 'Content-Type': type, ...headers }, body: payload });
    assert.equal(await response.text(), 'OK');
    return Number(response.headers.get('X-Total-Updates'));
}

/** Pushes many, pipelined on one connection, which is the fastest way. */
export async function pushMany(url, count, make) {
    const { hostname, port, pathname } = new URL(url);
    const socket = connect(Number(port), hostname);
    for (let n = 0; n < count; n++) {
        const body = make(n);
        socket.write(`POST ${pathname} HTTP/1.1\r\nHost: ${hostname}\r\nContent-Length: ${Buffer.byteLength(body)}\r\n\r\n${body}`);
    }
    let replies = '';
    for await (const chunk of socket.setEncoding('latin1')) {
        replies += chunk;
        if (replies.endsWith('OK') && replies.split('HTTP/1.1 200').length === count + 1) break; // which closes the socket
    }
    assert.equal(replies.split('HTTP/1.1 200').length, count + 1);
}

/** Everything that a channel keeps, with the requests. */
export async function readAll(url) {
    return (await (await fetch(`${url}?view=full`)).json()).updates;
}

/** Waits until the page says that it is live. */
export async function untilLive(page) {
    await page.locator('#state[data-state=live]').waitFor();
}

/** The rows in the document, in no order. */
export const rows = (page) => page.locator('#list [role=option]');

/** Waits until these are the updates in the list, newest first: '#3', '#2', … */
export async function untilIds(page, ids) {
    const shown = (wanted) => {
        const rows = [...document.querySelectorAll('.row')].sort((a, b) => a.ariaPosInSet - b.ariaPosInSet);
        const ids = rows.map((row) => row.querySelector('.id').textContent).join();
        return wanted === undefined ? ids : ids === wanted;
    };
    await page.waitForFunction(shown, ids.join(), { polling: 20 }).catch(async (error) => {
        throw new Error(`${ids} did not come; there are ${await page.evaluate(shown)}`, { cause: error });
    });
}

/** The text of the first such element that is to be seen, once it holds that; what it says a moment later is not looked at. */
export async function untilText(page, selector, text) {
    const look = ([selector, source, flags]) => {
        const isMeant = (text) => (flags === undefined ? text.toLowerCase().includes(source.toLowerCase()) : new RegExp(source, flags).test(text));
        const found = [...document.querySelectorAll(selector)].find((each) => each.checkVisibility() && isMeant(each.textContent.replace(/\s+/g, ' ').trim()));
        return found && { text: found.innerText };
    };
    const found = await page.waitForFunction(look, [selector, text.source ?? text, text.flags], { polling: 20 });
    return (await found.jsonValue()).text;
}

/** What the page's address says behind the #, with it, by now: page.url() is told later. */
export const hashOf = (page) => page.evaluate(() => location.hash);

const mainThreads = new WeakMap();

/** From now on: the CPU time of the page's main thread. Read it with workOf. */
export async function watchWork(page) {
    const session = await page.context().newCDPSession(page);
    await session.send('Performance.enable');
    const used = async () => (await session.send('Performance.getMetrics')).metrics.find(({ name }) => name === 'ThreadTime').value * 1000;
    const before = await used();
    mainThreads.set(page, async () => (await used()) - before);
}

/** In ms. The page has not failed to answer for longer than this, but for other work on the machine. */
export const workOf = (page) => mainThreads.get(page)();
