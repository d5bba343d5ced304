// What the conformance tests run: node driver.mjs URL TS SLEEP [OPTIONS]. It reads the channel and writes one JSON object a
// line; when its standard input is closed it stops. Exit codes: 0 stopped, 3 given up.

import { Channel } from '../node.js';

const [url, ts, sleep, more = '{}'] = process.argv.slice(2);
// To a pipe and to a file this writes at once.
const print = (event) => process.stdout.write(JSON.stringify(event) + '\n');

const channel = new Channel(url, { backoffMs: Number(process.env.BACKOFF_MS || 500) });
const entries = channel.entries({
    ts: ts === '-' ? undefined : ts === 'now' ? ts : Number(ts),
    sleep: sleep === '-' ? undefined : Number(sleep),
    ...JSON.parse(more),
    onMissed: (missed) => print({ missed }),
    onReset: (reset) => print({ reset }),
    onError: (error, waitMs) => console.error(`${error.message}; again in ${Math.round(waitMs)} ms`),
});

function handle({ ts, update, text }) {
    print({ update, text, ts });
    if (update.throw === true) throw new Error('the handler was told to throw');
}

process.stdin.resume().on('close', () => channel.close());

try {
    for await (const entry of entries) {
        try {
            handle(entry);
        } catch (error) {
            console.error(error.message);
        }
    }
    print({ stopped: true, ts: entries.ts });
} catch (error) {
    print({ error: error.message, status: error.status });
    process.exitCode = 3;
}
process.stdin.destroy();
