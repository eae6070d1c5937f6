// The live view under real traffic.
import assert from 'node:assert/strict';
import { after, before, beforeEach, test } from 'node:test';

import { isFine, open, says, startBrowser, text, until } from './browser.js';
import { BUYER, MARKUP, startGateway } from './gateway.js';
import { USAGE } from './provider.js';

let browser;
let gateway;
before(async () => {
    gateway = await startGateway();
    browser = await startBrowser();
});
after(() => Promise.all([browser?.close(), gateway?.stop()]));

beforeEach(() => {
    gateway.provider.moods = Object.assign(gateway.provider.moods, { 'sk-first': null, 'sk-second': null, 'sk-third': null, 'sk-other': null });
});

const key = (page, id) => page.locator('.key', { has: page.locator('.id', { hasText: new RegExp(`^${id}$`) }) });
const rows = (page) => page.locator('#feed .row');

test('nothing yet: the page says how to begin', async (t) => {
    const page = await open(t, browser, gateway.admin);
    await says(page, '#lead', 'Both providers are ready, not asked yet.');
    await says(page, '#tail', 'Ready for the first request.');
    assert.ok(await page.locator('#first').isVisible());
    assert.match(await text(page, '#curl'), /^curl -N http:\/\/127\.0\.0\.1:\d+\/v1\/chat\/completions/);
    assert.ok((await text(page, '#curl')).includes(gateway.url), 'the line goes to this gateway');
    assert.equal(await rows(page).count(), 0);

    assert.equal(await gateway.ask(), 200);
    await until(async () => (await rows(page).count()) === 1, 'the first request on the page');
    assert.ok(!(await page.locator('#first').isVisible()));
    isFine(page);
});

test('the feed moves under traffic, and its figures are those of /metrics and of the provider', async (t) => {
    const page = await open(t, browser, gateway.admin);
    await page.locator('#feed .row').first().waitFor();
    const shown = await rows(page).count();
    for (let n = 0; n < 6; n += 1) assert.equal(await gateway.ask({ stream: n % 2 === 0 }), 200);
    assert.equal(await gateway.ask({ licence: 'NOBODY-KNOWS-0000' }), 403);
    await until(async () => (await rows(page).count()) === shown + 7 || (await rows(page).count()), 'seven more rows');
    await says(page, '#feed .row .outcome', 'refused 403');
    await says(page, '#feed .row:nth-child(2) .models', 'fast → small main');
    await says(page, '#feed .row:nth-child(2) .plan', 'pro');

    const counted = await gateway.counted();
    assert.equal(gateway.provider.answered, counted[200]);
    const { origin } = new URL(page.url());
    const { total, success } = await (await fetch(`${origin}/status`)).json();
    assert.equal(success, counted[200]);
    assert.equal(total, counted[200] + counted[403]);
    await says(page, '#tail', new RegExp(`^${counted[200]} answers (today|since \\d\\d:\\d\\d), 100 % whole\\. ${counted[403]} refused\\.$`));
    await says(page, '#success', '100');
    await says(page, '#rate', String(total));
    await says(page, '#codes .name', 'licence key not known');
    await says(page, '#models .amount', `${counted[200]} requests`);
    const cost = (counted[200] * (USAGE.prompt_tokens * 50 + USAGE.completion_tokens * 150)) / 1e6;
    await says(page, '#cost', `$${cost.toFixed(4)}`);
    await says(page, '#active-1d', '1');

    // The chart has no figures of its own either; it is asked for every 15 s.
    await page.reload();
    await says(page, '#day-readout', new RegExp(`^24 hours: ${counted[200]} whole, 0 failed, ${counted[403]} refused`));
    await page.locator('#day').focus();
    await page.keyboard.press('End');
    await says(page, '#day-readout', /^\d\d:\d\d to \d\d:\d\d: /);
    isFine(page);
});

test('a row opens into its attempts, and the feed is held meanwhile', async (t) => {
    const page = await open(t, browser, gateway.admin);
    await rows(page).first().waitFor();
    gateway.provider.moods['sk-first'] = 500;
    gateway.provider.moods['sk-second'] = 500;
    gateway.provider.moods['sk-third'] = 500;
    assert.equal(await gateway.ask(), 200);
    await says(page, '#feed .row .models', 'fast → small other');
    const ticks = await page.locator('#feed .row').first().locator('.ticks i').evaluateAll((all) => all.map((one) => one.className));
    assert.equal(ticks.at(-1), 'served');
    assert.ok(ticks.length >= 2 && ticks.slice(0, -1).every((tick) => tick === 'failed'), ticks.join());

    const button = rows(page).first().locator('.request');
    await button.focus();
    await page.keyboard.press('Enter');
    const attempts = page.locator('#feed .row').first().locator('.attempts li');
    await attempts.first().waitFor();
    assert.equal(await attempts.count(), ticks.length);
    assert.match(await attempts.first().textContent(), /^1\. (first|second|third) mainprovider error/);
    assert.match(await attempts.last().textContent(), /spare otheranswered/);
    assert.equal(await button.getAttribute('aria-expanded'), 'true');

    const shown = await rows(page).count();
    gateway.provider.moods['sk-first'] = gateway.provider.moods['sk-second'] = gateway.provider.moods['sk-third'] = null;
    await gateway.ask();
    await says(page, '#held', 'Held while a row is open, 1 new');
    assert.equal(await rows(page).count(), shown);
    await page.keyboard.press('Enter');
    await until(async () => (await rows(page).count()) === shown + 1, 'the feed to go on');

    // Without a mouse: arrows go from row to row, Escape closes one; and the id that an app shows finds its request.
    const focused = () => page.evaluate(() => [...document.querySelectorAll('#feed .request')].indexOf(document.activeElement));
    for (const [key, row] of [['Home', 0], ['ArrowUp', 0], ['ArrowDown', 1], ['End', shown], ['ArrowDown', shown], ['Home', 0]]) {
        await page.keyboard.press(key);
        assert.equal(await focused(), row, key);
    }
    await page.keyboard.press('Enter');
    const id = /req_[0-9a-f]{16}/.exec(await text(page, '#feed .row .detail'))[0];
    await page.keyboard.press('Escape');
    assert.equal(await page.locator('#feed .detail:visible').count(), 0);
    assert.equal(await focused(), 0);
    await page.locator('#find').fill(id);
    await until(async () => (await rows(page).count()) === 1 || (await rows(page).count()), 'the one with this id');
    await page.locator('#find').fill('');

    await page.locator('#outcomes button[value="rescued"]').click();
    await until(async () => (await rows(page).count()) === 1 || (await rows(page).count()), 'the rescued one alone');
    isFine(page);
});

test('pause, and filters by outcome and plan', async (t) => {
    const page = await open(t, browser, gateway.admin);
    await rows(page).first().waitFor();
    for (let n = 0; n < 4; n += 1) await gateway.ask({ licence: BUYER });
    // Told by another thread than the three before it, it may come before the last of them.
    const said = () => page.locator('#feed .row .outcome').allTextContents();
    await until(async () => (await said()).some((word) => word.replaceAll('\u202f', ' ').trim() === 'refused 402') || said(), 'a row to say refused 402');
    await until(async () => (await rows(page).filter({ has: page.locator('.outcome', { hasText: 'whole' }) }).count()) >= 3, 'the three before it');
    const all = await rows(page).count();

    await page.locator('#outcomes button[value="refused"]').click();
    assert.ok((await rows(page).evaluateAll((found) => found.map((row) => row.querySelector('.outcome').textContent))).every((word) => word.startsWith('refused')));
    await page.locator('#plan').selectOption('small');
    assert.equal(await rows(page).count(), 1);
    await page.locator('#outcomes button[value="whole"]').click();
    assert.equal(await rows(page).count(), 3);
    await page.locator('#outcomes button[value="failed"]').click();
    await page.locator('#feed-none').waitFor();
    await page.locator('#outcomes button[value="all"]').click();
    await page.locator('#plan').selectOption('');
    assert.equal(await rows(page).count(), all);

    await page.locator('#pause').click();
    await gateway.ask();
    await says(page, '#held', 'Held, 1 new');
    assert.equal(await rows(page).count(), all);
    await page.locator('#pause').click();
    await until(async () => (await rows(page).count()) === all + 1, 'the row that came meanwhile');
    isFine(page);
});

test('a key is paused, resumed and probed, and the gateway does so', async (t) => {
    const page = await open(t, browser, gateway.admin);
    const { asked, moods } = gateway.provider;
    for (const id of ['first', 'second']) {
        await key(page, id).locator('.pause').click();
        await until(async () => (await key(page, id).locator('.state').textContent()) === 'off', `${id} to be off`);
    }
    await says(page, '#keys-ready', '2 of 4 ready, 2 off');
    const before = asked.length;
    for (let n = 0; n < 6; n += 1) assert.equal(await gateway.ask(), 200);
    assert.deepEqual([...new Set(asked.slice(before))], ['sk-third']);

    await key(page, 'third').locator('.pause').click();
    await says(page, '#lead', 'main has all its keys switched off; other is serving.');
    assert.equal(await page.locator('#hero').getAttribute('data-tone'), 'waiting');
    await gateway.ask();
    assert.equal(asked.at(-1), 'sk-other');

    for (const id of ['first', 'second', 'third']) {
        await key(page, id).locator('.resume').click();
        await until(async () => (await key(page, id).locator('.state').textContent()) === 'ready', `${id} to be ready`);
    }
    await says(page, '#lead', /serving\.$|last 5 minutes\.$/);

    await key(page, 'first').locator('.probe').click();
    await until(async () => (await key(page, 'first').locator('.said').textContent()) === 'The provider takes this key.', 'what the probe found');
    moods['sk-first'] = 401;
    await key(page, 'first').locator('.probe').click();
    await until(async () => (await key(page, 'first').locator('.said').textContent()) === 'The provider refuses this key.', 'what the probe found');
    await until(async () => {
        await gateway.ask();
        return (await key(page, 'first').locator('.state').textContent()) === 'set aside: key rejected';
    }, 'the key to be set aside');
    assert.match(await key(page, 'first').locator('.left').textContent(), /^next try in /);
    moods['sk-first'] = null;
    await key(page, 'first').locator('.probe').click();
    await until(async () => (await key(page, 'first').locator('.state').textContent()) === 'ready', 'the key to be ready');
    isFine(page);
});

test('nobody can be served: it says so, why, and for how long', async (t) => {
    const page = await open(t, browser, gateway.admin);
    for (const secret of ['sk-first', 'sk-second', 'sk-third', 'sk-other']) gateway.provider.moods[secret] = 429;
    assert.equal(await gateway.ask(), 503);
    await says(page, '#lead', 'Nobody can be served: both providers are out.');
    assert.equal(await page.locator('#hero').getAttribute('data-tone'), 'failed');
    await says(page, '#notes li', /^main is rate-limited for \d+ s\.$/);
    await says(page, '#tail', /^The next key is tried in \d+ s\.$/);
    assert.match(await key(page, 'first').locator('.state').textContent(), /^cooling: rate-limited$/);
    const left = async () => Number.parseInt(await key(page, 'first').locator('.left').textContent());
    const first = await left();
    await until(async () => (await left()) < first, 'the countdown');
    for (const [provider, id] of [['main', 'first'], ['main', 'second'], ['main', 'third'], ['other', 'spare']]) {
        const body = JSON.stringify({ provider, key: id });
        await fetch(`${gateway.admin}/api/keys/resume`, { method: 'POST', headers: { 'content-type': 'application/json' }, body });
    }
    await says(page, '#lead', /serving\.$|last 5 minutes\.$/);
    isFine(page);
});

test('markup in the name of a model is text', async (t) => {
    const page = await open(t, browser, gateway.admin);
    await gateway.ask({ model: MARKUP });
    await gateway.ask({ model: '<script>document.title=1</script>' });
    await until(async () => (await page.locator('#feed .asked').allTextContents()).includes(MARKUP), 'the model');
    await until(async () => (await page.locator('#models .name').allTextContents()).includes(MARKUP), 'the model of the day');
    await rows(page).nth(1).locator('.request').click();
    assert.equal(await page.locator('img, main script').count(), 0);
    assert.match(await page.title(), /Gatekeeper$/);
    isFine(page);
});

test('whatever a gateway says is text, in every place', async (t) => {
    const page = await open(t, browser, 'about:blank', { at: gateway.admin });
    const times = /^(time|since|now|at|boot|listen)$/;
    const spoil = (value, name) => {
        if (typeof value === 'string') return times.test(name) ? value : `${value}${MARKUP}<script>document.title=1</script>`;
        if (Array.isArray(value)) return value.map((one) => spoil(one, name));
        if (value === null || typeof value !== 'object') return value;
        return Object.fromEntries(Object.entries(value).map(([member, one]) => [member, spoil(one, member)]));
    };
    let spoilt = 0;
    await page.route('**/status', async (route) => {
        const response = await route.fetch();
        const status = await response.json();
        status.config.refused = { at: status.now, problems: ['1:2: somewhere: wrong'] };
        status.config.waits_for_restart = ['server.listen'];
        status.sources.push({ name: 'shop', state: 'down', why: 'timeout' });
        spoilt += 1;
        await route.fulfill({ response, json: spoil(status) });
    });
    await page.goto(`${gateway.admin}/`);
    for (const view of ['live', 'licences', 'config']) {
        await page.locator(`nav a[href="#${view}"]`).click();
        await until(async () => (await page.locator(`#view-${view}`).innerText()).includes(view === 'licences' ? 'licence' : '<script>') , `markup to be read in ${view}`);
        assert.equal(await page.locator('img, main script').count(), 0);
    }
    await page.locator('nav a[href="#live"]').click();
    await rows(page).first().locator('.request').click();
    await page.locator('.detail:visible').waitFor();
    assert.equal(await page.locator('img, main script').count(), 0);
    assert.match(await page.title(), /Gatekeeper$/);
    assert.ok(spoilt > 0);
    isFine(page);
});

test('it drains, the connection is lost, and it comes back with an empty feed', async (t) => {
    const page = await open(t, browser, gateway.admin, { mayFail: true });
    await rows(page).first().waitFor();
    for (const secret of ['sk-first', 'sk-second', 'sk-third']) gateway.provider.moods[secret] = 'hang';
    const hanging = gateway.ask({ stream: true });
    await says(page, '#rate-sub', '1 request open now');
    const ended = gateway.end();
    await says(page, '#lead', 'Shutting down: new requests are turned away.');
    await says(page, '#tail', '1 answer still on the way.');
    gateway.provider.release();
    await Promise.all([hanging, ended]);
    await says(page, '#lead', /^No connection to the gateway since \d\d:\d\d\.$/);
    await until(async () => Number(await page.locator('#view-live').evaluate((view) => getComputedStyle(view).opacity)) < 0.6, 'the view to dim');
    assert.ok(await page.locator('#retry').isVisible());
    const asked = page.asked.length;
    await gateway.start();
    await page.evaluate(() => document.getElementById('retry').click()); // it may be back by itself already
    await says(page, '#lead', 'Both providers are ready, not asked yet.');
    await until(async () => (await rows(page).count()) === 0, 'the feed of the last boot to be gone');
    assert.ok(await page.locator('#first').isVisible());
    assert.ok(page.asked.length - asked < 20, 'it did not hammer');
    for (const secret of ['sk-first', 'sk-second', 'sk-third']) gateway.provider.moods[secret] = null;
    await gateway.ask();
    await until(async () => (await rows(page).count()) === 1, 'the feed to go on');
    isFine(page);
});

test('nothing is asked for while nobody looks', async (t) => {
    const page = await open(t, browser, gateway.admin);
    await rows(page).first().waitFor();
    // Chromium without a screen takes every page for visible.
    await page.evaluate(() => {
        Object.defineProperty(document, 'hidden', { get: () => window.isHidden ?? false });
        window.isHidden = true;
        document.dispatchEvent(new Event('visibilitychange'));
    });
    const before = page.asked.length;
    const shown = await rows(page).count();
    await gateway.ask();
    await page.waitForTimeout(2600); // longer than the pace of /status
    assert.equal(page.asked.length, before);
    assert.equal(await rows(page).count(), shown);
    await page.evaluate(() => {
        window.isHidden = false;
        document.dispatchEvent(new Event('visibilitychange'));
    });
    await until(async () => (await rows(page).count()) === shown + 1, 'what came meanwhile');
    isFine(page);
});
