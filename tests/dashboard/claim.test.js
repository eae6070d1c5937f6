// The page on which a buyer finds the key, in a browser.
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import path from 'node:path';
import { after, before, test } from 'node:test';

import { SECRETS, selling, startStripe } from '../clients/stripe.js';
import { isFine, open, says, startBrowser, text, until } from './browser.js';
import { configuration, startGateway } from './gateway.js';

const axe = await readFile(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
const KEY = /JSTAR(-[0-9A-Z]{5}){4}/;
const NARROW = { viewport: { width: 320, height: 640 } };

let browser, stripe, gateway;
before(async () => {
    stripe = await startStripe();
    gateway = await startGateway((provider) => {
        const sound = configuration(provider);
        const { vault, source } = selling(stripe, { price_pro: 'small' });
        return { ...sound, vault, licenses: { buy_url: 'https://example.com/buy', sources: [...sound.licenses.sources, source] } };
    }, SECRETS);
    browser = await startBrowser();
});
after(async () => {
    stripe?.stop();
    await Promise.all([browser?.close(), gateway?.stop()]);
});

/** A buyer comes from the checkout. */
const arrive = (t, session, options) => open(t, browser, `${gateway.url}/claim?session_id=${session}`, { at: gateway.url, ...options });

const log = () => readFile(path.join(path.dirname(gateway.file), 'log'), 'utf8');

async function isSound(page, state) {
    await page.evaluate(axe);
    const found = await page.evaluate(() => globalThis.axe.run(document));
    assert.deepEqual(found.violations.map(({ id, nodes }) => [state, id, nodes[0].html]), []);
    const overflow = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
    assert.ok(overflow <= 0, `${state}: ${overflow} px too wide`);
    assert.equal(await page.locator('script').count(), 0);
}

for (const [look, options] of Object.entries({ light: { colorScheme: 'light' }, dark: { colorScheme: 'dark' }, 'on a narrow phone': NARROW })) {
    test(`every page is accessible and fits: ${look}`, async (t) => {
        const name = look.replaceAll(' ', '');
        const good = await arrive(t, stripe.sell(`${name}good001`), options);
        assert.match(await text(good, '.key'), KEY);
        await isSound(good, 'the key');
        isFine(good);
        const paying = await arrive(t, stripe.sell(`${name}slow001`, 'price_pro', 'unpaid'), options);
        await says(paying, 'h1', 'Your payment is on its way');
        await isSound(paying, 'unpaid');
        isFine(paying);
        const back = stripe.sell(`${name}back001`);
        stripe.change(`charges/ch_${name}back001`, { refunded: true });
        const refunded = await arrive(t, back, options);
        await says(refunded, 'h1', 'This purchase was refunded');
        await isSound(refunded, 'refunded');
        isFine(refunded);
        for (const session of [`cs_test_${name}none001`, 'nonsense']) {
            const none = await arrive(t, session, { ...options, mayFail: true });
            assert.ok((await text(none, 'h1')).length > 5);
            await isSound(none, session);
            isFine(none);
        }
    });
}

test('nothing is kept of it: no address, no cache, no log, no other host', async (t) => {
    const session = stripe.sell('private0001');
    const page = await arrive(t, session);
    const key = KEY.exec(await text(page, '.key'))[0];
    assert.equal(page.url(), `${gateway.url}/claim`);
    assert.ok(!(await page.content()).includes(session));
    assert.equal(await page.evaluate(() => document.cookie), '', 'no script reads the cookie');
    const [cookie] = (await page.context().cookies()).filter(({ name }) => name === '__Host-claim');
    assert.deepEqual([cookie.secure, cookie.httpOnly, cookie.sameSite, cookie.path], [true, true, 'Lax', '/']);
    assert.ok(!cookie.value.includes(session) && !Buffer.from(cookie.value, 'base64url').includes(session));
    for (const request of page.asked.filter((one) => one.url().includes('/claim'))) {
        const headers = (await request.response()).headers();
        assert.equal(headers['cache-control'], 'no-store', request.url());
        assert.equal(headers['referrer-policy'], 'no-referrer');
    }
    // Away and back again: it is asked for anew.
    const asked = () => page.asked.filter((request) => request.url().endsWith('/claim')).length;
    const before = asked();
    await page.goto('about:blank');
    await page.goBack();
    await says(page, 'h1', 'Your licence key');
    assert.ok(asked() > before, 'the page came out of a cache');
    isFine(page);
    const written = await log();
    assert.ok(written.length > 0);
    for (const secret of [session, key, cookie.value]) assert.ok(!written.includes(secret), 'a secret stands in a log');
});

test('without script: the key by the keyboard, and the app by its link', async (t) => {
    const page = await arrive(t, stripe.sell('noscript001'), { javaScriptEnabled: false });
    const key = KEY.exec(await text(page, '.key'))[0];
    assert.match(await text(page, 'main'), /3 messages a month/);
    const link = await page.locator('a.open').getAttribute('href');
    assert.match(link, /^jstar:\/\/license\?code=[\w-]+$/);
    const exchange = () => fetch(`${gateway.url}/license/claim`, { method: 'POST', body: JSON.stringify({ code: new URL(link).searchParams.get('code') }) });
    const taken = await (await exchange()).json();
    assert.deepEqual([taken.key, taken.plan], [key, 'small']);
    assert.equal((await exchange()).status, 403, 'once');
    assert.equal(await gateway.ask({ licence: key }), 200);
    isFine(page);
});

test('one click marks the whole key, which the keyboard reaches, too', async (t) => {
    const page = await arrive(t, stripe.sell('marked00001'));
    const key = KEY.exec(await text(page, '.key'))[0];
    await page.locator('.key').click();
    assert.equal(await page.evaluate(() => getSelection().toString().trim()), key);
    await page.reload();
    const reached = [];
    for (let n = 0; n < 4; n += 1) {
        await page.keyboard.press('Tab');
        reached.push(await page.evaluate(() => document.activeElement.className));
    }
    assert.ok(reached.includes('key') && reached.includes('open'), reached.join());
    isFine(page);
});

test('a payment that arrives is shown by the page itself, without script', async (t) => {
    const session = stripe.sell('arrives0001', 'price_pro', 'unpaid');
    const page = await arrive(t, session, { javaScriptEnabled: false });
    await says(page, 'h1', 'Your payment is on its way');
    stripe.change(`checkout/sessions/${session}`, { payment_status: 'paid' });
    await until(async () => KEY.test(await text(page, 'main').catch(() => '')), 'the key to appear');
    isFine(page);
});
