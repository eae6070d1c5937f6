// What can be measured of how it looks: accessibility, contrast, motion, size, speed.
import assert from 'node:assert/strict';
import { readdir, stat } from 'node:fs/promises';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';

import { isSound, overflow, violations } from './axe.js';
import { PHONE, isFine, open, says, startBrowser, until } from './browser.js';
import { faint } from './contrast.js';
import { BUYER, SECRETS, configuration, startGateway } from './gateway.js';

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
        for (const [view, prepare] of Object.entries(VIEWS)) {
            await page.locator(`nav a[href="#${view}"]`).click();
            await prepare(page);
            assert.deepEqual(await violations(page), [], view);
            assert.deepEqual(await faint(page), [], `${view}: text that is hard to read`);
            const [wide, window] = await page.evaluate(() => [document.documentElement.scrollWidth, innerWidth]);
            assert.ok(wide <= window, `${view}: ${wide} px in ${window}`);
        }
        isFine(page);
    });
}

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
            // Not a letter a line.
            const { height } = await page.locator('#top li').first().boundingBox();
            assert.ok(height < 130, `${kind}: a row of ${height} px`);
        }
    }
    isFine(page);
});

test('every state is accessible and fits a phone: logged out, nothing yet, all providers out, draining, connection lost', async (t) => {
    const token = 'a-token-of-the-looks-0123456789';
    const fresh = await startGateway({ admin: { token: 'env:ADMIN_TOKEN' } }, { ADMIN_TOKEN: token });
    t.after(() => fresh.stop());
    const page = await open(t, browser, fresh.admin, { viewport: { width: 320, height: 640 }, mayFail: true });
    await page.locator('#token').waitFor();
    assert.equal(await page.title(), 'Log in · Gatekeeper');
    await isSound(page, 'logged out');
    await page.locator('#token').fill(token);
    await page.keyboard.press('Enter');
    await page.locator('#first').waitFor();
    await isSound(page, 'nothing yet');

    const { moods } = fresh.provider;
    for (const secret of Object.values(SECRETS)) moods[secret] = 'hang';
    const hanging = fresh.ask({ stream: true });
    await until(async () => Boolean(fresh.provider.release), 'an answer to hang');
    fresh.provider.retryAfter = 60;
    for (const secret of Object.values(SECRETS)) moods[secret] = 429;
    await until(async () => (await fresh.ask()) === 503, 'all keys to rest');
    await says(page, '#lead', /^Nobody can be served/);
    await page.locator('#feed .row').first().waitFor();
    await isSound(page, 'all providers out');

    fresh.drain();
    await says(page, '#lead', 'Shutting down: new requests are turned away.');
    await says(page, '#tail', '1 answer still on the way.');
    await isSound(page, 'draining');
    fresh.provider.release();
    assert.equal(await hanging, 200);
    await fresh.end();
    await says(page, '#lead', /^No connection to the gateway since/);
    await isSound(page, 'connection lost');
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
    await lively.locator('#feed .row').first().waitFor();
    await gateway.ask();
    await until(async () => (await moving(lively)) > 0, 'the test sees motion where there is some');
    isFine(lively);
});

test('a page on which nothing happens draws nothing but its clocks', async (t) => {
    const page = await open(t, browser, gateway.admin, { plain: false });
    await page.locator('#feed .row').first().waitFor();
    await gateway.ask();
    const running = () => page.evaluate(() => document.getAnimations().filter(({ playState }) => playState === 'running').length);
    await until(async () => (await running()) > 0, 'the ground to move with a request');
    await until(async () => (await running()) === 0, 'the page to rest after it');
    const session = await page.context().newCDPSession(page);
    await session.send('Performance.enable');
    const drawn = async () => {
        const { metrics } = await session.send('Performance.getMetrics');
        return Object.fromEntries(metrics.map(({ name, value }) => [name, value]));
    };
    await page.evaluate(() => {
        const { requestAnimationFrame } = window;
        window.framesAsked = 0;
        window.requestAnimationFrame = (then) => {
            window.framesAsked += 1;
            return requestAnimationFrame.call(window, then);
        };
    });
    const before = await drawn();
    // Frames that are asked for in a second of sixty.
    await new Promise((resolve) => setTimeout(resolve, 2000));
    const after = await drawn();
    assert.equal(await page.evaluate(() => window.framesAsked), 0, 'no frame is asked for');
    assert.equal(await running(), 0, 'nothing moves');
    // The clocks tick once a second, the status is read every two: an animation would be sixty a second.
    const styles = after.RecalcStyleCount - before.RecalcStyleCount;
    const seconds = after.Timestamp - before.Timestamp;
    t.diagnostic(`${styles} recalculations of styles in ${seconds.toFixed(1)} s`);
    assert.ok(styles <= 6 * seconds, `${styles} recalculations of styles in ${seconds} s`);
    isFine(page);
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
    // Rows may stand there before the browser has written down its first paint.
    const paint = await page.evaluate(() => new Promise((painted) => {
        new PerformanceObserver((list) => {
            const [first] = list.getEntriesByName('first-contentful-paint');
            if (first) painted(first.startTime);
        }).observe({ type: 'paint', buffered: true });
    }));
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

test('a figure of the last minute alone shows at the end of its line', async (t) => {
    const page = await open(t, browser, gateway.admin);
    const [box, line] = await page.evaluate(async () => {
        const script = document.querySelector('script[type="module"]').src;
        const { sparkline } = await import(new URL('chart.js', script).href);
        const svg = document.createElementNS('http://www.w3.org/2000/svg', 'svg');
        sparkline(svg, [{ values: [null, null, null, 7], name: 'plain' }]);
        return [svg.getAttribute('viewBox'), svg.querySelector('.line').getAttribute('d')];
    });
    const width = Number(box.split(' ')[2]);
    const first = Number(line.match(/^M([\d.]+) /)[1]);
    assert.ok(first < width, `${line} begins within ${box}`);
});
