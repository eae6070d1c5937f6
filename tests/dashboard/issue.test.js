// Licences of the seller's own, issued on the page.
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { after, before, test } from 'node:test';

import { isFine, open, says, startBrowser, text, until } from './browser.js';
import { BUYER, configuration, startGateway } from './gateway.js';

const axe = await readFile(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
const KEK = 'GATEKEEPER_TEST_KEK';
/** 32 bytes, in base64. */
const SECRETS = { [KEK]: Buffer.alloc(32, 7).toString('base64') };
const KEY = /^JSTAR(-[0-9A-Z]{5}){4}$/;

function issuing(provider) {
    const sound = configuration(provider);
    const { sources } = sound.licenses;
    return { ...sound, vault: { kek: `env:${KEK}` }, licenses: { sources: [...sources, { issued: { prefix: 'JSTAR' } }] } };
}

let browser;
let gateway;
before(async () => {
    gateway = await startGateway(issuing, SECRETS);
    browser = await startBrowser();
});
after(() => Promise.all([browser?.close(), gateway?.stop()]));

async function issue(page, { plan = 'pro', day = '', note = '' } = {}) {
    await page.locator('#issue-plan').selectOption(plan);
    await page.locator('#issue-until').fill(day);
    await page.locator('#issue-note').fill(note);
    await page.locator('#issue-now').click();
}

test('one is issued, shown once and copied, and serves', async (t) => {
    const page = await open(t, browser, gateway.admin, { view: 'licences', permissions: ['clipboard-read', 'clipboard-write'] });
    await page.locator('#issue-panel').waitFor();
    assert.deepEqual(await page.locator('#issue-plan option').allTextContents(), ['pro', 'small']);
    await issue(page, { plan: 'small', day: '2099-12-31', note: 'for <b>Ann</b>' });
    await says(page, '#issue-said', 'Issued: plan small, until 2099-12-31. The key is shown this once.');
    const key = await text(page, '#issued-key');
    assert.match(key, KEY);
    await page.locator('#issued-copy').click();
    await says(page, '#issued-copied', 'Copied.');
    assert.equal(await page.evaluate(() => navigator.clipboard.readText()), key);
    assert.equal(await gateway.ask({ licence: key }), 200);
    await page.locator('#issued-done').click();
    assert.ok(!(await page.content()).includes(key), 'the key is gone from the page');

    await page.locator('#licence-key').fill(key);
    await page.locator('#search button').click();
    await says(page, '#licence-plan', 'plan small');
    await says(page, '#actions .note', 'for <b>Ann</b>');
    assert.match(await text(page, '#licence-facts'), /Sourceissued/);

    await issue(page);
    await says(page, '#issue-said', 'Issued: plan pro, without an end. The key is shown this once.');
    const second = await text(page, '#issued-key');
    assert.notEqual(second, key);
    await page.locator('nav a[href="#config"]').click();
    await until(async () => !(await page.content()).includes(second), 'another view to forget the key');
    const seen = await page.evaluate(() => JSON.stringify([document.cookie, { ...localStorage }, { ...sessionStorage }]));
    const urls = page.asked.map((request) => request.url()).join();
    for (const one of [key, second]) assert.ok(!seen.includes(one) && !urls.includes(one));
    isFine(page);
});

test('an answer that is lost, and an order that is refused', async (t) => {
    const page = await open(t, browser, gateway.admin, { view: 'licences', mayFail: true });
    await page.locator('#issue-panel').waitFor();
    const made = [];
    await page.route('**/api/licenses/issue', async (route) => {
        const answer = await route.fetch();
        made.push([route.request().postDataJSON().id, (await answer.json()).licenses?.[0].key]);
        return made.length > 1 ? route.fulfill({ response: answer }) : route.abort();
    });
    await issue(page, { note: 'lost' });
    await says(page, '#issue-said', /^The gateway does not answer\. Whether it was issued is not known/);
    assert.ok(!(await page.locator('#issued').isVisible()));
    await page.locator('#issue-now').evaluate((button) => [button.click(), button.click()]);
    await says(page, '#issued-key', KEY);
    assert.equal(made.length, 2);
    assert.deepEqual(made[1], made[0], 'the same order, the same key');
    assert.equal(await text(page, '#issued-key'), made[0][1]);
    await page.locator('#issued-done').click();
    await issue(page, { day: '2020-01-31' });
    await says(page, '#issue-said', /is over/);
    assert.ok(!(await page.locator('#issued').isVisible()));
    isFine(page);
});

test('it is accessible and fits a phone', async (t) => {
    const page = await open(t, browser, gateway.admin, { view: 'licences', viewport: { width: 320, height: 640 } });
    await page.locator('#issue-panel').waitFor();
    await issue(page, { day: '2099-12-31' });
    await says(page, '#issued-key', KEY);
    await page.evaluate(axe);
    const { violations } = await page.evaluate(() => globalThis.axe.run(document, { resultTypes: ['violations'] }));
    const bad = violations.filter(({ impact }) => ['serious', 'critical'].includes(impact));
    assert.deepEqual(bad.map(({ id, nodes }) => [id, nodes[0].html]), []);
    assert.ok((await page.evaluate(() => document.documentElement.scrollWidth - innerWidth)) <= 0);
    isFine(page);
});

test('without a source of our own there is nothing to issue', async (t) => {
    const plain = await startGateway();
    t.after(() => plain.stop());
    const page = await open(t, browser, plain.admin, { view: 'licences' });
    await page.locator('#licence-key').fill(BUYER);
    await page.keyboard.press('Enter');
    await page.locator('#licence').waitFor();
    await until(async () => !(await page.locator('#issue-panel').isVisible()), 'no form');
    isFine(page);
});
