// The headline tells what buyers get now: healthy, all four keys fail, good again, read each second.
import assert from 'node:assert/strict';
import { test } from 'node:test';

import { isFine, open, startBrowser, text, until } from './browser.js';
import { startGateway } from './gateway.js';

const FAILS = { 'sk-first': 429, 'sk-second': 429, 'sk-third': 500, 'sk-other': 500 };
const seconds = Number(process.env.GATEKEEPER_HEADLINE_SECONDS ?? 4);

test('it is true within two seconds of the answers', async (t) => {
    const gateway = await startGateway();
    const browser = await startBrowser();
    let timer;
    t.after(() => {
        clearInterval(timer);
        return Promise.all([browser.close(), gateway.stop()]);
    });
    const { provider } = gateway;
    provider.retryAfter = 2;
    const page = await open(t, browser, gateway.admin);

    // Ten requests a second; what came of each, and when.
    const ended = [];
    timer = setInterval(() => gateway.ask().then((status) => ended.push({ status, at: Date.now() }), () => {}), 100);
    const firstAfter = (since, isIt) => ended.find(({ status, at }) => at >= since && isIt(status));
    const said = async () => ({
        tone: await page.locator('#hero').getAttribute('data-tone'),
        lead: await text(page, '#lead'),
        tail: await text(page, '#tail'),
        at: Date.now(),
    });
    /** The sentence each second for a while. */
    const read = async (times) => {
        const all = [];
        for (let n = 0; n < times; n += 1) {
            await page.waitForTimeout(1000);
            all.push(await said());
        }
        return all;
    };
    const shown = async (isIt, what) => {
        let now;
        await until(async () => isIt((now = await said())) || now, what);
        return now.at;
    };

    await until(async () => ended.length >= 10 || ended.length, 'ten answers');
    for (const { tone, lead } of await read(seconds)) {
        assert.equal(tone, 'served', lead);
        assert.match(lead, /serving/);
    }

    const broke = Date.now();
    Object.assign(provider.moods, FAILS);
    const isRed = ({ tone, lead }) => tone === 'failed' && /^(None of the last|Nobody can be served)/.test(lead);
    const red = await shown(isRed, 'the headline to be red');
    const failed = firstAfter(broke, (status) => status >= 500);
    assert.ok(red - failed.at < 2000, `red ${red - failed.at} ms after the first failure`);
    for (const one of await read(seconds)) assert.ok(isRed(one), `${one.tone}: ${one.lead}`);

    const mended = Date.now();
    for (const secret of Object.keys(FAILS)) provider.moods[secret] = null;
    // Keys that rest, and circuits that are open, take their time: the page does not.
    const isBack = ({ tone, tail }) => tone !== 'failed' && /^Serving again since \d\d:\d\d:\d\d; [\d,]+ failed before\./.test(tail);
    const isServing = ({ tone, lead }) => tone !== 'failed' && /serving|being tried again/.test(lead);
    await until(async () => Boolean(firstAfter(mended, (status) => status === 200)) || 'no answer', 'the first good answer');
    const good = firstAfter(mended, (status) => status === 200).at;
    const back = await shown(isServing, 'the headline to serve');
    assert.ok(back - good < 2000, `serving ${back - good} ms after the first good answer`);
    await shown(isBack, 'since when it serves again');
    for (const one of await read(seconds)) assert.ok(isServing(one), `${one.tone}: ${one.lead}`);
    isFine(page);
});

test('a host without an address is never said to serve', async (t) => {
    const gateway = await startGateway((provider) => ({
        providers: {
            main: { base_url: provider.baseUrl, keys: [{ id: 'first', secret: 'env:FIRST' }] },
            other: { base_url: 'https://no-such-host.invalid/v1', keys: [{ id: 'spare', secret: 'env:OTHER' }] },
        },
    }));
    const browser = await startBrowser();
    t.after(() => Promise.all([browser.close(), gateway.stop()]));
    const page = await open(t, browser, gateway.admin);
    await until(async () => /^other has no address/.test(await text(page, '#lead')) || text(page, '#lead'), 'the headline to tell');
    assert.equal(await page.locator('#hero').getAttribute('data-tone'), 'waiting');
    assert.equal(await text(page, '.provider:nth-child(2) h3 .state'), 'no address');
    isFine(page);
});
