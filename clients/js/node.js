// The client in Node: it honours HTTP_PROXY, HTTPS_PROXY and NO_PROXY as curl does, which Node's own fetch does not do
// by default in any version.

import { webcrypto } from 'node:crypto';
import http from 'node:http';
import https from 'node:https';
import { BlockList, isIP } from 'node:net';
import tls from 'node:tls';
import * as client from './index.js';

export { LonglineError } from './index.js';

/** Node 18 has no global `crypto`. */
export function newKeys(base) {
    return client.newKeys(base, webcrypto);
}

export class Channel extends client.Channel {
    constructor(url, options) {
        super(url, withProxy(options));
        checkProxy(this.url, options);
    }
}

export class Channels extends client.Channels {
    constructor(url, options) {
        super(url, withProxy(options));
        checkProxy(this.url, options);
    }
}

const REDIRECTS_MAX = 20; // as fetch has it
const CONNECT_MS = 10_000;
const NO_BODY = [204, 205, 304];

/** Options with a fetch that goes through `proxy`: an address; false: none; undefined: what the environment says. */
function withProxy({ proxy, ...options } = {}) {
    const agents = new Map(); // of https through each proxy: its connections
    const fetch = (address, init) => {
        const url = new URL(address);
        const found = proxyOf(url, proxy);
        return found ? fetchThrough(found, agents, url, init) : globalThis.fetch(url, init);
    };
    return { fetch, ...options };
}

/** Throws for a wrong proxy: later it would be an error that a loop takes for one that passes. */
function checkProxy(address, { proxy, fetch } = {}) {
    if (!fetch) proxyOf(new URL(address), proxy);
}

function proxyOf(url, option) {
    const found = option ?? proxyFor(url, process.env);
    return found ? parseProxy(found) : undefined;
}

/** The proxy for a URL by the environment's variables; undefined: none. */
function proxyFor({ protocol, hostname }, env) {
    const named = (name) => env[name.toLowerCase()] || env[name];
    // A CGI's environment has the header Proxy as HTTP_PROXY, which anybody may send.
    const http = env.http_proxy || (env.REQUEST_METHOD === undefined ? env.HTTP_PROXY : undefined);
    const proxy = protocol === 'https:' ? named('HTTPS_PROXY') : http;
    return proxy && !isExcluded(hostname.replace(/^\[|\]$/g, ''), named('NO_PROXY') ?? '') ? proxy : undefined;
}

/** Whether a list has a host: a name stands for those below it too, and an address may be a network's. */
function isExcluded(host, list) {
    const family = isIP(host);
    return list.split(/[\s,]+/).some((item) => {
        if (item === '*') return true;
        const [name, bits] = item.toLowerCase().replace(/^\.|\.$/g, '').replace(/^\[|\]$/g, '').split('/');
        if (!family) return name !== '' && (host === name || host.endsWith(`.${name}`));
        if (isIP(name) !== family) return false;
        const size = family === 4 ? 32 : 128;
        const prefix = Number(bits ?? size);
        if (!(prefix <= size)) return false;
        const block = new BlockList();
        block.addSubnet(name, prefix, `ipv${family}`);
        return block.check(host, `ipv${family}`);
    });
}

function parseProxy(text) {
    try {
        const [, scheme = 'http', rest] = /^(?:([a-z][a-z\d+.-]*):\/\/)?(.*)$/i.exec(text);
        const { href, protocol, hostname, username, password, port } = new URL(`${scheme}://${rest}`);
        const isTls = protocol === 'https:';
        // A URL leaves its scheme's own port out, but that is not what a proxy has without one.
        const named = port || new URL(`${isTls ? 'http' : 'https'}://${rest}`).port;
        if (isTls || protocol === 'http:') return { href, protocol, hostname, username, password, port: named || (isTls ? 443 : 1080) };
    } catch {} // This error shows the password.
    throw new TypeError('The proxy is not an http or https URL');
}

function authorizationOf({ username, password }) {
    if (!username && !password) return {};
    const text = `${decodeURIComponent(username)}:${decodeURIComponent(password)}`;
    return { 'Proxy-Authorization': `Basic ${Buffer.from(text).toString('base64')}` };
}

/** What of fetch the client uses, through a proxy. */
async function fetchThrough(proxy, agents, url, init, redirects = 0) {
    const response = await send(proxy, agents, url, init);
    const { status, headers } = response;
    const location = headers.get('Location');
    if (![301, 302, 303, 307, 308].includes(status) || !location) return response;

    await response.body?.cancel();
    if (init.redirect === 'error') throw new Error('a redirect, which is not followed');
    if (redirects === REDIRECTS_MAX) throw new Error('too many redirects');
    const next = new URL(location, url);
    if (!/^https?:$/.test(next.protocol)) throw new Error('a redirect to what is not http');
    init = { ...init };
    if (next.origin !== url.origin) init.headers = without(init.headers, ['authorization', 'cookie', 'host']);
    if (status === 303 || (status < 303 && init.method === 'POST')) {
        init = { ...init, method: 'GET', body: undefined, headers: without(init.headers, ['content-type']) };
    }
    return fetchThrough(proxy, agents, next, init, redirects + 1);
}

function without(headers, names) {
    return Object.fromEntries(Object.entries(headers).filter(([name]) => !names.includes(name.toLowerCase())));
}

function send(proxy, agents, url, { method = 'GET', headers, body, signal }) {
    const length = body === undefined ? {} : { 'Content-Length': Buffer.byteLength(body) };
    const sent = { method, headers: { ...headers, ...length }, signal };
    return new Promise((resolve, reject) => {
        const request = url.protocol === 'https:' ? https.request(url, { ...sent, agent: tunnelThrough(proxy, agents) }) : plainRequest(proxy, url, sent);
        request.on('error', reject).on('response', (reply) => resolve(responseOf(reply))).end(body);
    });
}

/** To an http server the proxy itself makes the request. */
function plainRequest(proxy, url, sent) {
    const headers = { Host: url.host, ...sent.headers, ...authorizationOf(proxy) };
    return endpoint(proxy).request({ ...addressOf(proxy), ...sent, headers, path: url.origin + url.pathname + url.search });
}

/** To an https server it only makes the connection. */
function tunnelThrough(proxy, agents) {
    if (!agents.has(proxy.href)) agents.set(proxy.href, new Tunnels(proxy));
    return agents.get(proxy.href);
}

class Tunnels extends https.Agent {
    #proxy;

    constructor(proxy) {
        super({ keepAlive: true });
        this.#proxy = proxy;
    }

    createConnection(options, done) {
        const { host, port } = options;
        const path = `${isIP(host) === 6 ? `[${host}]` : host}:${port}`;
        const headers = { Host: path, ...authorizationOf(this.#proxy) };
        const request = endpoint(this.#proxy).request({ ...addressOf(this.#proxy), method: 'CONNECT', path, headers, agent: false, timeout: CONNECT_MS });
        request.on('timeout', () => request.destroy(new Error('the proxy does not answer')));
        request.on('error', done);
        request.on('connect', ({ statusCode }, socket) => {
            if (statusCode < 200 || statusCode > 299) {
                socket.destroy();
                done(new Error(`the proxy answered ${statusCode}`));
                return;
            }
            socket.setTimeout(0);
            done(null, tls.connect({ ...options, socket, servername: isIP(host) ? '' : host }));
        });
        request.end();
    }
}

function endpoint({ protocol }) {
    return protocol === 'https:' ? https : http;
}

function addressOf({ hostname, port }) {
    return { host: hostname.replace(/^\[|\]$/g, ''), port };
}

function responseOf(reply) {
    const { statusCode: status, statusMessage: statusText, headersDistinct } = reply;
    const headers = Object.entries(headersDistinct).flatMap(([name, values]) => values.map((value) => [name, value]));
    if (NO_BODY.includes(status)) reply.resume();
    const chunks = reply[Symbol.asyncIterator]();
    const body = new ReadableStream({
        async pull(controller) {
            const { done, value } = await chunks.next();
            if (done) controller.close();
            else controller.enqueue(new Uint8Array(value));
        },
        cancel: () => void reply.destroy(),
    }, { highWaterMark: 0 });
    return new Response(NO_BODY.includes(status) ? null : body, { status, statusText, headers });
}
