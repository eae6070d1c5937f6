// examples/electron/main.js: the main process itself, with a stand-in for Electron and the real `openai` package.
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdtemp, readFile, rm, stat } from 'node:fs/promises';
import { register } from 'node:module';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';

import { did, handlers, ipcMain, app, Page, user, windows } from './electron-stub.js';
import { runGateway } from './gateway.js';
import { MASTER_KEY, startProvider } from './provider.js';
import { SECRETS, selling, startStripe } from './stripe.js';

async function until(holds) {
    for (let tries = 0; !holds(); tries += 1) {
        assert.ok(tries < 2000, `still waiting for ${holds}`);
        await sleep(10);
    }
}

let provider, stripe, gateway;
before(async () => {
    [provider, stripe] = [await startProvider(), await startStripe()];
    const { vault, source } = selling(stripe, { price_pro: 'pro' });
    const config = {
        vault,
        licenses: { sources: [source] },
        plans: { pro: { messages: '10/month', models: ['answer', 'endless'], max_input_tokens: 8000 } },
        providers: { main: { base_url: provider.baseUrl, keys: [{ id: 'one', secret: 'env:MOCK_PROVIDER_KEY' }] } },
        models: { answer: ['main/answer'], endless: ['main/endless'] },
    };
    gateway = await runGateway(config, { ...SECRETS, MOCK_PROVIDER_KEY: MASTER_KEY });
    process.env.GATEKEEPER_URL = gateway.url;
    user.folder = await mkdtemp(path.join(tmpdir(), 'electron-main-'));
    register('./electron-hooks.js', import.meta.url);
    await import('../../examples/electron/main.js');
    await until(() => windows[0]?.file);
});
after(async () => {
    provider?.stop();
    stripe?.stop();
    await gateway?.stop();
    if (user.folder) await rm(user.folder, { recursive: true, force: true });
});

const page = new Page();
const ask = (channel, ...args) => handlers.get(channel)({ sender: page }, ...args);
const file = () => path.join(user.folder, 'licence');

/** A purchase: its key, and the link of its page. */
async function bought(name) {
    const session = stripe.sell(name);
    const first = await fetch(`${gateway.url}/claim?session_id=${session}`, { redirect: 'manual' });
    const cookie = first.headers.get('set-cookie').split(';')[0];
    const text = await (await fetch(`${gateway.url}/claim`, { headers: { cookie } })).text();
    const link = /href="(jstar:[^"]+)"/.exec(text)[1].replaceAll('&amp;', '&');
    return { key: /JSTAR(-[0-9A-Z]{5}){4}/.exec(text)[0], link };
}

const messages = [{ role: 'user', content: 'Hi' }];

test('the window is no more than a page with a preload', () => {
    const { webPreferences } = windows[0].options;
    assert.deepEqual(Object.keys(webPreferences), ['preload']);
    assert.match(windows[0].file, /index\.html$/);
    assert.deepEqual(did.schemes, ['jstar']);
});

test('the key is kept encrypted, and the page sees the account and the text only', async () => {
    const { key } = await bought('electronmain1');
    const wrong = await ask('login', 'JSTAR-00000-00000-00000-00001');
    assert.equal(wrong.refused.action, 'enter-key');
    const { ok } = await ask('login', ` ${key}\n`);
    assert.equal(ok.plan, 'pro');
    const kept = await readFile(file());
    assert.ok(!kept.includes(key));
    assert.equal((await stat(file())).mode & 0o777, 0o600);
    const answered = await ask('chat', { model: 'answer', messages, messageId: 'm-1' });
    assert.deepEqual(Object.keys(answered), ['ok']);
    assert.ok(did.sent.some(([channel, id, text]) => channel === 'text' && id === 'm-1' && text.length > 0));
    assert.equal((await ask('account')).ok.limits.messages.left, 9);
    assert.ok(!JSON.stringify([did.sent, ok, wrong]).includes(key));
    assert.equal((await ask('chat', { model: 'none', messages, messageId: 'm-2' })).refused.message.length > 10, true);
});

test('an answer ends when the page says stop, and when the window is closed', async () => {
    for (const leave of [() => ipcMain.emit('stop', {}, 'm-3'), () => page.emit('destroyed')]) {
        const chat = ask('chat', { model: 'endless', messages, messageId: 'm-3' });
        await once(page, 'sent');
        leave();
        assert.deepEqual(Object.keys(await chat), ['ok']);
        assert.equal(page.listenerCount('destroyed'), 0);
    }
});

test('a link of any page changes nothing unless the user says so', async () => {
    const [stranger, before] = [await bought('electronmain2'), await readFile(file())];
    const linked = () => did.sent.filter(([channel]) => channel === 'linked').map(([, said]) => said);
    user.button = 0;
    app.emit('second-instance', {}, ['app', '--flag', stranger.link]);
    await until(() => did.asked.length === 1);
    assert.equal(did.asked[0].cancelId, did.asked[0].defaultId, 'a stray key press is a no');
    assert.ok(!JSON.stringify(did.asked).includes(stranger.key));
    // Its code is spent; whatever happens next says so, and the user was asked once.
    let prevented = false;
    app.emit('open-url', { preventDefault: () => (prevented = true) }, stranger.link);
    await until(() => linked().length === 1);
    assert.ok(prevented);
    assert.match(linked()[0].refused.message, /used already/);
    assert.deepEqual([did.asked.length, await readFile(file())], [1, before]);
    user.button = 1;
    const { link, key } = await bought('electronmain3');
    app.emit('second-instance', {}, ['app', link]);
    await until(() => linked().length === 2);
    assert.equal(linked()[1].ok.plan, 'pro');
    assert.notDeepEqual(await readFile(file()), before);
    assert.ok(!JSON.stringify(did.sent).includes(key));
});

test('only https leaves the app, and logging out forgets the key', async () => {
    for (const link of ['file:///etc/passwd', 'javascript:alert(1)', 'jstar://license', 'http://example.com', null]) {
        ipcMain.emit('open', {}, link);
    }
    ipcMain.emit('open', {}, 'https://example.com/buy');
    assert.deepEqual(did.opened, ['https://example.com/buy']);
    assert.deepEqual(await ask('logout'), { ok: undefined });
    await assert.rejects(stat(file()), { code: 'ENOENT' });
    assert.equal((await ask('account')).refused.action, 'enter-key');
});
