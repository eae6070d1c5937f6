// Two gateways that share a Redis: the page of one shows itself, the other, and both together.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import net from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, test } from 'node:test';

import { freePort } from '../clients/gateway.js';
import { isSound } from './axe.js';
import { isFine, open, says, startBrowser, until } from './browser.js';
import { startGateway } from './gateway.js';

let browser;
let dir;
let redis;
const gateways = [];
before(async () => {
    dir = await mkdtemp(path.join(tmpdir(), 'gatekeeper-dashboard-'));
    const port = await freePort();
    redis = spawn('redis-server', ['--port', String(port), '--bind', '127.0.0.1', '--dir', dir, '--appendonly', 'yes'], { stdio: 'ignore' });
    await once(redis, 'spawn');
    const answers = () => new Promise((resolve) => net.connect(port, '127.0.0.1').once('connect', function connected() { this.destroy(); resolve(true); }).once('error', () => resolve(false)));
    await until(answers, 'Redis to answer');
    const KEK = randomBytes(32).toString('base64');
    for (let n = 0; n < 2; n += 1) {
        const store = { kind: 'redis', url: `redis://127.0.0.1:${port}`, path: path.join(dir, `${n}.db`) };
        gateways.push(await startGateway({ store, vault: { kek: 'env:KEK' } }, { KEK }));
    }
    browser = await startBrowser();
});
after(async () => {
    await Promise.all([browser?.close(), ...gateways.map((gateway) => gateway.stop())]);
    redis?.kill();
    await rm(dir, { recursive: true, force: true });
});

test('this one, the other, and both together', async (t) => {
    const [one, other] = gateways;
    for (let n = 0; n < 2; n += 1) assert.equal(await one.ask(), 200);
    for (let n = 0; n < 3; n += 1) assert.equal(await other.ask(), 200);
    const page = await open(t, browser, one.admin);
    const rows = page.locator('#feed .row');
    const options = page.locator('#gateway option');
    await until(async () => (await options.count()) === 3 || (await options.count()), 'both gateways and all');
    await says(page, '#tail', /^2 answers /);
    await until(async () => (await rows.count()) === 2 || (await rows.count()), 'the requests of this one');

    await page.locator('#gateway').selectOption('all');
    await says(page, '#tail', /^5 answers /);
    await until(async () => (await rows.count()) === 5 || (await rows.count()), 'the requests of both');
    await other.ask();
    await says(page, '#tail', /^6 answers /);
    await until(async () => (await rows.count()) === 6 || (await rows.count()), 'the request at the other one');

    await page.locator('#gateway').selectOption({ index: 2 });
    await says(page, '#tail', /^4 answers /);
    await until(async () => (await rows.count()) === 4 || (await rows.count()), 'the requests of the other one');
    isFine(page);
});

test('without Redis it serves, and says so', async (t) => {
    const page = await open(t, browser, gateways[0].admin);
    await says(page, '#lead', 'main is serving; other is not asked yet.');
    redis.kill('SIGKILL');
    await says(page, '#lead', 'Serving without Redis.');
    assert.equal(await page.locator('#hero').getAttribute('data-tone'), 'waiting');
    await says(page, '#notes li', /^Redis does not answer\./);
    await isSound(page, 'Redis down');
    isFine(page);
});
