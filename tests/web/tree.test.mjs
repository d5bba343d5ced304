// The tree of an update: its rows by keys, and their paths and values on the clipboard.

import assert from 'node:assert/strict';
import { freshName, origin, pageTest, push, rows, untilIds, untilText } from './helpers.mjs';

const ORDER = '{"items":[{"name":"a"},{"name":"b"},{"na me":1.10,"x\\"y":null,"ä":12345678901234567890}],"note":"line\\none","empty":{}}';
const permissions = ['clipboard-read', 'clipboard-write'];
const clipboard = (page) => page.evaluate(() => navigator.clipboard.readText());

/** The text of the row that has the focus. */
const focused = (page) => page.evaluate(() => document.activeElement.textContent);

pageTest('the path and the value of a row are copied by the mouse, and the path can be pasted into the filter', async ({ open }) => {
    const name = freshName();
    await push(`${origin}/${name}`, ORDER);
    await push(`${origin}/${name}`, '[{"name":"b"}]');
    await push(`${origin}/${name}`, 'plain', { type: 'text/plain' });
    const page = await open(`${origin}/#${name}`, { permissions });
    await untilIds(page, ['#3', '#2', '#1']);
    await rows(page).filter({ hasText: '#1' }).click();
    const tree = page.locator('#detail .json');
    const copies = async (row, what, text) => {
        await row.hover();
        await tree.getByTitle(`Copy this ${what}`).click();
        await page.waitForFunction((text) => navigator.clipboard.readText().then((copied) => copied === text), text);
    };
    for (const [index, path, value] of [[1, 'body.items[1].name', 'b'], [2, 'body.items[2]["na me"]', '1.10'], [3, 'body.items[2]["x\\"y"]', 'null'], [4, 'body.items[2].ä', '12345678901234567890'], [5, 'body.note', 'line\none'], [6, 'body.empty', '{}']]) {
        const row = tree.locator('.leaf').nth(index);
        await copies(row, 'path', path);
        await copies(row, 'value', value);
    }
    const container = tree.locator('summary').nth(1);
    await copies(container, 'path', 'body.items');
    await copies(container, 'value', ORDER.slice(9, ORDER.indexOf(',"note"')));
    assert.ok(await tree.locator('details').nth(1).evaluate(({ open }) => open), 'copying has folded it');

    await page.fill('#filter', 'body.items[1].name:b');
    await untilIds(page, ['#1']);
    await page.fill('#filter', 'body[0].name:b');
    await untilIds(page, ['#2']);
    await page.fill('#filter', 'body.body:plain');
    await untilIds(page, ['#3']);
    await copies(tree.locator('.leaf').first(), 'path', 'body.body');
});

pageTest('the tree is gone through by the arrows, and Tab leads to the buttons of the row', async ({ open }) => {
    const name = freshName();
    await push(`${origin}/${name}`, ORDER);
    const page = await open(`${origin}/#${name}`, { permissions });
    await untilText(page, '#detail-title', '#1');
    await page.locator('#detail .json summary').first().focus();
    for (const [key, text] of [['ArrowDown', '"items": 3 items'], ['ArrowDown', '0: 1 member'], ['ArrowDown', '"name": "a"'], ['ArrowLeft', '0: 1 member'], ['ArrowLeft', '0: 1 member'], ['ArrowDown', '1: 1 member'], ['ArrowUp', '0: 1 member'], ['ArrowRight', '0: 1 member'], ['ArrowRight', '"name": "a"'], ['End', '"empty": {}'], ['Home', '3 members']]) {
        await page.keyboard.press(key);
        assert.ok((await focused(page)).startsWith(text), `${key}: ${await focused(page)}, not ${text}`);
    }
    for (let n = 0; n < 3; n++) await page.keyboard.press('ArrowDown');
    await page.keyboard.press('Tab');
    await page.keyboard.press('Enter');
    await page.getByText('Copied').first().waitFor();
    assert.equal(await clipboard(page), 'body.items[0].name');
    await page.keyboard.press('Tab');
    await page.keyboard.press('Enter');
    await page.waitForFunction(() => navigator.clipboard.readText().then((text) => text === 'a'));
    // Tab goes on out of the tree, and comes back to the row.
    await page.keyboard.press('Tab');
    assert.equal(await page.evaluate(() => document.activeElement.closest('.json')), null);
    await page.keyboard.press('Shift+Tab');
    assert.equal(await page.evaluate(() => document.activeElement.title), 'Copy this value');
    // Enter on a row that does not open leads to its buttons, and the update stays as it is.
    for (let n = 0; n < 2; n++) await page.keyboard.press('Shift+Tab');
    assert.equal(await focused(page), '"name": "a"');
    await page.keyboard.press('Enter');
    assert.equal(await page.evaluate(() => document.activeElement.title), 'Copy this path');
});

pageTest('on a phone, a touch on a row shows its buttons', async ({ open }) => {
    const name = freshName();
    await push(`${origin}/${name}`, ORDER);
    const page = await open(`${origin}/#${name}`, { permissions, viewport: { width: 390, height: 844 }, isMobile: true, hasTouch: true });
    await untilIds(page, ['#1']);
    await rows(page).first().tap();
    await page.locator('#detail .json .leaf').nth(1).tap();
    await page.locator('#detail .tools').getByRole('button', { name: 'Value' }).tap();
    await page.locator('#detail .tools').getByText('Copied').waitFor();
    assert.equal(await clipboard(page), 'b');
});
