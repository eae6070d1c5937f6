// examples/electron: the module that apps copy, with the real `openai` package.
import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import http from 'node:http';
import { after, before, describe, test } from 'node:test';

import OpenAI from 'openai';

import { explain, Gatekeeper } from '../../examples/electron/gatekeeper.js';
import { freePort, soon, startGateway } from './gateway.js';
import { MASTER_KEY, USAGE, WORDS } from './provider.js';
import { KEYS, LIMIT, startShop } from './shop.js';

const BUY = 'https://example.com/buy';
const UPGRADE = 'https://example.com/upgrade';
const messages = [{ role: 'user', content: 'Where is my parcel?' }];

let gateway;

/** An app with a store of its own; `licence` is what the store has from the last start. */
function app(licence = null, url = gateway.baseURL.replace(/\/v1$/, '')) {
    const store = {
        kept: licence,
        load: () => store.kept,
        save: (now) => (store.kept = now),
    };
    const gate = new Gatekeeper({ OpenAI, url, store, retries: 0 });
    const ask = async (model = 'answer', more = {}) => {
        let text = '';
        for await (const part of gate.chat({ model, messages, ...more })) text += part;
        return text;
    };
    return { gate, store, ask };
}

/** What the buyer is shown for what goes wrong. */
async function shown(work) {
    const error = await work.then(
        () => assert.fail('this should have been refused'),
        (error) => error,
    );
    const { message, ...rest } = explain(error);
    assert.ok(message.length > 10 && !/^\d/.test(message), message);
    return { status: error.status, code: error.error?.code, message, ...rest };
}

describe('examples/electron, with a licence in the file', () => {
    before(async () => {
        gateway = await startGateway({
            sources: [{ static: { keys: [{ key: 'ONE-AT-A-TIME-01', plan: 'narrow' }] } }],
            plans: { narrow: { concurrency: 1, models: ['answer', 'endless'], upgrade_url: UPGRADE } },
        });
    });
    after(() => gateway?.stop());

    test('login keeps the key and tells the plan and what is left', async () => {
        const { gate, store } = app();
        const account = await gate.login(`  ${gateway.licence}\n`);
        assert.equal(account.plan, 'full');
        assert.equal(account.limits.messages.left, 10000);
        assert.deepEqual(account.models, ['answer', 'broken', 'endless', 'tool']);
        assert.deepEqual(store.kept, { key: gateway.licence });
        assert.deepEqual(await gate.account(), account);
        await gate.logout();
        assert.equal(store.kept, null);
    });

    test('a wrong key is refused, and the one before it stays', async () => {
        const { gate, store } = app({ key: gateway.licence });
        const { message, ...rest } = await shown(gate.login('NOT-A-LICENCE-0001'));
        assert.deepEqual(rest, { status: 403, code: 'license_invalid', action: 'enter-key', url: BUY });
        assert.equal(message, (await gateway.says('NOT-A-LICENCE-0001', { model: 'answer', messages })).message);
        assert.deepEqual(store.kept, { key: gateway.licence });
    });

    test('what can not be a key is refused without a request', async () => {
        const before = await gateway.answered();
        for (const typed of ['', '  ', 'two words', 'FULL–0001']) {
            assert.equal((await shown(app().gate.login(typed))).action, 'enter-key');
        }
        assert.equal(await gateway.answered(), before);
    });

    test('401: nobody is logged in', async () => {
        const { gate, ask } = app();
        for (const work of [gate.account(), gate.activate(), ask()]) {
            const { message, ...rest } = await shown(work);
            assert.deepEqual(rest, { status: 401, code: 'license_missing', action: 'enter-key' });
        }
        const { message, ...rest } = await shown(app({ key: 'two words' }).ask());
        assert.deepEqual(rest, { status: 401, code: 'license_missing', action: 'enter-key' });
    });

    test('chat', async () => {
        const { gate, ask } = app({ key: gateway.licence });
        const { used } = (await gate.account()).limits.messages;
        assert.equal(await ask('answer', { conversationId: 'conversation-1' }), WORDS.join(''));
        const seen = gateway.provider.requests.at(-1);
        assert.equal(seen.headers.authorization, `Bearer ${MASTER_KEY}`);
        assert.deepEqual(seen.body.messages, messages);
        assert.ok(!JSON.stringify(seen).includes(gateway.licence), 'the licence stays here');
        assert.equal((await gate.account()).limits.messages.used, used + 1);
    });

    test('one message, asked three times, counts once', async () => {
        const { gate, ask } = app({ key: gateway.licence });
        const before = (await gate.account()).limits;
        const messageId = randomUUID();
        for (let tries = 0; tries < 3; tries += 1) await ask('answer', { messageId });
        const { messages: counted, tokens } = (await gate.account()).limits;
        assert.equal(counted.used, before.messages.used + 1);
        assert.equal(tokens.used, before.tokens.used + 3 * USAGE.total_tokens);
    });

    test('the answer arrives in parts, and leaving the loop ends it', async () => {
        const { gate } = app({ key: gateway.licence });
        const parts = [];
        for await (const text of gate.chat({ model: 'endless', messages })) {
            if (parts.push(text) === 3) break;
        }
        assert.deepEqual(parts, ['again ', 'again ', 'again ']);
        assert.equal(await soon(gateway.provider.requests.at(-1).left, 'the cancel'), true);
    });

    test('a stop button ends the answer without an error', async () => {
        const { gate } = app({ key: gateway.licence });
        const stop = new AbortController();
        for await (const _ of gate.chat({ model: 'endless', messages, signal: stop.signal })) stop.abort();
        assert.equal(await soon(gateway.provider.requests.at(-1).left, 'the cancel'), true);
        const late = gate.chat({ model: 'endless', messages, signal: AbortSignal.abort() });
        assert.deepEqual(await late.next(), { value: undefined, done: true });
    });

    test('an answer that breaks keeps what came, and can be asked again', async () => {
        const { gate } = app({ key: gateway.licence });
        let text = '';
        const broken = (async () => {
            for await (const part of gate.chat({ model: 'broken', messages })) text += part;
        })();
        assert.equal((await shown(broken)).action, 'retry');
        assert.equal(text, WORDS[0] + WORDS[1]);
    });

    test('402: used up', async () => {
        const { gate, ask } = app();
        const { limits } = await gate.login(gateway.oneMessage());
        assert.equal(limits.messages.left, 1);
        await ask();
        const { message, ...rest } = await shown(ask());
        const resetsAt = new Date(limits.messages.resets_at);
        assert.deepEqual(rest, { status: 402, code: 'quota_exceeded', action: 'upgrade', url: BUY, resetsAt });
        assert.ok(resetsAt > new Date());
    });

    test('403: a model of another plan', async () => {
        const { message, ...rest } = await shown(app({ key: 'ONE-AT-A-TIME-01' }).ask('tool'));
        assert.deepEqual(rest, { status: 403, code: 'model_not_allowed', action: 'upgrade', url: UPGRADE });
    });

    test('429: too many at once', async () => {
        const { gate, ask } = app({ key: 'ONE-AT-A-TIME-01' });
        for await (const _ of gate.chat({ model: 'endless', messages })) {
            const { message, wait, ...rest } = await shown(ask());
            assert.deepEqual(rest, { status: 429, code: 'rate_limited', action: 'wait' });
            assert.ok(wait >= 1 && wait <= 60);
            break;
        }
    });

    test('no network', async () => {
        const { gate, ask } = app({ key: gateway.licence }, `http://127.0.0.1:${await freePort()}`);
        for (const work of [gate.login(gateway.licence), ask()]) {
            const { message, ...rest } = await shown(work);
            assert.deepEqual(rest, { status: undefined, code: undefined, action: 'retry' });
            assert.match(message, /connection/);
        }
    });
});

describe('examples/electron, with a shop', () => {
    let shop;
    before(async () => {
        shop = await startShop();
        gateway = await startGateway({
            sources: [shop.source],
            plans: {
                shop: { messages: '1000/month', models: ['answer'], max_input_tokens: 8000 },
                seats: { models: ['answer'], devices: 'required', max_devices: LIMIT },
            },
        });
    });
    after(async () => {
        await gateway?.stop();
        shop?.stop();
    });

    test('a key from the shop: asked once, then known', async () => {
        const { gate, ask, store } = app();
        const account = await gate.login(KEYS.pro);
        assert.equal(account.plan, 'shop');
        assert.equal(account.limits.messages.left, 1000);
        assert.equal(await ask(), WORDS.join(''));
        assert.equal((await gate.account()).limits.messages.left, 999);
        assert.deepEqual(store.kept, { key: KEYS.pro });
        assert.equal(shop.asked(KEYS.pro), 1);
        assert.ok(!JSON.stringify(gateway.provider.requests).includes(KEYS.pro), 'the licence stays here');
    });

    test('devices: activated at login, counted, given back', async () => {
        const [laptop, desktop, third] = [app(), app(), app()];
        assert.equal((await laptop.gate.login(KEYS.seats, 'laptop')).plan, 'seats');
        assert.deepEqual(shop.calls.find(({ path }) => path.endsWith('/activate')).form, {
            license_key: KEYS.seats,
            instance_name: 'laptop',
        });
        assert.equal(typeof laptop.store.kept.instance, 'string');
        assert.equal(await laptop.ask(), WORDS.join(''));

        await desktop.gate.login(KEYS.seats, 'desktop');
        assert.notEqual(desktop.store.kept.instance, laptop.store.kept.instance);

        const full = await shown(third.gate.login(KEYS.seats, 'third'));
        assert.deepEqual(
            [full.status, full.code, full.action, third.store.kept],
            [403, 'device_limit', 'activate', null],
        );

        const before = laptop.store.kept;
        await laptop.gate.deactivate();
        assert.deepEqual(laptop.store.kept, { key: KEYS.seats });
        for (const out of [laptop, app(before)]) {
            const { status, code, action } = await shown(out.ask());
            assert.deepEqual([status, code, action], [403, 'device_limit', 'activate']);
        }
        assert.equal(await desktop.ask(), WORDS.join(''), 'the other device stays');

        assert.deepEqual(await laptop.gate.activate('laptop'), { used: LIMIT, max: LIMIT });
        assert.equal(await laptop.ask(), WORDS.join(''));
    });

    for (const [key, code, action] of [
        ['expired', 'license_expired', 'buy'],
        ['disabled', 'license_disabled', 'contact'],
        ['otherStore', 'license_wrong_product', 'enter-key'],
        ['otherProduct', 'license_wrong_product', 'enter-key'],
        ['testMode', 'license_invalid', 'enter-key'],
        ['unknown', 'license_invalid', 'enter-key'],
    ]) {
        test(`403: ${key} is ${code}`, async () => {
            const { gate, store } = app();
            const { message, ...rest } = await shown(gate.login(KEYS[key]));
            assert.deepEqual(rest, { status: 403, code, action, url: BUY });
            assert.equal(store.kept, null);
            assert.equal(shop.asked(KEYS[key]), 1);
        });
    }

    test('503: the shop is down, for a new key', async () => {
        const { message, wait, ...rest } = await shown(app().gate.login(KEYS.down));
        assert.deepEqual(rest, { status: 503, code: 'license_check_unavailable', action: 'retry' });
        assert.ok(wait >= 1 && wait <= 60);
    });

    test('a known key goes on while the shop is down', async () => {
        shop.down = true;
        try {
            assert.equal(await app({ key: KEYS.pro }).ask(), WORDS.join(''));
            assert.equal((await app().gate.login(KEYS.pro)).plan, 'shop');
        } finally {
            shop.down = false;
        }
    });
});

describe('explain', () => {
    const sdk = (status, body, headers = {}) =>
        OpenAI.APIError.generate(status, body, undefined, new Headers(headers));

    for (const [status, code, action] of [
        [400, 'invalid_request', 'none'],
        [401, 'license_missing', 'enter-key'],
        [402, 'quota_exceeded', 'upgrade'],
        [403, 'license_invalid', 'enter-key'],
        [403, 'license_expired', 'buy'],
        [403, 'license_disabled', 'contact'],
        [403, 'license_refunded', 'buy'],
        [403, 'license_wrong_product', 'enter-key'],
        [403, 'device_limit', 'activate'],
        [403, 'model_not_allowed', 'upgrade'],
        [404, 'model_not_found', 'none'],
        [404, 'not_found', 'none'],
        [405, 'method_not_allowed', 'none'],
        [413, 'body_too_large', 'none'],
        [415, 'unsupported_encoding', 'none'],
        [429, 'rate_limited', 'wait'],
        [502, 'upstream_error', 'retry'],
        [503, 'license_check_unavailable', 'retry'],
        [503, 'shutting_down', 'retry'],
        [503, 'store_unavailable', 'retry'],
        [503, 'upstream_exhausted', 'retry'],
        [504, 'upstream_timeout', 'retry'],
    ]) {
        test(`${status} ${code}: ${action}`, () => {
            const body = { error: { message: 'Words for the buyer.', type: '', param: null, code } };
            assert.deepEqual(explain(sdk(status, body)), { message: 'Words for the buyer.', action });
        });
    }

    test('what does not come from the gateway', () => {
        assert.equal(explain(sdk(502, undefined)).action, 'retry');
        assert.equal(explain(sdk(429, { error: 'slow down' }, { 'retry-after': '7' })).wait, 7);
        assert.equal(explain(sdk(418, undefined)).action, 'none');
        assert.equal(explain(new TypeError('terminated')).action, 'retry');
        assert.equal(explain(undefined).action, 'retry');
    });
});

describe('examples/electron, while the service is busy', () => {
    /** A gateway that is busy so many times, and then answers. */
    async function busy(t, times, headers = { 'retry-after': '1' }) {
        const asked = [];
        const server = http.createServer((req, res) => {
            asked.push(req.headers['x-message-id']);
            if (asked.length <= times) {
                res.writeHead(503, { 'content-type': 'application/json', ...headers });
                return res.end(JSON.stringify({ error: { message: 'The service is busy.', code: 'upstream_exhausted' } }));
            }
            res.writeHead(200, { 'content-type': 'text/event-stream' });
            const choices = [{ index: 0, delta: { content: 'Here.' }, finish_reason: 'stop' }];
            res.end(`data: ${JSON.stringify({ id: 'a', object: 'chat.completion.chunk', choices })}\n\ndata: [DONE]\n\n`);
        });
        server.listen(0, '127.0.0.1');
        await once(server, 'listening');
        t.after(() => server.close());
        const store = { load: () => ({ key: 'A-KEY-0001' }), save() {} };
        // With the /v1 of the SDKs' base URL, which does no harm.
        const gate = new Gatekeeper({ OpenAI, url: `http://127.0.0.1:${server.address().port}/v1/`, store });
        const waits = [];
        const ask = async (more = {}) => {
            let text = '';
            for await (const part of gate.chat({ model: 'fast', messages, waiting: (seconds) => waits.push(seconds), ...more })) text += part;
            return text;
        };
        return { ask, asked, waits };
    }

    test('the wait is told, and the message counts once', async (t) => {
        const { ask, asked, waits } = await busy(t, 1);
        assert.equal(await ask(), 'Here.');
        assert.deepEqual(waits, [1]);
        assert.equal(new Set(asked).size, 1);
    });

    test('stopping ends the wait', async (t) => {
        const { ask, asked } = await busy(t, 9, { 'retry-after': '60' });
        const stop = new AbortController();
        assert.equal(await soon(ask({ signal: stop.signal, waiting: () => stop.abort() }), 'the wait to end'), '');
        assert.equal(asked.length, 1);
    });

    test('what the gateway does not want repeated is shown at once', async (t) => {
        const { ask, asked, waits } = await busy(t, 9, { 'x-should-retry': 'false' });
        await assert.rejects(ask(), (error) => explain(error).message === 'The service is busy.');
        assert.deepEqual([asked.length, waits], [1, []]);
    });
});
