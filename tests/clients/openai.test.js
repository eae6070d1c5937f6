// The `openai` package, as an app uses it.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';

import OpenAI from 'openai';

import { soon, startGateway } from './gateway.js';
import { MASTER_KEY, USAGE, WORDS } from './provider.js';

const messages = [{ role: 'user', content: 'Where is my parcel?' }];
const tools = [
    {
        type: 'function',
        function: {
            name: 'find_order',
            description: 'Looks an order up.',
            parameters: { type: 'object', properties: { order: { type: 'string' } }, required: ['order'] },
        },
    },
];

let gateway;
before(async () => (gateway = await startGateway()));
after(() => gateway?.stop());

const client = (apiKey = gateway.licence) => new OpenAI({ baseURL: gateway.baseURL, apiKey });

test('chat', async () => {
    const chat = await client().chat.completions.create({ model: 'answer', messages });
    assert.equal(chat.choices[0].message.content, WORDS.join(''));
    assert.equal(chat.choices[0].finish_reason, 'stop');
    assert.deepEqual(chat.usage, USAGE);
    assert.ok(chat._request_id, 'the request id reaches the app');

    const seen = gateway.provider.requests.at(-1);
    assert.equal(seen.headers.authorization, `Bearer ${MASTER_KEY}`);
    assert.deepEqual(seen.body.messages, messages);
    assert.ok(!JSON.stringify(seen).includes(gateway.licence), 'the licence stays here');
    const sdk = Object.keys(seen.headers).filter((name) => name.startsWith('x-stainless'));
    assert.deepEqual(sdk, [], "the SDK's own headers stay here");
});

test('stream', async () => {
    const stream = await client().chat.completions.create({ model: 'answer', messages, stream: true });
    let text = '';
    let finish;
    for await (const chunk of stream) {
        // Apps index without looking, so the usage chunk nobody asked for must not be here.
        text += chunk.choices[0].delta.content ?? '';
        finish = chunk.choices[0].finish_reason ?? finish;
        assert.ok(!chunk.usage);
    }
    assert.equal(text, WORDS.join(''));
    assert.equal(finish, 'stop');
});

test('stream with usage', async () => {
    const stream = await client().chat.completions.create({
        model: 'answer',
        messages,
        stream: true,
        stream_options: { include_usage: true },
    });
    const chunks = [];
    for await (const chunk of stream) chunks.push(chunk);
    assert.deepEqual(chunks.at(-1).choices, []);
    assert.deepEqual(chunks.at(-1).usage, USAGE);
});

for (const stream of [false, true]) {
    test(`tool call, ${stream ? 'streamed' : 'JSON'}`, async () => {
        const runner = client().chat.completions.runTools({
            model: 'tool',
            stream,
            messages,
            tools: [
                {
                    type: 'function',
                    function: {
                        ...tools[0].function,
                        parse: JSON.parse,
                        function: ({ order }) => ({ order, state: 'on its way' }),
                    },
                },
            ],
        });
        assert.equal(await runner.finalContent(), 'It is on its way.');
        const [, call, result] = gateway.provider.requests.at(-1).body.messages;
        assert.deepEqual(JSON.parse(call.tool_calls[0].function.arguments), { order: '20391' });
        assert.equal(result.tool_call_id, 'call_1');
    });
}

test('abort of a stream reaches the provider', async () => {
    const abort = new AbortController();
    const stream = await client().chat.completions.create(
        { model: 'endless', messages, stream: true },
        { signal: abort.signal },
    );
    for await (const chunk of stream) {
        assert.equal(chunk.choices[0].delta.content, 'again ');
        abort.abort();
    }
    assert.equal(await soon(gateway.provider.requests.at(-1).left, 'the cancel'), true);
});

test('leaving the loop reaches the provider', async () => {
    const stream = await client().chat.completions.create({ model: 'endless', messages, stream: true });
    for await (const _ of stream) break;
    assert.equal(await soon(gateway.provider.requests.at(-1).left, 'the cancel'), true);
});

test('abort before the answer reaches the provider', async () => {
    const abort = new AbortController();
    const before = gateway.provider.requests.length;
    const chat = client().chat.completions.create({ model: 'endless', messages }, { signal: abort.signal });
    const refused = assert.rejects(chat, OpenAI.APIUserAbortError);
    while (gateway.provider.requests.length === before) await new Promise(setImmediate);
    abort.abort();
    await refused;
    assert.equal(await soon(gateway.provider.requests.at(-1).left, 'the cancel'), true);
});

for (const stream of [false, true]) {
    test(`402 shows the message, after one request, ${stream ? 'streamed' : 'JSON'}`, async () => {
        const licence = gateway.oneMessage();
        await client(licence).chat.completions.create({ model: 'answer', messages });
        const said = await gateway.says(licence, { model: 'answer', messages, stream });
        assert.equal(said.status, 402);

        const before = await gateway.answered();
        await assert.rejects(
            client(licence).chat.completions.create({ model: 'answer', messages, stream }),
            (error) => {
                assert.ok(error instanceof OpenAI.APIError);
                assert.equal(error.status, 402);
                assert.equal(error.code, 'quota_exceeded');
                assert.equal(error.message, `402 ${said.message}`);
                return true;
            },
        );
        assert.equal((await gateway.answered()) - before, 1);
    });
}

for (const [what, code, licence, model] of [
    ['an unknown licence', 'license_invalid', 'NOT-A-LICENCE-0001', 'answer'],
    ['a model of another plan', 'model_not_allowed', 'FULL-0001', 'not-in-the-plan'],
]) {
    test(`403 shows the message: ${what}`, async () => {
        const said = await gateway.says(licence, { model, messages });
        await assert.rejects(client(licence).chat.completions.create({ model, messages }), (error) => {
            assert.ok(error instanceof OpenAI.PermissionDeniedError);
            assert.equal(error.code, code);
            assert.equal(error.message, `403 ${said.message}`);
            return true;
        });
    });
}

test('a stream that breaks raises', async () => {
    const stream = await client().chat.completions.create({ model: 'broken', messages, stream: true });
    let text = '';
    await assert.rejects(
        async () => {
            for await (const chunk of stream) text += chunk.choices[0].delta.content ?? '';
        },
        (error) => error instanceof OpenAI.APIError && error.message.length > 10,
    );
    assert.equal(text, WORDS[0] + WORDS[1], 'what arrived before is shown');
});

test('the list of models is the plan', async () => {
    const ids = [];
    for await (const model of client().models.list()) ids.push(model.id);
    assert.deepEqual(ids.sort(), ['answer', 'broken', 'endless', 'tool']);
});
