// The pictures of docs/screenshots, made in real Chromium from real payloads: screenshots.mjs FOLDER

import { mkdir } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { launchChromium } from './chromium.mjs';
import { startLongline } from '../../clients/js/tests/helpers.mjs';

const folder = process.argv[2];
const NAME = 'r_mwjx3q7fzk2n5hd4ytc6vpsabe'; // a key, from which the console derives the address that it shows

const examples = createRequire(import.meta.url)('@octokit/webhooks-examples');
const github = (event, index) => examples.find(({ name }) => name === event).examples[index];

const ends = [];
const { port } = await startLongline({ after: (end) => ends.push(end) });
const origin = `http://127.0.0.1:${port}`;
const url = `${origin}/${NAME}`;
const browser = await launchChromium();

async function push(address, body, { type = 'application/json', headers } = {}) {
    const response = await fetch(address, { method: 'POST', headers: { 'Content-Type': type, ...headers }, body: typeof body === 'string' ? body : JSON.stringify(body) });
    if (!response.ok) throw new Error(await response.text());
}

/** Opens a page of a fresh context, does with it what `act` does, and keeps the picture. */
async function picture(file, path, { viewport = { width: 1200, height: 780 }, colorScheme = 'light', ...options }, act = async () => {}) {
    const context = await browser.newContext({ viewport, colorScheme, timezoneId: 'UTC', locale: 'en-GB', ...options });
    const page = await context.newPage();
    await page.goto(`${origin}${path}#${NAME}`);
    await page.locator('#state[data-state=live]').waitFor();
    await act(page);
    await page.screenshot({ path: join(folder, file), animations: 'disabled' });
    await context.close();
}

try {
    await mkdir(folder, { recursive: true });
    await picture('first-visit.png', '/', {});

    await push(`${url}?appname=healthcheck`, { server: 'eu-3', alive: true, players: 41 }, { headers: { 'User-Agent': 'longline-lua/0.1.0' } });
    await push(`${url}?appname=mybot`, '{"update_id":871263548,"message":{"message_id":42,"from":{"id":5123456789,"is_bot":false,"first_name":"Ann"},"chat":{"id":5123456789,"type":"private"},"date":1795533237,"text":"/players"}}');
    await push(url, 'payment=order-1001&steamid=STEAM_0:1:12345&amount=500', { type: 'application/x-www-form-urlencoded' });
    for (const [event, index] of [['push', 0], ['issues', 0], ['pull_request', 0]]) {
        await push(url, github(event, index), { headers: { 'X-GitHub-Event': event, 'User-Agent': 'GitHub-Hookshot/044aadd', 'X-Hub-Signature-256': 'sha256=6f2a1c09' } });
    }
    await push(url, '{"id":"evt_1P","object":"event","type":"payment_intent.succeeded","amount":12345678901234567890,"livemode":false}', { headers: { 'Stripe-Signature': 't=1795533237,v1=5257a869' } });

    const open = (index) => async (page) => {
        await page.locator('.row', { hasText: `#${index}` }).click();
        await page.locator('#detail').waitFor();
    };
    await picture('console-light.png', '/', {}, open(6));
    await picture('console-dark.png', '/', { colorScheme: 'dark' }, open(2));
    const phone = { viewport: { width: 390, height: 780 }, isMobile: true, hasTouch: true };
    await picture('phone.png', '/', phone, (page) => page.locator('.row').first().waitFor());

    for (const message of [
        { name: 'Ann', text: 'The new server is up. Who tries it?' },
        { name: 'Bob', text: 'On it.' },
        { name: 'Bob', text: 'Works from my phone, too: old messages came at once.' },
        { name: 'shell', text: 'chat.sh is here as well' },
        { name: 'Cleo', text: 'gg', room: 'games' },
    ]) {
        await push(url, message);
    }
    await picture('chat.png', '/-/chat', { viewport: { width: 1000, height: 600 } }, async (page) => {
        await page.locator('#name').fill('Ann');
        await page.locator('#text').fill('Then let us go on with it');
        await page.locator('#text').press('Enter');
        await page.locator('.message.mine').waitFor();
    });
} finally {
    await browser.close();
    for (const end of ends) await end();
}
