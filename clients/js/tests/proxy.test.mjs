// Through proxies, as Node's client takes them from the environment.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import http from 'node:http';
import https from 'node:https';
import { connect, Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { Channel, Channels, LonglineError } from '../node.js';
import { reply, startScript, take, test, timedTest } from './helpers.mjs';

const NAMES = ['HTTP_PROXY', 'HTTPS_PROXY', 'ALL_PROXY', 'NO_PROXY', 'REQUEST_METHOD'].flatMap((name) => [name, name.toLowerCase()]);

/** The test's environment has these and no other variables of proxies. */
function setEnvironment(t, variables) {
    for (const name of NAMES) {
        const old = process.env[name];
        delete process.env[name];
        t.after(() => {
            if (old === undefined) delete process.env[name];
            else process.env[name] = old;
        });
    }
    Object.assign(process.env, variables);
}

async function listen(t, server) {
    const sockets = new Set();
    server.on('connection', (socket) => sockets.add(socket)).listen(0, '127.0.0.1');
    await once(server, 'listening');
    t.after(() => {
        server.close();
        for (const socket of sockets) socket.destroy();
    });
    return server.address().port;
}

/** A proxy that goes to `port` whatever the name. `seen`: [method, target, authorization] of what it was asked. */
async function startProxy(t, port, { status } = {}) {
    const seen = [];
    const note = ({ method, url, headers }) => seen.push([method, url, headers['proxy-authorization']]);
    const proxy = http.createServer((request, response) => {
        note(request);
        assert.equal(request.headers.host, new URL(request.url).host);
        if (status) return response.writeHead(status).end('<html>');
        const { pathname, search } = new URL(request.url);
        const onward = http.request({ port, host: '127.0.0.1', method: request.method, path: pathname + search, headers: request.headers });
        onward.on('response', (answer) => answer.pipe(response.writeHead(answer.statusCode, answer.headers))).on('error', () => response.destroy());
        request.pipe(onward);
        response.on('close', () => onward.destroy());
    });
    proxy.on('connect', (request, socket) => {
        note(request);
        socket.on('error', () => {});
        if (status) return socket.end(`HTTP/1.1 ${status} No\r\n\r\n`);
        const onward = connect(port, '127.0.0.1', () => socket.write('HTTP/1.1 200 Yes\r\n\r\n'));
        onward.on('error', () => {}).pipe(socket).pipe(onward);
    });
    return { port: await listen(t, proxy), seen };
}

/** The channel http://longline.test/channel, which only a proxy finds. */
async function startBehind(t, steps, options) {
    const server = await startScript(t, steps);
    return { ...server, proxy: await startProxy(t, new URL(server.url).port, options) };
}

const receipt = { headers: { 'X-Total-Updates': '7' }, body: 'OK' };
const ADDRESS = 'http://longline.test/channel';

test('http: polls and pushes, with the password of the proxy', async (t) => {
    const { proxy, requests } = await startBehind(t, [reply(1, [{ n: 'é' }]), receipt, { status: 404, body: { ok: false, error_code: 404, error_description: 'No' } }]);
    setEnvironment(t, { http_proxy: `http://us%20er:p%40ss@127.0.0.1:${proxy.port}`, HTTP_PROXY: 'http://127.0.0.1:1' });
    const channel = new Channel(ADDRESS, { headers: { 'X-Mine': 'yes' } });
    assert.deepEqual(await take(channel.updates(), 1), [{ n: 'é' }]);
    assert.deepEqual(await channel.push({ n: 'é' }), { ts: 7 });
    await assert.rejects(take(channel.updates(), 1), (error) => error instanceof LonglineError && error.status === 404);
    assert.deepEqual(proxy.seen.map(([method]) => method), ['GET', 'POST', 'GET']);
    assert.equal(proxy.seen[1][1], ADDRESS);
    assert.equal(Buffer.from(proxy.seen[0][2].split(' ')[1], 'base64').toString(), 'us er:p@ss');
    assert.deepEqual([requests[1].body, requests[1].headers['x-mine']], ['{"n":"é"}', 'yes']);
});

test('a poll that waits ends at once', async (t) => {
    const { proxy, asked } = await startBehind(t, []);
    setEnvironment(t, { HTTP_PROXY: `127.0.0.1:${proxy.port}` });
    const channel = new Channel(ADDRESS);
    const ended = channel.updates().next();
    const request = await asked(1);
    channel.close();
    assert.equal((await ended).done, true);
    while (!request.closed) await new Promise(setImmediate);
});

test('redirects are followed as without a proxy', async (t) => {
    const to = (status, location) => ({ status, headers: { Location: location }, body: '' });
    const { proxy, requests } = await startBehind(t, [to(302, '/b'), to(307, 'http://other.test/c'), reply(1, [{}]), to(308, '/d'), receipt, to(302, '/e'), reply(1, [])]);
    setEnvironment(t, { HTTP_PROXY: `127.0.0.1:${proxy.port}` });
    const channel = new Channel(ADDRESS, { headers: { Authorization: 'Basic eDp5' } });
    await take(channel.updates(), 1);
    assert.deepEqual(await channel.push({}), { ts: 7 });
    await assert.rejects(channel.push({}), { status: 200 }, 'a redirect made a GET of it');
    assert.deepEqual(requests.map(({ method, url }) => `${method} ${url.split('?')[0]}`), ['GET /channel', 'GET /b', 'GET /c', 'POST /channel', 'POST /d', 'POST /channel', 'GET /e']);
    assert.deepEqual(requests.map(({ headers }) => Boolean(headers.authorization)), [true, true, false, true, true, true, true]);
});

timedTest('https: a tunnel, kept open; the certificate counts', async (t) => {
    delete process.env.NODE_TLS_REJECT_UNAUTHORIZED; // of a try before
    const directory = await mkdtemp(join(tmpdir(), 'longline-js-'));
    t.after(() => rm(directory, { recursive: true }));
    const [key, cert] = ['key', 'cert'].map((name) => join(directory, name));
    await promisify(execFile)('openssl', ['req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-keyout', key, '-out', cert, '-days', '1', '-subj', '/CN=longline.test', '-addext', 'subjectAltName=DNS:longline.test']);
    let count = 0;
    const server = https.createServer({ key: await readFile(key), cert: await readFile(cert) }, (request, response) => response.end(JSON.stringify(reply(++count, [{ count }]).body)));
    const proxy = await startProxy(t, await listen(t, server));
    setEnvironment(t, { HTTPS_PROXY: `http://u:p@127.0.0.1:${proxy.port}` });
    const channel = new Channel('https://longline.test/channel', { backoffMs: 5 });
    const errors = [];
    const updates = channel.updates({
        onError(error) {
            errors.push(error.message);
            process.env.NODE_TLS_REJECT_UNAUTHORIZED = '0';
        },
    });
    t.after(() => delete process.env.NODE_TLS_REJECT_UNAUTHORIZED);
    assert.deepEqual(await take(updates, 3), [{ count: 1 }, { count: 2 }, { count: 3 }]);
    assert.equal(errors.length, 1);
    assert.match(errors[0], /self-signed|self signed/);
    assert.deepEqual(proxy.seen, Array(2).fill(['CONNECT', 'longline.test:443', `Basic ${btoa('u:p')}`]));
});

test('a proxy that refuses passes: http and https', async (t) => {
    const { proxy } = await startBehind(t, [], { status: 407 });
    setEnvironment(t, { HTTP_PROXY: `127.0.0.1:${proxy.port}`, HTTPS_PROXY: `127.0.0.1:${proxy.port}` });
    for (const [address, status, message] of [[ADDRESS, 407, /407/], ['https://longline.test/channel', 0, /the proxy answered 407/]]) {
        const channel = new Channel(address, { backoffMs: 1 });
        const errors = [];
        const ended = channel.updates({ onError: (error) => errors.push(error) === 2 && channel.close() }).next();
        await ended;
        assert.ok(errors.length === 2 && errors.every((error) => error.status === status && message.test(error.message)), errors[0].message);
    }
});

test('which requests go through which proxy', async (t) => {
    const went = [];
    const real = globalThis.fetch;
    t.after(() => (globalThis.fetch = real));
    globalThis.fetch = async () => {
        went.push('direct');
        throw new Error('no');
    };
    const proxy = await startProxy(t, 1, { status: 502 });
    const ours = `127.0.0.1:${proxy.port}`;
    const cases = [
        [{}, 'http://a.test', false],
        [{ http_proxy: ours }, 'http://a.test', true],
        [{ http_proxy: ours }, 'https://a.test', false],
        [{ https_proxy: ours }, 'https://a.test', true],
        [{ HTTPS_PROXY: ours }, 'https://a.test', true],
        [{ HTTP_PROXY: ours }, 'http://a.test', true],
        [{ HTTP_PROXY: ours, REQUEST_METHOD: 'GET' }, 'http://a.test', false],
        [{ http_proxy: ours, REQUEST_METHOD: 'GET' }, 'http://a.test', true],
        [{ ALL_PROXY: ours, all_proxy: ours }, 'http://a.test', false], // curl's, for any protocol: often not of an HTTP proxy
        [{ http_proxy: ours, NO_PROXY: '*' }, 'http://a.test', false],
        [{ http_proxy: ours, no_proxy: 'b.test, A.test' }, 'http://a.test', false],
        [{ http_proxy: ours, no_proxy: 'a.test' }, 'http://x.a.test', false],
        [{ http_proxy: ours, no_proxy: '.a.test' }, 'http://x.a.test', false],
        [{ http_proxy: ours, no_proxy: 'a.test' }, 'http://xa.test', true],
        [{ http_proxy: ours, no_proxy: ' , ,' }, 'http://a.test', true],
        [{ http_proxy: ours, no_proxy: '10.0.0.1' }, 'http://10.0.0.1', false],
        [{ http_proxy: ours, no_proxy: '10.0.0.0/8' }, 'http://10.9.9.9', false],
        [{ http_proxy: ours, no_proxy: '10.0.0.0/8' }, 'http://11.0.0.1', true],
        [{ http_proxy: ours, no_proxy: '10.0.0.0/99' }, 'http://10.0.0.1', true],
        [{ http_proxy: ours, no_proxy: '10.0.0.0/x' }, 'http://10.0.0.1', true],
        [{ http_proxy: ours, no_proxy: '::1' }, 'http://[::1]', false],
        [{ http_proxy: ours, no_proxy: '[::1]' }, 'http://[::1]', false],
        [{ http_proxy: ours, no_proxy: 'fd00::/8' }, 'http://[fd12::1]', false],
    ];
    for (const [variables, origin, isProxied] of cases) {
        setEnvironment(t, variables);
        went.length = proxy.seen.length = 0;
        await assert.rejects(new Channel(`${origin}/x`).push({}));
        assert.deepEqual([proxy.seen.length > 0, went.length > 0], [isProxied, !isProxied], JSON.stringify([variables, origin]));
    }
});

test('the port of a proxy: 1080 if it has none, and 443 with https, as curl has it', async (t) => {
    const ports = [];
    const connect = Socket.prototype.connect;
    t.after(() => (Socket.prototype.connect = connect));
    Socket.prototype.connect = function (args) {
        ports.push((args[0] ?? args).port);
        throw new Error('no');
    };
    const cases = [['a', 1080], ['http://u:p@a/', 1080], ['a:80', 80], ['HTTP://a:80/', 80], ['http://[::1]:443', 443], ['[::1]', 1080], ['a:3128', 3128], ['https://a', 443], ['https://a:80', 80]];
    for (const [proxy, port] of cases) {
        for (const address of [ADDRESS, 'https://longline.test/channel']) {
            ports.length = 0;
            await assert.rejects(new Channel(address, { proxy }).push({}));
            assert.deepEqual(ports.map(Number), [port], proxy);
        }
    }
});

test('a wrong proxy in the environment is refused at once, where it would count', (t) => {
    setEnvironment(t, { http_proxy: 'socks5://SECRET@localhost:1080', NO_PROXY: 'not.test' });
    for (const open of [() => new Channel(ADDRESS), () => new Channels('http://longline.test')]) {
        assert.throws(open, (error) => error instanceof TypeError && /proxy/i.test(error.message) && !error.stack.includes('SECRET@'));
    }
    new Channel('https://longline.test/channel');
    new Channel('http://not.test/channel');
    new Channel(ADDRESS, { proxy: false });
    new Channel(ADDRESS, { fetch: () => {} });
    assert.throws(() => new Channel('ftp://longline.test'), /A channel is/);
});

test('the option `proxy` wins, also with false; of many channels too', async (t) => {
    const many = { body: { ok: true, channels: { a: { ts: 1, updates: [{}] } } } };
    const { proxy, url, requests } = await startBehind(t, [receipt, receipt, many]);
    setEnvironment(t, { http_proxy: '127.0.0.1:1' });
    await new Channel(ADDRESS, { proxy: `127.0.0.1:${proxy.port}` }).push({});
    await new Channel(url, { proxy: false }).push({});
    const channels = new Channels('http://longline.test', { proxy: `http://127.0.0.1:${proxy.port}` });
    t.after(() => channels.close());
    assert.deepEqual(await take(channels.updates({ a: 0 }), 1), [['a', {}]]);
    assert.deepEqual([proxy.seen.length, requests.length], [2, 3]);
    for (const bad of ['socks5://SECRET@localhost', 'http://SECRET@:x']) {
        assert.throws(() => new Channel(ADDRESS, { proxy: bad }), (error) => error instanceof TypeError && !error.stack.includes('SECRET@'));
    }
});
