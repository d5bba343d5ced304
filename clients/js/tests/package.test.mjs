// What is published, and that a strict browser can run it.

import assert from 'node:assert/strict';
import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { reply, startScript, test } from './helpers.mjs';

const directory = fileURLToPath(new URL('..', import.meta.url));

test('npm pack takes exactly these files', async () => {
    const { stdout } = await promisify(execFile)('npm', ['pack', '--dry-run', '--json', '--offline'], { cwd: directory });
    const packed = JSON.parse(stdout);
    const [{ name, version, files }] = Array.isArray(packed) ? packed : Object.values(packed);
    assert.deepEqual([name, version], ['longline', '0.1.0']);
    assert.deepEqual(files.map(({ path }) => path).sort(), ['LICENSE', 'README.md', 'index.d.cts', 'index.d.ts', 'index.js', 'node.js', 'package.json']);
});

test('the package is imported by its name, and exports what its types say', async () => {
    const module = await import('longline');
    assert.deepEqual(Object.keys(module).sort(), ['Channel', 'Channels', 'LonglineError', 'newKeys']);
    const types = await readFile(`${directory}/index.d.ts`, 'utf8');
    assert.deepEqual([...types.matchAll(/^export (?:class|function) (\w+)/gm)].map(([, name]) => name).sort(), ['Channel', 'Channels', 'LonglineError', 'newKeys']);
});

test('require() finds the package, its types and its package.json', async () => {
    const require = createRequire(import.meta.url);
    const { exports, version } = require('longline/package.json');
    assert.equal(version, '0.1.0');
    assert.equal(require.resolve('longline'), `${directory}node.js`);
    // TypeScript takes a .d.ts of this package for one of an ES module, which require() did not always load.
    assert.equal(await readFile(`${directory}/${exports['.'].require.types}`, 'utf8'), await readFile(`${directory}/index.d.ts`, 'utf8'));
    if (process.features.require_module) assert.equal(require('longline').Channel, (await import('longline')).Channel);
});

test('npm installs the folder into a project, and leaves nothing in the folder', async (t) => {
    const project = await mkdtemp(`${tmpdir()}/longline-`);
    t.after(() => rm(project, { recursive: true }));
    const before = (await readdir(directory)).sort();
    const run = (...command) => promisify(execFile)(command[0], command.slice(1), { cwd: project });
    await run('npm', 'install', '--offline', '--no-audit', '--no-fund', directory);
    const { stdout } = await run(process.execPath, '--input-type=module', '-e', 'console.log(typeof (await import("longline")).Channel)');
    assert.equal(stdout, 'function\n');
    assert.deepEqual((await readdir(directory)).sort(), before);
});

test('nothing that only Node has, and nothing that a strict CSP forbids', async () => {
    const source = await readFile(`${directory}/index.js`, 'utf8');
    for (const word of [/\bimport\b/, /\brequire\b/, /\beval\b/, /\bFunction\b/, /\bprocess\b/, /\bBuffer\b/, /innerHTML/, /setTimeout\(\s*['"`]/]) {
        assert.doesNotMatch(source, word);
    }
});

/** Runs the driver; resolves with {lines, code} once it has ended. `onLine` sees every line as it comes. */
async function drive(args, onLine) {
    const child = spawn(process.execPath, [`${directory}/tests/driver.mjs`, ...args], { stdio: ['pipe', 'pipe', 'ignore'], env: { ...process.env, BACKOFF_MS: '5' } });
    const exited = once(child, 'exit');
    const lines = [];
    let rest = '';
    for await (const chunk of child.stdout.setEncoding('utf8')) {
        const complete = (rest + chunk).split('\n');
        rest = complete.pop();
        for (const line of complete) {
            lines.push(JSON.parse(line));
            onLine?.(child, lines.at(-1));
        }
    }
    const [code] = await exited;
    return { lines, code };
}

test('the driver: events, a handler that throws, stop', async (t) => {
    const server = await startScript(t, [
        reply(5, [{ n: 4 }, { throw: true }], { missed: 3 }),
        { status: 500, body: '' },
        reply(1, [], { reset: true }),
        { body: '{"ok":true,"ts":2,"updates":[{"id":12345678901234567890}]}' },
    ]);
    const { lines, code } = await drive([server.url, '-', '60'], async (child, { ts }) => {
        if (ts !== 2) return;
        await server.asked(5); // it waits for a minute
        child.stdin.end();
    });
    assert.deepEqual(lines, [
        { missed: 3 },
        { update: { n: 4 }, text: '{"n":4}', ts: 4 },
        { update: { throw: true }, text: '{"throw":true}', ts: 5 },
        { reset: 1 },
        { update: { id: 12345678901234567000 }, text: '{"id":12345678901234567890}', ts: 2 },
        { stopped: true, ts: 2 },
    ]);
    assert.equal(code, 0);
    assert.deepEqual(server.requests.map(({ query }) => query.ts), ['0', '5', '5', '1', '2']);
});

test('the driver: gives up', async (t) => {
    const server = await startScript(t, [{ status: 404, body: { ok: false, error_code: 404, error_description: 'No such path' } }]);
    const { lines, code } = await drive([server.url, '7', '1']);
    assert.deepEqual([lines, code], [[{ error: '404 No such path', status: 404 }], 3]);
    assert.equal(server.requests[0].query.ts, '7');
});
