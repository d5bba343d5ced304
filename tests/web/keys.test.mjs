// Keys on the pages: what each of the three addresses may do, what is handed out; and deleting.

import assert from 'node:assert/strict';
import { FAILED_REQUEST, keysOf, origin, pageTest, push, readAll, rows, untilIds, untilLive, untilText } from './helpers.mjs';

const idOfFocus = (page) => page.evaluate(() => document.activeElement.id);
const clipboard = { permissions: ['clipboard-read', 'clipboard-write'] };

/** The channels that a page asks for anything, each once. */
function askedBy(page) {
    const asked = new Set();
    page.on('request', (request) => {
        const [, channel] = new URL(request.url()).pathname.split('/');
        if (channel && channel !== '-') asked.add(channel);
    });
    return asked;
}

pageTest('the keys that the documents derive are derived', async ({ open }) => {
    const page = await open();
    for (const [all, read, send] of [
        ['r_aaaaaaaaaaaaaaaaaaaaaaaaaa', 'v_7hbjlw4eu26ztbnufm4kuyjplr', 'w_7qjf5ox6vk2m4p3glbaewy2dry'],
        ['r_abcdefghijklmnopqrstuvwxyz', 'v_nwukusnkdejlh27cmpexjan7m4', 'w_mcfmsg2aft7lptbv6uxgu4q7lh'],
        ['r_77777666665555544444333332', 'v_foiqnzs6lb3mqlkys5kgjre5qt', 'w_q447pvs3fpdr5myiwtsedunhu3'],
    ]) {
        assert.deepEqual(keysOf(all), { all, read, send });
        await page.goto(`${origin}/#${all}`);
        await untilText(page, '#address', `${origin}/${send}`);
        await page.goto(`${origin}/#${read}`);
        await untilText(page, '#address-hint', 'reading link');
        assert.equal(await page.locator('#address').innerText(), `${origin}/${send}`);
    }
});

pageTest('a key: the address that only sends is handed out, in each snippet too, and what reads gets the reading one', async ({ open }) => {
    const { all, read, send } = keysOf();
    const page = await open(undefined, clipboard);
    await page.addInitScript(() => Object.defineProperty(crypto, 'subtle', { value: undefined })); // as on http
    const asked = askedBy(page);
    await page.goto(`${origin}/#${all}`);
    await untilLive(page);
    for (const [tab, sends, reads] of [
        ['curl', `'${origin}/${send}'`, `'${origin}/${read}?ts=0&sleep=25'`],
        ['Telegram', `url=${origin}/${send}?appname=mybot'`],
        ['GitHub', `config[url]=${origin}/${send}'`],
        ['JavaScript', `new Channel('${origin}/${send}').push`, `new Channel('${origin}/${read}').updates`],
        ['Python', `Channel("${origin}/${send}").push`, `Channel("${origin}/${read}").updates`],
        ['Lua', `longline.new("${origin}/${send}"):publish_async`, `longline.new("${origin}/${read}"):subscribe`],
    ]) {
        await page.getByRole('tab', { name: tab }).click();
        const code = await page.locator('#tab-code').textContent();
        assert.ok(code.includes(sends) && code.includes(reads ?? sends), code);
    }
    await page.click('#send-test');
    await untilIds(page, ['#1']);
    await page.getByRole('button', { name: 'Send again' }).click();
    await untilIds(page, ['#2', '#1']);
    await page.getByRole('button', { name: 'Copy as curl' }).click();
    await untilText(page, '#detail', 'Copied');
    assert.ok((await page.evaluate(() => navigator.clipboard.readText())).endsWith(`'${origin}/${send}'`));
    assert.deepEqual(asked, new Set([all, send]));
    assert.ok(!(await page.locator('body').innerHTML()).replaceAll(`#${all}`, '').includes(all), 'the key is in links of the page alone');

    await page.click('#reading-link');
    await untilText(page, '#reading-link', 'Copied');
    const link = await page.evaluate(() => navigator.clipboard.readText());
    assert.equal(link, `${origin}/#${read}`);
    const guest = await open(link);
    await untilIds(guest, ['#2', '#1']);
});

pageTest('a reading link: all is seen, nothing is offered that would fail', async ({ open }) => {
    const { all, read, send } = keysOf();
    const page = await open();
    const asked = askedBy(page);
    await page.goto(`${origin}/#${read}`);
    await untilText(page, '#empty', 'Nothing has come yet');
    assert.match(await page.locator('#address-hint').innerText(), /neither sends nor deletes/);
    assert.equal(await page.locator('#address').innerText(), `${origin}/${send}`);
    assert.ok(await page.locator('#copy-address').isVisible());
    for (const id of ['send', 'send-test', 'delete-all']) assert.ok(await page.locator(`#${id}`).isHidden(), id);
    await push(`${origin}/${send}`, { n: 1 });
    await untilIds(page, ['#1']);
    await untilText(page, '#kept', '1 update so far');
    assert.deepEqual(await page.locator('#detail .choices button').allInnerTexts(), ['Copy JSON', 'Copy as curl', 'Copy link', 'Download', 'Send elsewhere…']);
    assert.ok(await page.locator('#delete-all').isHidden());

    // Why a webhook does not arrive, and who reads.
    assert.equal((await fetch(`${origin}/${read}`, { method: 'POST', body: '{}' })).status, 403);
    await fetch(`${origin}/${all}?as=mailer&ts=0`);
    await page.reload();
    await untilText(page, '#refused', 'This address only reads');
    await page.click('#refused summary');
    await untilText(page, '#refused', 'Give it the sending one, which begins with w_');
    await untilText(page, '#consumers summary', 'mailer is 1 update behind');
    await page.click('#consumers summary');
    assert.equal(await page.locator('#consumers tbody button').count(), 0);
    assert.deepEqual(asked, new Set([read]));

    // With the key, one is forgotten.
    await page.goto(`${origin}/#${all}`);
    await untilText(page, '#consumers summary', 'mailer');
    await page.click('#consumers summary');
    await page.getByRole('button', { name: 'Forget mailer…' }).click();
    await page.getByRole('button', { name: 'Forget it' }).click();
    await page.locator('#consumers').waitFor({ state: 'hidden' });
});

pageTest('an address that only sends: it says so and polls nothing, sends a test, and is not kept as one\'s own', async ({ open }) => {
    const { all, send } = keysOf();
    const page = await open(`${origin}/`);
    await untilLive(page);
    const own = new URL(page.url()).hash;
    const asked = askedBy(page);
    await page.click('#own');
    await page.fill('#own-name', `${origin}/${send}`);
    await page.press('#own-name', 'Enter');
    await untilText(page, '#state', 'only sends');
    assert.match(await page.locator('#address-hint').innerText(), /cannot be read with it\. Open the reading link, or the page with the key: #v_… or #r_…/);
    for (const id of ['inbox', 'retry', 'reading-link', 'consumers']) assert.ok(await page.locator(`#${id}`).isHidden(), id);
    assert.equal(await page.locator('#tab-code').textContent(), `curl -d '{"hello":"world"}' '${origin}/${send}'`);
    assert.ok(!asked.has(send));
    await page.locator('#send-form').getByRole('button').click();
    await untilText(page, '#send-form button', 'Sent as #1');
    asked.delete(own.slice(1)); // of the page as it was before
    assert.deepEqual(asked, new Set([send]));
    assert.deepEqual((await readAll(`${origin}/${all}`)).map(({ body }) => body), [{ hello: 'world' }]);
    await page.goto('about:blank');
    await page.goto(`${origin}/`);
    await untilLive(page);
    assert.equal(new URL(page.url()).hash, own);
});

pageTest('what only looks like a key is a plain secret, with all rights', async ({ open }) => {
    const page = await open();
    for (const name of [`w_${'a'.repeat(27)}`, `V_${'a'.repeat(26)}`, `v_${'1'.repeat(26)}`]) {
        await page.goto(`${origin}/#${name}`);
        await untilText(page, '#address', `${origin}/${name}`);
        assert.match(await page.locator('#address-hint').innerText(), /It is also the key/);
        assert.ok(await page.locator('#reading-link').isHidden());
        await page.click('#send-test');
        await untilIds(page, ['#1']);
        await page.getByRole('button', { name: 'Send again' }).waitFor();
        await page.locator('#delete-all').waitFor();
    }
});

// ---------------------------------------------------------------------------------------------- deleting

pageTest('deleting all: after a question, for good; the focus comes back, and what comes next is shown', async ({ open }) => {
    const { all, read, send } = keysOf();
    for (let n = 1; n <= 3; n++) await push(`${origin}/${send}`, { n });
    const page = await open(`${origin}/#${all}`);
    const other = await open(`${origin}/#${read}`);
    for (const one of [page, other]) await untilIds(one, ['#3', '#2', '#1']);

    // No: by a key, and by the button that has the focus.
    const dialog = page.getByRole('dialog', { name: 'Delete all updates?' });
    for (const key of ['Escape', 'Enter']) {
        await page.focus('#delete-all');
        await page.keyboard.press('Enter');
        await dialog.waitFor();
        assert.equal(await page.evaluate(() => document.activeElement.textContent), 'Keep them');
        await page.keyboard.press(key);
        await dialog.waitFor({ state: 'hidden' });
        assert.equal(await idOfFocus(page), 'delete-all');
    }
    assert.equal((await readAll(`${origin}/${all}`)).length, 3);

    await page.keyboard.press('Enter');
    const said = page.locator(`#${await dialog.getAttribute('aria-describedby')}`);
    assert.match(await said.innerText(), /up to #3, .*cannot be undone, and programs that are behind will miss them/);
    await page.keyboard.press('Shift+Tab');
    await page.keyboard.press('Enter');
    await untilText(page, '#empty-title', 'All updates are deleted');
    await untilText(page, '#said', 'All updates are deleted');
    assert.equal(await idOfFocus(page), 'inbox');
    for (const id of ['detail', 'delete-all']) assert.ok(await page.locator(`#${id}`).isHidden(), id);
    assert.deepEqual(await readAll(`${origin}/${all}`), []);

    // Whoever was there keeps what has been shown, and has missed nothing.
    await push(`${origin}/${send}`, { n: 4 });
    await untilIds(page, ['#4']);
    await untilIds(other, ['#4', '#3', '#2', '#1']);
    for (const one of [page, other]) assert.equal(await one.locator('#notices p').count(), 0);
    await other.reload();
    await untilIds(other, ['#4']);
});

pageTest('deleting up to an update, while a filter shows some; and a page that comes to nothing says so at once', async ({ open }) => {
    const { all, send } = keysOf();
    for (let n = 1; n <= 5; n++) await push(`${origin}/${send}`, { n, kind: n % 2 ? 'odd' : 'even' });
    const page = await open(`${origin}/#${all}`);
    await untilIds(page, ['#5', '#4', '#3', '#2', '#1']);
    await page.fill('#filter', 'odd');
    await untilIds(page, ['#5', '#3', '#1']);
    await rows(page).filter({ hasText: '#3' }).click();
    await page.getByRole('button', { name: 'Delete up to #3…' }).click();
    await untilText(page, '#deletion', 'One update alone cannot be deleted');
    await page.getByRole('dialog', { name: 'Delete all updates up to #3?' }).getByRole('button', { name: 'Delete for good' }).click();
    await untilIds(page, ['#5']);
    await untilText(page, '#said', 'All updates up to #3 are deleted');
    await push(`${origin}/${send}`, { n: 6, kind: 'odd' });
    await untilIds(page, ['#6', '#5']);
    await page.fill('#filter', '');
    await untilIds(page, ['#6', '#5', '#4']);

    assert.equal((await fetch(`${origin}/${all}`, { method: 'DELETE' })).status, 200);
    const late = await open(`${origin}/#${all}`);
    await untilText(late, '#empty-title', 'Nothing is kept any more');
    await push(`${origin}/${send}`, { n: 7 });
    await untilIds(late, ['#7']);
});

pageTest('a server that does not delete, or does not answer: the question says it', async ({ open, servers }) => {
    const server = await servers.start(['--data-provider', 'memory', '--purge', 'off']);
    const { all, send } = keysOf();
    await push(`${server.origin}/${send}`, { n: 1 });
    const page = await open(`${server.origin}/#${all}`, { expected: FAILED_REQUEST });
    await untilIds(page, ['#1']);
    await page.click('#delete-all');
    const sure = page.getByRole('button', { name: 'Delete for good' });
    await sure.click();
    await untilText(page, '#deletion [role=alert]', 'Not deleted: This server does not purge (PURGE=off)');
    await server.stop();
    await sure.click();
    await untilText(page, '#deletion [role=alert]', /Not deleted: (?!This server)/);
    await page.getByRole('button', { name: 'Keep them' }).click();
    await untilIds(page, ['#1']);
});

// ---------------------------------------------------------------------------------------------- the chat

pageTest('the chat: a key speaks, a reading link listens and is told so, an address that only sends is told', async ({ open }) => {
    const { all, read, send } = keysOf();
    const ann = await open(`${origin}/-/chat#${all}`);
    const guest = await open();
    const asked = askedBy(guest);
    await guest.goto(`${origin}/-/chat#${read}/tea`);
    await untilLive(guest);
    await guest.goto(`${origin}/-/chat#${read}`);
    await ann.fill('#name', 'Ann');
    await ann.fill('#text', 'hello');
    await ann.press('#text', 'Enter');
    for (const page of [ann, guest]) await page.locator('.message', { hasText: 'hello' }).waitFor();
    await untilText(guest, '#why-not', 'You have opened a reading link');
    for (const id of ['name', 'text', 'say', 'new-room']) assert.ok(await guest.locator(`#${id}`).isHidden(), id);
    assert.deepEqual(asked, new Set([read]));

    await guest.goto(`${origin}/-/chat#${send}`);
    await untilText(guest, '#state', 'This address only sends');
    for (const id of ['talk', 'new-room', 'retry']) assert.ok(await guest.locator(`#${id}`).isHidden(), id);
    assert.deepEqual(asked, new Set([read]));
    await guest.goto(`${origin}/-/chat#${all}`);
    await guest.locator('.message', { hasText: 'hello' }).waitFor();
    for (const id of ['name', 'text', 'say', 'new-room']) assert.ok(await guest.locator(`#${id}`).isVisible(), id);
    assert.ok(await guest.locator('#why-not').isHidden());
});
