// examples/electron: "open in the app" on the page with the key logs the app in.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';

import OpenAI from 'openai';

import { explain, Gatekeeper } from '../../examples/electron/gatekeeper.js';
import { runGateway } from './gateway.js';
import { MASTER_KEY, startProvider } from './provider.js';
import { SECRETS, selling, startStripe } from './stripe.js';

let provider, stripe, gateway;
before(async () => {
    [provider, stripe] = [await startProvider(), await startStripe()];
    const { vault, source } = selling(stripe, { price_pro: 'pro', price_devices: 'devices' });
    const config = {
        vault,
        licenses: { sources: [source] },
        plans: {
            pro: { messages: '10/month', models: ['answer'], max_input_tokens: 8000 },
            devices: { messages: '10/month', models: ['answer'], max_input_tokens: 8000, devices: 'required', max_devices: 1 },
        },
        providers: { main: { base_url: provider.baseUrl, keys: [{ id: 'one', secret: 'env:MOCK_PROVIDER_KEY' }] } },
        models: { answer: ['main/answer'] },
    };
    gateway = await runGateway(config, { ...SECRETS, MOCK_PROVIDER_KEY: MASTER_KEY });
});
after(async () => {
    provider?.stop();
    stripe?.stop();
    await gateway?.stop();
});

function app() {
    const store = { kept: null, load: () => store.kept, save: (now) => (store.kept = now) };
    return { store, gate: new Gatekeeper({ OpenAI, url: gateway.url, store, retries: 0 }) };
}

/** What the buyer's browser shows: the key and the link. */
async function claim(session) {
    const first = await fetch(`${gateway.url}/claim?session_id=${session}`, { redirect: 'manual' });
    assert.equal(first.status, 303);
    const cookie = first.headers.get('set-cookie').split(';')[0];
    const page = await (await fetch(`${gateway.url}/claim`, { headers: { cookie } })).text();
    const link = /href="(jstar:[^"]+)"/.exec(page)[1].replaceAll('&amp;', '&');
    return { key: /JSTAR(-[0-9A-Z]{5}){4}/.exec(page)[0], link };
}

const refused = (work) => work.then(() => assert.fail('this should have been refused'), explain);

test('the link of the page logs the app in, once', async () => {
    const { key, link } = await claim(stripe.sell('electron001'));
    const { gate, store } = app();
    const account = await gate.loginByLink(link);
    assert.equal(account.plan, 'pro');
    assert.equal(account.limits.messages.left, 10);
    assert.deepEqual(store.kept, { key });
    let text = '';
    for await (const part of gate.chat({ model: 'answer', messages: [{ role: 'user', content: 'Hi' }] })) text += part;
    assert.ok(text.length > 0);
    const other = app();
    const { message, action } = await refused(other.gate.loginByLink(link));
    assert.match(message, /used already/);
    assert.equal(action, 'enter-key');
    assert.equal(other.store.kept, null);
});

test('a plan that counts devices has this one activated by the link', async () => {
    const { key, link } = await claim(stripe.sell('electron002', 'price_devices'));
    const { gate, store } = app();
    const account = await gate.loginByLink(link, 'MAREN-LAPTOP');
    assert.deepEqual(account.devices, { used: 1, max: 1 });
    assert.equal(store.kept.key, key);
    assert.ok(store.kept.instance);
});

test('a link with a stranger\'s licence changes nothing unless the user says so', async () => {
    const [own, foreign] = [await claim(stripe.sell('electron003')), await claim(stripe.sell('electron004'))];
    const { gate, store } = app();
    await gate.loginByLink(own.link);
    // Without a question to the user nothing is replaced, and the code is not spent.
    const { message } = await refused(gate.loginByLink(foreign.link));
    assert.match(message, /Log out/);
    assert.deepEqual(store.kept, { key: own.key });
    const asked = [];
    const say = (answer) => (about) => (asked.push(about), answer);
    assert.equal(await gate.loginByLink(foreign.link, 'MAREN-LAPTOP', say(false)), null);
    assert.deepEqual(store.kept, { key: own.key });
    const ends = { licence: `…${foreign.key.slice(-5)}`, plan: 'pro', replaces: `…${own.key.slice(-5)}` };
    assert.deepEqual(asked, [ends]);
    assert.ok(!JSON.stringify(asked).includes(foreign.key));
    // The user's own yes replaces it; a fresh app asks as well.
    const again = async () => (await claim('cs_test_electron004')).link;
    assert.equal((await gate.loginByLink(await again(), undefined, say(true))).plan, 'pro');
    assert.deepEqual(store.kept, { key: foreign.key });
    const fresh = app();
    assert.equal(await fresh.gate.loginByLink(await again(), undefined, say(false)), null);
    assert.equal(fresh.store.kept, null);
    assert.equal(asked.at(-1).replaces, null);
    // The licence that is kept already is no question.
    asked.length = 0;
    await gate.loginByLink(await again(), undefined, say(false));
    assert.deepEqual([asked, store.kept], [[], { key: foreign.key }]);
});

test('links that are none', async () => {
    for (const link of ['jstar://license', 'jstar://license?code=', 'jstar://license?code=made-up', `jstar://license?code=${'A'.repeat(64)}`]) {
        const { store, gate } = app();
        const { message } = await refused(gate.loginByLink(link));
        assert.ok(message.length > 10, link);
        assert.equal(store.kept, null);
    }
});
