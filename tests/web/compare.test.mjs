// Two updates side by side: what was added, removed and changed.

import assert from 'node:assert/strict';
import { freshName, origin, pageTest, push, rows, untilText } from './helpers.mjs';

/** What the dialog shows: {Body: ['path − before + after', …], …}. */
const shown = (page) =>
    page.locator('#compare').evaluate((dialog) =>
        Object.fromEntries(
            [...dialog.querySelectorAll('.difference h3')].map((title) => {
                let list = title;
                while (list.tagName !== 'UL') list = list.nextElementSibling;
                const value = (item, tag, sign) => [...item.querySelectorAll(tag)].map((node) => ` ${sign} ${node.lastChild.textContent}`).join('');
                return [title.textContent, [...list.children].map((item) => item.firstChild.textContent + value(item, 'del', '−') + value(item, 'ins', '+'))];
            }),
        ),
    );

async function show(page, id) {
    await rows(page).filter({ hasText: `#${id}` }).click();
    await untilText(page, '#detail-title', `#${id}`);
}

pageTest('JSON is compared by path, with the update before; numbers keep their digits', async ({ open }) => {
    const name = freshName();
    await push(`${origin}/${name}?app=a&same=1`, '{"id":12345678901234567890,"same":[1,2],"items":[{"n":1},{"n":2},{"n":3}],"text":"a\\u0062","gone":null}', { headers: { 'X-Turn': 'one', 'X-Same': 's' } });
    await push(`${origin}/${name}/sub?same=1&app=b`, '{ "text": "ab", "same": [1, 2], "id":12345678901234567891,"items":[{"n":0},{"n":1},{"n":2.0},{"n":3}],"new":{"deep":[true]} }', { headers: { 'X-Turn': 'two', 'X-Same': 's', 'X-New': 'n' } });
    const page = await open(`${origin}/#${name}`);
    await show(page, 2);
    await page.getByRole('button', { name: 'Compare…' }).click();
    await untilText(page, '#compare', 'What #1 had (−), and #2 has (+)');
    const { Body, Query, Request, Headers } = await shown(page);
    assert.deepEqual(Body, ['body.id − 12345678901234567890 + 12345678901234567891', 'body.items[0] + {"n":0}', 'body.items[2].n − 2 + 2.0', 'body.app − "a" + "b"', 'body.gone − null', 'body.new + {"deep":[true]}'].sort((a, b) => Body.indexOf(a) - Body.indexOf(b)));
    assert.deepEqual(Query, ['app − a + b']);
    assert.deepEqual(Request, ['path + /sub']);
    assert.deepEqual(Headers.filter((line) => line.startsWith('x-')), ['x-turn − one + two', 'x-new + n']);
});

pageTest('one is marked and others are compared with it; any other can be typed', async ({ open }) => {
    const name = freshName();
    for (const n of [1, 2, 3, 1]) await push(`${origin}/${name}`, { n });
    const page = await open(`${origin}/#${name}`);
    const dialog = page.locator('#compare');
    await show(page, 1);
    await page.getByRole('button', { name: 'Compare…' }).click(); // there is none before: the next
    await untilText(page, '#compare', 'What #1 had (−), and #2 has (+)');
    await dialog.getByRole('button', { name: 'Compare others with #1' }).click();
    await dialog.getByRole('button', { name: 'Close' }).click();
    assert.equal(await page.evaluate(() => document.activeElement.textContent), 'Compare…');
    await show(page, 3);
    await dialog.waitFor({ state: 'hidden' });
    await page.getByRole('button', { name: 'Compare with #1…' }).click();
    await untilText(page, '#compare', 'What #1 had (−), and #3 has (+)');
    assert.deepEqual((await shown(page)).Body, ['body.n − 1 + 3']);
    await dialog.getByRole('spinbutton').fill('4');
    await page.keyboard.press('Enter');
    await untilText(page, '#compare', 'What #3 had (−), and #4 has (+)');
    assert.deepEqual((await shown(page)).Body, ['body.n − 3 + 1']);
    await dialog.getByRole('spinbutton').fill('99');
    await page.keyboard.press('Enter');
    await untilText(page, '#compare', '#99 is not kept');
    await page.keyboard.press('Escape');
    await show(page, 4);
    await page.getByRole('button', { name: 'Compare with #1…' }).click();
    await untilText(page, '#compare', '#1 and #4 are alike');
});

pageTest('text is compared by lines, bytes by the first that differs', async ({ open }) => {
    const name = freshName();
    const type = 'text/plain';
    const lines = Array.from({ length: 200 }, (_, n) => `line ${n + 1}`);
    await push(`${origin}/${name}`, lines.join('\n'), { type });
    await push(`${origin}/${name}`, [...lines.slice(0, 9), 'other', ...lines.slice(10, 99), 'new', ...lines.slice(99, -1)].join('\n'), { type });
    await push(`${origin}/${name}`, Buffer.from([0xff, 1, 2, 3]), { type: 'application/octet-stream' });
    await push(`${origin}/${name}`, Buffer.from([0xff, 1, 7]), { type: 'application/octet-stream' });
    const page = await open(`${origin}/#${name}`);
    const compared = async (id) => {
        await show(page, id);
        await page.getByRole('button', { name: 'Compare…' }).click();
        await untilText(page, '#compare', `#${id} has (+)`);
        const { Body } = await shown(page);
        await page.keyboard.press('Escape');
        return Body;
    };
    assert.deepEqual(await compared(2), ['line 10 − line 10 + other', 'line 100 + new', 'line 200 − line 200']);
    assert.deepEqual(await compared(4), ['from byte 000002 on − 4 bytes; 02 there + 3 bytes; 07 there']);
    assert.match((await compared(3)).join(), /^body\.body − ".*body\.body_base64 \+ "/);
});

pageTest('what is large is compared as far as it can be, and that is said', async ({ open }) => {
    const name = freshName();
    const many = (to) => JSON.stringify(Object.fromEntries(Array.from({ length: 20_000 }, (_, n) => [`k${n}`, n + to])));
    const deep = (value) => '['.repeat(190) + Array.from({ length: 20_000 }, () => '[[[[[[]]]]]]').join() + value + ']'.repeat(190);
    const items = (to) => JSON.stringify(Array.from({ length: 30_000 }, (_, n) => n + to));
    const huge = (to) => JSON.stringify({ to, text: 'x'.repeat(3 << 20) });
    for (const body of [many(0), many(1), deep(''), deep(',1'), items(0), items(7), huge(1), huge(2)]) await push(`${origin}/${name}`, body);
    const page = await open(`${origin}/#${name}`);
    await untilText(page, '#detail-title', '#8');
    for (const [id, said] of [[2, 'Only the first 500 differences are shown'], [4, 'It is nested too deep to be compared to its end'], [6, 'Only the first 500'], [8, 'They are too large to be compared here']]) {
        await show(page, id);
        await page.getByRole('button', { name: 'Compare…' }).click();
        await untilText(page, '#compare', said);
        assert.ok((await page.locator('#compare li').count()) < 600);
        await page.keyboard.press('Escape');
    }
});
