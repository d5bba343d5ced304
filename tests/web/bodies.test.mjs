// What a body is, is said and shown: each kind has a title of its own, bytes are no base64, and all can be downloaded.

import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { gzipSync } from 'node:zlib';
import { freshName, origin, pageTest, push, rows, untilIds, untilText } from './helpers.mjs';

const PNG = Buffer.from('iVBORw0KGgoAAAANSUhEUgAAAAIAAAABCAIAAAB7QOjdAAAAD0lEQVR4nGP4z8DA8J8BAAf/Af8Bf4mnAAAAAElFTkSuQmCC', 'base64');
const BYTES = Buffer.from(Array.from({ length: 3000 }, (_, n) => (n * 7 + 0xff) % 256));

pageTest('each kind of body says what it is', async ({ open }) => {
    const name = freshName();
    const url = `${origin}/${name}`;
    const long = 'x'.repeat(70_000);
    const cases = [
        ['{"hello":"world"}', 'application/json', 'hello: world', '{"hello":"world"}'],
        ['{"id":17,"ok":true}', 'application/json', 'id: 17', '{"id":17,"ok":true}'],
        ['{"big":12345678901234567890,"deep":{}}', 'application/json', 'JSON · 2 members', '{"big":12345678901234567890,"deep":{}}'],
        ['{}', 'application/json', 'Empty', '{}'],
        ['[1,2,3]', 'application/json', 'Array of 3', '[1,2,3]'],
        ['From=%2B155&Body=hi', 'application/x-www-form-urlencoded', 'Form · From: +155', '{"From":"+155","Body":"hi"}'],
        ['two\nlines', 'text/plain', 'Text · 9 bytes', 'two lines'],
        ['a,b\n1,2', 'text/csv; charset=utf-8', 'CSV · 7 bytes', 'a,b 1,2'],
        ['<?xml version="1.0"?><!-- x --><order id="1"/>', 'application/xml', 'XML · order · 46 bytes', '<?xml version="1.0"?><!-- x --><order id="1"/>'],
        ['<p>hi</p>', 'text/html', 'HTML · 9 bytes', '<p>hi</p>'],
        [PNG, 'image/png', 'PNG picture · 72 bytes', '89 50 4e 47 0d 0a 1a 0a'],
        [PNG, 'application/octet-stream', 'PNG picture · 72 bytes', '89 50 4e 47'],
        [Buffer.from('%PDF-1.7\xff\xfe', 'latin1'), 'application/pdf', 'PDF · 10 bytes', '25 50 44 46'],
        [Buffer.from([0xff, 0, 1, 2, 3]), 'application/octet-stream', 'Bytes · 5 bytes', 'ff 00 01 02 03'],
        [Buffer.from([0xff, 0, 1, 2]), 'application/x-protobuf', 'application/x-protobuf · 4 bytes', 'ff 00 01 02'],
        [`{"a":"${long}"}`, 'application/json', 'JSON · 70.0 kB', '{"a":"xxx'],
    ];
    for (const [body, type] of cases) await push(url, body, { type });
    const page = await open(`${origin}/#${name}`, { viewport: { width: 1600, height: 2000 } });
    await rows(page).nth(cases.length - 1).waitFor();
    for (const [index, [, , title, preview]] of cases.entries()) {
        const row = page.locator('.row').filter({ has: page.locator(`.id:text-is("#${index + 1}")`) });
        assert.equal(await row.locator('strong').innerText(), title);
        assert.ok((await row.locator('.preview').innerText()).startsWith(preview), await row.innerText());
        assert.doesNotMatch(await row.innerText(), /POST/);
    }
});

pageTest('a picture is shown, any bytes are hex, and both are downloaded as they came', async ({ open }) => {
    const name = freshName();
    const url = `${origin}/${name}?appname=camera`;
    await push(url, PNG, { type: 'image/png' });
    await push(url, BYTES, { type: 'application/octet-stream' });
    await push(url, '{"n": 1.10}');
    await push(url, gzipSync('{"zipped":true}'), { headers: { 'Content-Encoding': 'gzip' } });
    const page = await open(`${origin}/#${name}`);
    await untilIds(page, ['#4', '#3', '#2', '#1']);
    const show = async (id) => {
        await rows(page).filter({ hasText: id }).click();
        await untilText(page, '#detail-title', id);
    };
    const downloaded = async (label) => {
        const [download] = await Promise.all([page.waitForEvent('download'), page.locator('#detail').getByRole('button', { name: label, exact: true }).click()]);
        return [download.suggestedFilename(), await readFile(await download.path())];
    };
    await show('#1');
    await page.waitForFunction(() => document.querySelector('.picture img')?.naturalWidth === 2);
    assert.equal(await page.locator('.picture img').getAttribute('alt'), 'The picture in #1');
    assert.match(await page.locator('.hex').innerText(), /^000000 {2}89 50 4e 47 0d 0a 1a 0a .* ·PNG····/);
    assert.doesNotMatch(await page.locator('#detail').innerText(), /iVBORw0KGgo/, 'the base64 is folded');
    await page.locator('#detail').getByText('As JSON').click();
    await page.locator('#detail .json .string').getByText('iVBORw0KGgo').waitFor();
    assert.deepEqual(await downloaded('Download'), ['update-1.png', PNG]);

    await show('#2');
    assert.equal(await page.locator('.picture').count(), 0);
    const lines = () => page.locator('.hex').evaluate((pre) => pre.textContent.trimEnd().split('\n').length);
    assert.equal(await lines(), 32);
    await page.locator('#detail').getByRole('button', { name: '2.49 kB more' }).click();
    assert.equal(await lines(), Math.ceil(3000 / 16));
    assert.deepEqual(await downloaded('Download'), ['update-2.bin', BYTES]);

    await show('#3');
    assert.deepEqual(await downloaded('Download'), ['update-3.json', Buffer.from('{"n": 1.10}')]);
    await show('#4');
    assert.deepEqual(await downloaded('Download'), ['update-4.json', Buffer.from('{"zipped":true}')]);
    const asItCame = await page.getByRole('button', { name: /^Download as it came/ }).innerText();
    assert.deepEqual(await downloaded(asItCame), ['update-4.json.gz', gzipSync('{"zipped":true}')]);
});

pageTest('bytes that only claim to be a picture, or would be a huge one, are hex', async ({ open }) => {
    const name = freshName();
    const url = `${origin}/${name}`;
    const huge = Buffer.from(PNG);
    huge.writeUInt32BE(0x7fffffff, 16);
    huge.writeUInt32BE(0x7fffffff, 20);
    await push(url, huge, { type: 'image/png' });
    await push(url, PNG.subarray(0, 40), { type: 'image/png' });
    await push(url, Buffer.concat([Buffer.from('<svg xmlns="http://www.w3.org/2000/svg"><script>window.hacked=1</script></svg>'), Buffer.from([0xff, 0])]), { type: 'image/png' });
    await push(url, { body_base64: '%%%' });
    await push(url, '{"body_base64":"AA=="}', { type: 'image/png' });
    const page = await open(`${origin}/#${name}`);
    await untilIds(page, ['#5', '#4', '#3', '#2', '#1']);
    for (const [id, isHex] of [['#1', true], ['#2', true], ['#3', true], ['#4', false], ['#5', false]]) {
        await rows(page).filter({ hasText: id }).click();
        await untilText(page, '#detail-title', id);
        await page.waitForFunction(() => !document.querySelector('#detail img'));
        assert.equal(await page.locator('#detail .hex').count(), isHex ? 1 : 0, id);
        assert.equal(await page.locator('#detail :is(script, iframe, svg, object, embed)').count(), 0);
    }
    assert.equal(await page.evaluate(() => window.hacked), undefined);
});
