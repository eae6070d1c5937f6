// What an operator does: licences, configuration, login.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';

import { isFine, open, says, startBrowser, text, until } from './browser.js';
import { BUYER, LICENCE, MARKUP, configuration, startGateway } from './gateway.js';

const TOKEN = 'a-token-of-the-dashboard-tests-0123456789';

let browser;
let gateway;
before(async () => {
    gateway = await startGateway();
    browser = await startBrowser();
});
after(() => Promise.all([browser?.close(), gateway?.stop()]));

async function lookUp(page, key) {
    await page.locator('#licence-key').fill(key);
    await page.keyboard.press('Enter');
}

test('a licence is found, given more, reset, revoked and restored', async (t) => {
    const page = await open(t, browser, gateway.admin, { view: 'licences' });
    for (let n = 0; n < 3; n += 1) assert.equal(await gateway.ask({ licence: BUYER }), 200);
    assert.equal(await gateway.ask({ licence: BUYER }), 402);
    await lookUp(page, BUYER);
    await says(page, '#licence-status', 'Valid');
    await says(page, '#licence-plan', 'plan small');
    await says(page, '#limit-messages .used', '0 left of 3');
    assert.match(await text(page, '#licence-facts'), /Last seen(now|\d+ s) ago|Last seennow/);
    assert.equal(await page.locator('#licence-key').inputValue(), '', 'the key does not stay on the page');

    await page.locator('#grant-messages').fill('2');
    await page.locator('#grant-note').fill('sorry for <b>Tuesday</b>');
    await page.locator('#grant button').click();
    await says(page, '#licence-said', 'Granted.');
    await says(page, '#limit-messages .used', '2 left of 5');
    await says(page, '#actions .note', 'sorry for <b>Tuesday</b>');
    assert.equal(await gateway.ask({ licence: BUYER }), 200);

    await page.locator('#revoke').click();
    await says(page, '#sure-title', 'Revoke this licence?');
    await page.keyboard.press('Escape');
    assert.equal(await gateway.ask({ licence: BUYER }), 200, 'it was only asked');
    await page.locator('#revoke').click();
    await page.locator('#sure-yes').click();
    await says(page, '#licence-status', 'Revoked');
    assert.equal(await gateway.ask({ licence: BUYER }), 403);

    await page.locator('#restore').click();
    await says(page, '#licence-status', 'Valid');
    await page.locator('#reset').click();
    await page.locator('#sure-yes').click();
    await says(page, '#licence-said', 'What was used is forgiven.');
    assert.equal(await gateway.ask({ licence: BUYER }), 200);

    const urls = page.asked.map((request) => request.url()).join();
    assert.ok(!urls.includes(BUYER), 'a key stands in no address');
    const told = page.asked.filter((request) => request.postData()?.includes(BUYER));
    assert.deepEqual(told.map((request) => new URL(request.url()).pathname), ['/api/licenses/show'], 'a key is told once');
    assert.ok(!(await page.content()).includes(BUYER));
    isFine(page);
});

/** Holds up calls to `path` until `go()`; the orders that came. */
async function heldUp(page, path) {
    let go;
    const gone = new Promise((resolve) => (go = resolve));
    const orders = [];
    await page.route(`**${path}`, async (route) => {
        orders.push(route.request().postDataJSON());
        await gone;
        await route.continue();
    });
    return { orders, go };
}

test('a double click grants once, and so does a second try after an answer that was lost', async (t) => {
    const page = await open(t, browser, gateway.admin, { view: 'licences', mayFail: true });
    const used = async () => Number(/of (\d+)/.exec(await text(page, '#limit-messages .used'))[1]);
    await lookUp(page, BUYER);
    await says(page, '#licence-status', 'Valid');
    const before = await used();
    const grant = await heldUp(page, '/api/licenses/grant');
    await page.locator('#grant-messages').fill('2');
    await page.locator('#grant button').evaluate((button) => [button.click(), button.click()]);
    await page.locator('#grant').evaluate((form) => form.requestSubmit());
    await until(() => grant.orders.length > 0, 'the order to go');
    for (const id of ['grant button', 'reset', 'revoke']) assert.ok(await page.locator(`#${id}`).isDisabled(), `${id} waits`);
    grant.go();
    await says(page, '#licence-said', 'Granted.');
    assert.equal(grant.orders.length, 1);
    assert.equal(await used(), before + 2);
    await page.unroute('**/api/licenses/grant');

    // The gateway takes the order, and its answer is lost.
    const ids = [];
    await page.route('**/api/licenses/grant', async (route) => {
        ids.push(route.request().postDataJSON().id);
        if (ids.length > 1) return route.continue();
        await route.fetch();
        return route.abort();
    });
    await page.locator('#grant-messages').fill('3');
    for (const wanted of [/^The gateway does not answer\. Whether it was done is not known/, 'Granted.']) {
        await page.locator('#grant button').click();
        await says(page, '#licence-said', wanted);
    }
    assert.equal(await used(), before + 5);
    assert.equal(ids[0], ids[1]);
    // The same once more is another order, as it is after a look at what was done.
    await page.locator('#grant-messages').fill('3');
    await page.locator('#grant button').click();
    await until(async () => (await used()) === before + 8 || (await used()), 'three more');
    assert.notEqual(ids[2], ids[0]);
    isFine(page);
});

test('what was asked about one licence is not done to another', async (t) => {
    const page = await open(t, browser, gateway.admin, { view: 'licences' });
    await lookUp(page, BUYER);
    await says(page, '#licence-plan', 'plan small');
    const buyer = await text(page, '#licence-id');
    const show = await heldUp(page, '/api/licenses/show');
    await lookUp(page, LICENCE);
    await until(() => show.orders.length > 0, 'the other one to be looked up');
    for (const id of ['reset', 'revoke']) assert.ok(await page.locator(`#${id}`).isDisabled(), `${id} waits`);
    show.go();
    await says(page, '#licence-plan', 'plan pro');
    await lookUp(page, BUYER);
    await says(page, '#licence-plan', 'plan small');

    await page.locator('#revoke').click();
    await page.locator('#sure-yes').waitFor();
    // Nobody can do that behind the dialog; whatever comes in meanwhile, it is the buyer it asked about.
    await page.locator('#licence-key').evaluate((input, licence) => {
        input.value = licence;
        input.form.requestSubmit();
    }, LICENCE);
    await says(page, '#licence-plan', 'plan pro');
    await page.locator('#sure-yes').click();
    await says(page, '#licence-status', 'Revoked');
    assert.equal(await text(page, '#licence-id'), buyer);
    assert.equal(await gateway.ask(), 200, 'the other one is as it was');
    await page.locator('#restore').click();
    await says(page, '#licence-status', 'Valid');
    isFine(page);
});

test('the lists of licences: most used, seen last, refused; a filter, and a row that opens the licence', async (t) => {
    const page = await open(t, browser, gateway.admin, { view: 'licences', mayFail: true });
    await gateway.ask();
    await gateway.ask({ licence: BUYER, model: MARKUP });
    await gateway.ask({ licence: 'NOBODY-KNOWS-THIS-0000' });
    const rows = page.locator('#top li');
    const reopened = async () => {
        await page.locator('nav a[href="#live"]').click();
        await page.locator('nav a[href="#licences"]').click();
    };
    // The days are written every now and then.
    await until(async () => (await reopened(), (await rows.count()) >= 2), 'both licences to be listed');
    await says(page, '#top-count', 'this month: 2 licences');
    await page.locator('#top-kinds [value=seen]').click();
    await says(page, '#top li:first-child .last', /^seen (now|\d+ s) ago$/);
    await page.locator('#top-kinds [value=refused]').click();
    await says(page, '#top-count', /^since the start of this gateway: \d+ licences?; \d+ requests? with keys that no source knows$/);
    await says(page, '#top li:first-child .used', 'model not in the plan');
    await says(page, '#top li:first-child .plan', 'small');
    const all = await rows.count();
    await page.locator('#top-filter').fill('MODEL NOT');
    await until(async () => (await rows.count()) <= all, 'the filter to act');
    await says(page, '#top li:first-child .used', 'model not in the plan');
    await page.locator('#top-filter').fill('no such thing');
    await says(page, '#top-none', 'None of these fits the filter.');
    await page.locator('#top-filter').fill('');
    await page.locator('#top .request').first().click();
    await says(page, '#licence-plan', 'plan small');
    isFine(page);
});

test('a key that nobody knows', async (t) => {
    const page = await open(t, browser, gateway.admin, { view: 'licences', mayFail: true });
    await lookUp(page, 'NOBODY-KNOWS-THIS-0000');
    await says(page, '#licence-said', /^No source knows this licence key/);
    assert.ok(!(await page.locator('#licence').isVisible()));
    isFine(page);
});

test('a file that was refused: every problem with its line, and the chain that is live', async (t) => {
    const page = await open(t, browser, gateway.admin, { view: 'config' });
    await says(page, '#config-source', gateway.file);
    assert.deepEqual(await page.locator('#chain .name').allTextContents(), ['license', 'rate_limit', 'route', 'quota', 'meter']);
    assert.ok((await page.locator('#chain .summary').first().textContent()).length > 5);
    assert.ok(!(await page.locator('#refused').isVisible()));
    assert.match(await text(page, '#live-plans li:nth-child(2)'), /3 messages a month · 100,000 tokens a month/);

    const sound = configuration(gateway.provider);
    await gateway.write({ ...sound, [MARKUP]: 1, plans: { ...sound.plans, pro: { models: ['slow'] } } });
    await page.locator('#refused-problems li').first().waitFor();
    const problems = await page.locator('#refused-problems li').allTextContents();
    assert.ok(problems.length >= 2, problems.join());
    assert.ok(problems.every((problem) => /^line \d+, column \d+/.test(problem)), problems.join());
    assert.ok(problems.some((problem) => problem.includes(MARKUP)), problems.join());
    assert.equal(await page.locator('img').count(), 0);
    await says(page, '#notes li', /^The last save of the configuration is not live: \d+ problems/);

    await gateway.write(sound);
    await until(async () => !(await page.locator('#refused').isVisible()), 'the problems to be gone');
    isFine(page);
});

test('the file is checked and read again at the press of a button', async (t) => {
    const page = await open(t, browser, gateway.admin, { view: 'config' });
    const orders = [];
    let told = { ok: true, live: false, changes: [`plans.pro: ${MARKUP}`], waits_for_restart: ['server.listen'], warnings: ['7:3: plans.pro: no limit'], problems: [] };
    await page.route('**/api/reload', async (route) => {
        orders.push(route.request().postDataJSON());
        await route.fulfill({ json: told });
    });
    await page.locator('#check').click();
    await says(page, '#reload-said', 'The file is sound. It would change:');
    assert.deepEqual(await page.locator('#reload-changes li').allTextContents(), [`plans.pro: ${MARKUP}`, 'server.listen: after a restart']);
    await says(page, '#reload-warnings li', /^line 7, column 3\s*plans\.pro: no limit$/);
    told = { ok: false, live: false, changes: [], waits_for_restart: [], warnings: [], problems: ['41:12: plans.pro.messages: wrong'] };
    await page.locator('#reload').click();
    await says(page, '#reload-said', '1 problem: the file is refused, the one before stays live.');
    await says(page, '#reload-problems li', /^line 41, column 12\s*plans\.pro\.messages: wrong$/);
    assert.deepEqual(orders, [{ dry_run: true }, { dry_run: false }]);
    isFine(page);
});

test('with a token: the form, a wrong one, the right one, and out again', async (t) => {
    const guarded = await startGateway({ admin: { token: 'env:ADMIN_TOKEN' } }, { ADMIN_TOKEN: TOKEN });
    t.after(() => guarded.stop());
    const page = await open(t, browser, guarded.admin, { mayFail: true });
    await page.locator('#token').waitFor();
    assert.ok(!(await page.locator('#view-live').isVisible()));
    await page.locator('#token').fill('wrong');
    await page.keyboard.press('Enter');
    await says(page, '#login-said', 'This is not the token.');
    await page.locator('#token').fill(TOKEN);
    await page.keyboard.press('Enter');
    await says(page, '#lead', 'Both providers are ready, not asked yet.');
    await guarded.ask();
    await page.locator('#feed .row').waitFor();

    const stored = await page.evaluate(() => JSON.stringify([document.cookie, { ...localStorage }, { ...sessionStorage }]));
    assert.ok(!stored.includes(TOKEN) && !stored.includes('gatekeeper_session'), 'scripts see neither token nor cookie');
    assert.ok(!page.asked.some((request) => request.url().includes(TOKEN)));

    await page.reload();
    await says(page, '#lead', 'main is serving; other is not asked yet.');
    await page.locator('#log-out').click();
    await page.locator('#token').waitFor();
    assert.equal(await page.locator('#feed .row').count(), 0, 'nothing stays on the page');

    for (let n = 0; n < 12 && !/^Too many/.test(await text(page, '#login-said')); n += 1) {
        await page.locator('#token').fill(`wrong ${n}`);
        const answered = page.waitForResponse((response) => response.url().endsWith('/api/session'));
        await page.keyboard.press('Enter');
        await answered;
        await page.waitForTimeout(50);
    }
    await says(page, '#login-said', /^Too many wrong ones\. Again in \d+ seconds?\.$/);
    assert.ok(await page.locator('#log-in-now').isDisabled());
    isFine(page);
});
