// Many updates: the page stays smooth, and what it holds is bounded.

import assert from 'node:assert/strict';
import { freshName, origin, pageTest, push, pushMany, rows, untilLive, untilText, watchWork, workOf } from './helpers.mjs';

pageTest('1,000 updates in ten seconds stay smooth', async ({ open }) => {
    const name = freshName();
    const url = `${origin}/${name}`;
    const page = await open(`${origin}/#${name}`);
    await untilLive(page);
    await push(url, { n: 0 });
    await rows(page).first().waitFor();
    await watchWork(page);
    await page.evaluate(() => {
        window.frames = [];
        let last;
        const frame = (now) => {
            if (last) window.frames.push(now - last);
            last = now;
            requestAnimationFrame(frame);
        };
        requestAnimationFrame(frame);
        window.tasks = [];
        new PerformanceObserver((list) => window.tasks.push(...list.getEntries().map(({ duration }) => duration))).observe({ type: 'longtask' });
    });
    const start = performance.now();
    const pushes = [];
    for (let n = 1; n <= 1000; n++) {
        const early = start + n * 10 - performance.now();
        if (early > 0) await new Promise((resolve) => setTimeout(resolve, early));
        pushes.push(push(url, { n, event: 'paid', text: 'x'.repeat(500) }));
    }
    await Promise.all(pushes);
    await untilText(page, '#kept', '1,001 updates so far');
    const { frames, tasks } = await page.evaluate(() => ({ frames: window.frames, tasks: window.tasks }));
    const sorted = frames.sort((a, b) => a - b);
    const at = (part) => Math.round(sorted[Math.floor((sorted.length - 1) * part)]);
    const report = `${sorted.length} frames, ms: median ${at(0.5)}, 95 % ${at(0.95)}, 99 % ${at(0.99)}, longest ${at(1)}; long tasks: ${tasks.map(Math.round)}`;
    const work = await workOf(page);
    console.log(`# ${report}; its main thread was busy for ${Math.round(work)} ms`);
    // Other work on the machine delays any frame; a page that is too slow is busy for most of the time.
    assert.ok(work < 6000, report);
    assert.ok((await page.locator('.row').count()) < 60);
    assert.match(await rows(page).filter({ hasText: '#1001' }).innerText(), /"n":/);
});

pageTest('10,000 updates and more stay bounded in the document, and are all there to be read', async ({ open, servers }) => {
    const server = await servers.start(['--data-provider', 'memory', '--channel-storage-maxsize', '20000']);
    const name = freshName();
    const url = `${server.origin}/${name}`;
    const page = await open(`${server.origin}/#${name}`);
    await untilLive(page);
    await watchWork(page);
    await pushMany(url, 10_500, (n) => `{"n":${n}}`);
    await untilText(page, '#kept', '10,500 updates so far; the newest 10,000 are here');
    assert.ok((await page.locator('*').count()) < 1000);
    await page.focus('#list');
    await page.keyboard.press('End');
    await rows(page).filter({ hasText: '#501' }).waitFor();
    await page.keyboard.press('Home');
    await rows(page).filter({ hasText: '#10500' }).waitFor();
    await page.fill('#filter', '"n":77');
    await untilText(page, '#kept', '; 111 shown'); // 77, which the page no longer holds, 770 to 779, 7700 to 7799
    assert.ok((await page.locator('*').count()) < 1000);
    const work = await workOf(page);
    assert.ok(work < 4000, `its main thread was busy for ${Math.round(work)} ms`);

    const chat = await open(`${server.origin}/-/chat#${name}`);
    await untilLive(chat);
    await pushMany(url, 1500, (n) => `{"name":"Ann","text":"message ${n}"}`);
    await chat.locator('.message', { hasText: 'message 1499' }).waitFor();
    assert.ok((await chat.locator('.message').count()) <= 500);
});
