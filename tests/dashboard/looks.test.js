// What can be measured of how it looks: accessibility, contrast, motion, size, speed.
import assert from 'node:assert/strict';
import { readFile, readdir, stat } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';

import { PHONE, isFine, open, says, startBrowser, until } from './browser.js';
import { faint } from './contrast.js';
import { BUYER, configuration, startGateway } from './gateway.js';

const axe = await readFile(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');

let browser;
let gateway;
before(async () => {
    gateway = await startGateway();
    browser = await startBrowser();
    // Something of everything: rescued, refused, failed, a key that rests, one that is off.
    gateway.provider.moods['sk-first'] = 429;
    gateway.provider.moods['sk-other'] = 401;
    for (let n = 0; n < 6; n += 1) await gateway.ask({ stream: n % 2 === 0 });
    for (let n = 0; n < 4; n += 1) await gateway.ask({ licence: BUYER });
    gateway.provider.moods['sk-third'] = 500;
    await gateway.ask();
    await gateway.ask({ licence: 'NOBODY-KNOWS-0000' });
    gateway.provider.moods['sk-third'] = null;
    const sound = configuration(gateway.provider);
    await gateway.write({ ...sound, mistake: 1 });
    await until(async () => Boolean((await (await fetch(`${gateway.admin}/status`)).json()).config.refused), 'the mistake to be noticed');
});
after(() => Promise.all([browser?.close(), gateway?.stop()]));

const LOOKS = {
    dark: { colorScheme: 'dark' },
    light: { colorScheme: 'light' },
    'on a phone, dark': { colorScheme: 'dark', ...PHONE },
    'on a phone, light': { colorScheme: 'light', ...PHONE },
};

const VIEWS = {
    async live(page) {
        await page.locator('#feed .row .request').first().click();
        await page.locator('.attempts, .detail .quiet').first().waitFor();
    },
    async licences(page) {
        await page.locator('#licence-key').fill(BUYER);
        await page.keyboard.press('Enter');
        await page.locator('#licence').waitFor();
    },
    async config(page) {
        await page.locator('#refused').waitFor();
    },
};

for (const [look, options] of Object.entries(LOOKS)) {
    test(`accessible and readable: ${look}`, async (t) => {
        const page = await open(t, browser, gateway.admin, { ...options, plain: false, reducedMotion: 'reduce' });
        await page.locator('#feed .row').first().waitFor();
        await page.evaluate(axe);
        for (const [view, prepare] of Object.entries(VIEWS)) {
            await page.locator(`nav a[href="#${view}"]`).click();
            await prepare(page);
            const { violations } = await page.evaluate(() => globalThis.axe.run(document, { resultTypes: ['violations'] }));
            const bad = violations.filter(({ impact }) => ['serious', 'critical'].includes(impact));
            assert.deepEqual(bad.map(({ id, nodes }) => [view, id, nodes[0].html, nodes[0].failureSummary]), []);
            assert.deepEqual(await faint(page), [], `${view}: text that is hard to read`);
            const [wide, window] = await page.evaluate(() => [document.documentElement.scrollWidth, innerWidth]);
            assert.ok(wide <= window, `${view}: ${wide} px in ${window}`);
        }
        isFine(page);
    });
}

/** Serious violations of a page as it stands. */
async function violations(page) {
    await page.evaluate(axe);
    const found = await page.evaluate(() => globalThis.axe.run(document, { resultTypes: ['violations'] }));
    return found.violations.filter(({ impact }) => ['serious', 'critical'].includes(impact)).map(({ id, nodes }) => [id, nodes[0].html]);
}

const overflow = (page) => page.evaluate(() => document.documentElement.scrollWidth - innerWidth);

test('nothing overflows at 320 px', async (t) => {
    const page = await open(t, browser, gateway.admin, { viewport: { width: 320, height: 640 } });
    await page.locator('#feed .row').first().waitFor();
    for (const [view, prepare] of Object.entries(VIEWS)) {
        await page.locator(`nav a[href="#${view}"]`).click();
        await prepare(page);
        assert.ok((await overflow(page)) <= 0, `${view}: ${await overflow(page)} px too wide`);
        if (view !== 'licences') continue;
        for (const kind of ['seen', 'refused', 'licenses']) {
            await page.locator(`#top-kinds [value=${kind}]`).click();
            await page.locator('#top li').first().waitFor();
            assert.ok((await overflow(page)) <= 0, `${kind}: ${await overflow(page)} px too wide`);
        }
    }
    isFine(page);
});

test('every state is accessible and fits a phone: nothing yet, logged out, connection lost', async (t) => {
    const fresh = await startGateway({ admin: { token: 'env:ADMIN_TOKEN' } }, { ADMIN_TOKEN: 'a-token-of-the-looks-0123456789' });
    t.after(() => fresh.stop());
    const page = await open(t, browser, fresh.admin, { viewport: { width: 320, height: 640 }, mayFail: true });
    const look = async (state) => {
        assert.deepEqual(await violations(page), [], state);
        assert.ok((await overflow(page)) <= 0, `${state}: ${await overflow(page)} px too wide`);
    };
    await page.locator('#token').waitFor();
    assert.equal(await page.title(), 'Log in · Gatekeeper');
    await look('logged out');
    await page.locator('#token').fill('a-token-of-the-looks-0123456789');
    await page.keyboard.press('Enter');
    await page.locator('#first').waitFor();
    await look('nothing yet');
    await fresh.ask();
    await page.locator('#feed .row').waitFor();
    await fresh.end();
    await says(page, '#lead', /^No connection to the gateway since/);
    await look('connection lost');
    isFine(page);
});

test('everything can be reached and done with the keyboard, and is seen to have the focus', async (t) => {
    const page = await open(t, browser, gateway.admin);
    await page.locator('#feed .row').first().waitFor();
    const seen = new Set();
    for (let n = 0; n < 60; n += 1) {
        await page.keyboard.press('Tab');
        const focus = await page.evaluate(() => {
            const one = document.activeElement;
            const style = getComputedStyle(one);
            const name = one.id || one.value || one.className || one.hash || one.tagName;
            return { name: String(name), outline: style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) >= 2 };
        });
        if (focus.name === 'BODY') break; // once around
        assert.ok(focus.outline, `${focus.name} does not show its focus`);
        seen.add(focus.name);
    }
    for (const wanted of ['skip', '#licences', 'theme', 'all', 'plan', 'pause', 'request', 'small pause', 'small probe']) {
        assert.ok([...seen].some((name) => name === wanted || name.startsWith(`${wanted} `)), `${wanted} is not reached: ${[...seen].join(', ')}`);
    }
    isFine(page);
});

test('the theme can be chosen, is kept, and does not need the system', async (t) => {
    const page = await open(t, browser, gateway.admin, { colorScheme: 'dark' });
    const ink = () => page.evaluate(() => getComputedStyle(document.body).color);
    const dark = await ink();
    await page.locator('#theme').click();
    await says(page, '#theme', 'Theme: dark');
    await page.locator('#theme').click();
    await says(page, '#theme', 'Theme: light');
    assert.notEqual(await ink(), dark);
    await page.reload();
    await says(page, '#theme', 'Theme: light');
    assert.notEqual(await ink(), dark);
    isFine(page);
});

test('nothing moves where motion is not wanted', async (t) => {
    const moving = (page) => page.evaluate(() => document.getAnimations().filter(({ playState }) => playState === 'running').length);
    const still = await open(t, browser, gateway.admin, { plain: false, reducedMotion: 'reduce' });
    await still.locator('#feed .row').first().waitFor();
    assert.equal(await moving(still), 0);
    await gateway.ask();
    await until(async () => (await still.locator('#feed .row .outcome').first().textContent()) !== '', 'a row');
    assert.equal(await moving(still), 0);
    isFine(still);
    const lively = await open(t, browser, gateway.admin, { plain: false });
    assert.ok((await moving(lively)) > 0, 'the test sees motion where there is some');
    isFine(lively);
});

test('small, soon there, and from this gateway alone', async (t) => {
    const folder = fileURLToPath(new URL('../../dashboard', import.meta.url));
    const files = (await readdir(folder)).filter((name) => /\.(html|css|js|svg)$/.test(name));
    const sizes = await Promise.all(files.map(async (name) => (await stat(`${folder}/${name}`)).size));
    const bytes = sizes.reduce((sum, size) => sum + size, 0);
    t.diagnostic(`${files.length} files, ${bytes} bytes`);
    assert.ok(bytes < 170_000, `${bytes} bytes`);

    const page = await open(t, browser, gateway.admin, { plain: false });
    await page.locator('#feed .row').first().waitFor();
    const paint = await page.evaluate(() => performance.getEntriesByName('first-contentful-paint')[0].startTime);
    t.diagnostic(`first paint after ${Math.round(paint)} ms`);
    assert.ok(paint < 3000, `${paint} ms`);
    const answer = await page.request.get(gateway.admin, { headers: { accept: 'text/html' } });
    const policy = answer.headers()['content-security-policy'];
    assert.match(policy, /default-src 'none'/);
    assert.ok(!/unsafe|https?:/.test(policy), policy);
    const served = new Set(page.asked.map((request) => new URL(request.url()).pathname.replace('/assets/', '')));
    const unused = files.filter((name) => name !== 'index.html' && !served.has(name));
    assert.deepEqual(unused, [], 'files that nobody asks for');
    isFine(page);
});
