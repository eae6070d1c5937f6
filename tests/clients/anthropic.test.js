// Anthropic's messages, with the SDKs that speak them.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';

import { createAnthropic } from '@ai-sdk/anthropic';
import Anthropic from '@anthropic-ai/sdk';
import { APICallError, generateText, jsonSchema, stepCountIs, streamText, tool } from 'ai';

import { soon, startGateway } from './gateway.js';
import { USAGE } from './provider-anthropic.js';
import { MASTER_KEY, WORDS } from './provider.js';

const prompt = 'Where is my parcel?';
const messages = [{ role: 'user', content: prompt }];
const schema = { type: 'object', properties: { order: { type: 'string' } }, required: ['order'] };
const INPUT = USAGE.input_tokens + USAGE.cache_read_input_tokens;

let gateway;
before(async () => (gateway = await startGateway()));
after(() => gateway?.stop());

const last = () => gateway.provider.requests.at(-1);

/** What the provider saw is ours, and nothing of the SDK's or the buyer's. */
function isClean(seen) {
    assert.equal(seen.url, '/v1/messages');
    assert.equal(seen.headers['x-api-key'], MASTER_KEY);
    assert.equal(seen.headers.authorization, undefined);
    assert.match(seen.headers['anthropic-version'], /^\d{4}-\d\d-\d\d$/);
    assert.ok(!JSON.stringify(seen).includes(gateway.licence), 'the licence stays here');
    const foreign = Object.keys(seen.headers).filter((name) => /^(x-stainless|anthropic-(beta|dang))/.test(name));
    assert.deepEqual(foreign, [], "the SDK's own headers stay here");
}

/** What the gateway says to a bare request, to compare with what an SDK shows. */
async function says(licence, body) {
    const response = await fetch(`${gateway.url}/v1/messages`, {
        method: 'POST',
        headers: { 'x-api-key': licence, 'content-type': 'application/json' },
        body: JSON.stringify({ max_tokens: 100, messages, ...body }),
    });
    return { status: response.status, ...(await response.json()).error };
}

/** Tokens that the licence has used. */
async function used() {
    const response = await fetch(`${gateway.baseURL}/me`, {
        headers: { authorization: `Bearer ${gateway.licence}` },
    });
    return (await response.json()).limits.tokens.used;
}

describe('@anthropic-ai/sdk', () => {
    const client = (apiKey = gateway.licence) => new Anthropic({ baseURL: gateway.url, apiKey });
    const ask = (model, more = {}) => ({ model, max_tokens: 100, messages, ...more });
    const tools = [{ name: 'find_order', description: 'Looks an order up.', input_schema: schema }];

    test('message', async () => {
        const before = await used();
        const message = await client().messages.create(ask('answer', { metadata: { user_id: 'me@example.com' } }));
        assert.equal(message.content[0].text, WORDS.join(''));
        assert.equal(message.stop_reason, 'end_turn');
        assert.deepEqual(message.usage, USAGE);
        assert.ok(message._request_id, 'the request id reaches the app');
        isClean(last());
        assert.deepEqual(last().body.messages, messages);
        assert.match(last().body.metadata.user_id, /^[0-9a-f]{32}$/);
        assert.equal((await used()) - before, INPUT + USAGE.output_tokens);
    });

    test('message, by the beta client', async () => {
        const beta = client().beta.messages;
        const message = await beta.create(ask('answer', { betas: ['context-1m-2025-08-07'] }));
        assert.equal(message.content[0].text, WORDS.join(''));
        isClean(last());
        assert.equal(last().body.betas, undefined);
    });

    test('stream', async () => {
        const stream = client().messages.stream(ask('answer'));
        const parts = [];
        stream.on('text', (text) => parts.push(text));
        const message = await stream.finalMessage();
        assert.equal(parts.join(''), WORDS.join(''));
        assert.ok(parts.length > 1, 'word by word');
        assert.equal(message.content[0].text, WORDS.join(''));
        assert.equal(message.usage.output_tokens, USAGE.output_tokens);
        isClean(last());
    });

    for (const stream of [false, true]) {
        test(`tool call, ${stream ? 'streamed' : 'JSON'}`, async () => {
            const round = async (messages) => {
                const body = ask('tool', { messages, tools });
                return stream ? client().messages.stream(body).finalMessage() : client().messages.create(body);
            };
            const first = await round(messages);
            assert.equal(first.stop_reason, 'tool_use');
            const [call] = first.content;
            assert.deepEqual(call.input, { order: '20391' });
            const content = JSON.stringify({ state: 'on its way' });
            const result = { type: 'tool_result', tool_use_id: call.id, content };
            const second = await round([
                ...messages,
                { role: 'assistant', content: first.content },
                { role: 'user', content: [result] },
            ]);
            assert.equal(second.content[0].text, 'It is on its way.');
        });
    }

    test('abort of a stream reaches the provider', async () => {
        const stream = await client().messages.create(ask('endless', { stream: true }));
        for await (const event of stream) if (event.type === 'content_block_delta') break;
        assert.equal(await soon(last().left, 'the cancel'), true);
    });

    for (const stream of [false, true]) {
        test(`402 shows the message, after one request, ${stream ? 'streamed' : 'JSON'}`, async () => {
            const licence = gateway.oneMessage();
            await client(licence).messages.create(ask('answer'));
            const said = await says(licence, { model: 'answer', stream });
            assert.equal(said.status, 402);
            const before = await gateway.answered();
            await assert.rejects(client(licence).messages.create(ask('answer', { stream })), (error) => {
                assert.ok(error instanceof Anthropic.APIError);
                assert.equal(error.status, 402);
                assert.equal(error.error.error.code, 'quota_exceeded');
                assert.equal(error.message, `402 ${said.message}`);
                assert.ok(error.requestID, 'the request id reaches the app');
                return true;
            });
            assert.equal((await gateway.answered()) - before, 1);
        });
    }

    for (const [what, status, code, licence, more] of [
        ['an unknown licence', 403, 'license_invalid', 'NOT-A-LICENCE-0001', {}],
        ['a model of another plan', 403, 'model_not_allowed', 'FULL-0001', { model: 'not-in-the-plan' }],
        ['no such model', 404, 'model_not_found', 'FULL-0001', { model: 'nothing' }],
        ['a hosted tool', 400, 'invalid_request', 'FULL-0001', {
            tools: [{ type: 'web_search_20250305', name: 'web_search' }],
        }],
    ]) {
        test(`${status} shows the message: ${what}`, async () => {
            const said = await says(licence, { model: 'answer', ...more });
            // Asked last: a refusal that comes while something else is awaited is heard by no handler.
            const asked = client(licence).messages.create(ask('answer', more));
            await assert.rejects(asked, (error) => {
                assert.ok(error instanceof Anthropic.APIError);
                assert.equal(error.status, status);
                assert.equal(error.error.error.code, code);
                assert.equal(error.message, `${status} ${said.message}`);
                return true;
            });
        });
    }

    test('tokens are counted by the gateway', async () => {
        const count = await client('FULL-0001').messages.countTokens({ model: 'answer', messages });
        assert.ok(Number.isInteger(count.input_tokens) && count.input_tokens > 0, JSON.stringify(count));
    });

    test('a stream that breaks raises', async () => {
        const stream = await client().messages.create(ask('broken', { stream: true }));
        let text = '';
        await assert.rejects(
            async () => {
                for await (const event of stream) text += event.delta?.text ?? '';
            },
            (error) => error instanceof Anthropic.APIError && /^The answer broke off/.test(error.message),
        );
        assert.equal(text, WORDS[0] + WORDS[1], 'what arrived before is shown');
    });
});

describe('@ai-sdk/anthropic', () => {
    const model = (id, apiKey = gateway.licence) => createAnthropic({ baseURL: gateway.baseURL, apiKey })(id);
    const find_order = tool({
        description: 'Looks an order up.',
        inputSchema: jsonSchema(schema),
        execute: async ({ order }) => ({ order, state: 'on its way' }),
    });

    test('message', async () => {
        const { text, usage, finishReason } = await generateText({ model: model('answer'), prompt });
        assert.equal(text, WORDS.join(''));
        assert.equal(finishReason, 'stop');
        assert.equal(usage.inputTokens, INPUT);
        assert.equal(usage.outputTokens, USAGE.output_tokens);
        isClean(last());
    });

    test('stream with usage', async () => {
        const result = streamText({ model: model('answer'), prompt });
        let text = '';
        for await (const part of result.textStream) text += part;
        assert.equal(text, WORDS.join(''));
        const usage = await result.usage;
        assert.equal(usage.inputTokens, INPUT);
        assert.equal(usage.outputTokens, USAGE.output_tokens);
        isClean(last());
    });

    test('tool call', async () => {
        const options = { prompt, tools: { find_order }, stopWhen: stepCountIs(3) };
        const { text, steps } = await generateText({ model: model('tool'), ...options });
        assert.equal(text, 'It is on its way.');
        assert.deepEqual(steps[0].toolCalls[0].input, { order: '20391' });
        const streamed = streamText({ model: model('tool'), ...options });
        assert.equal(await streamed.text, 'It is on its way.');
        assert.deepEqual((await streamed.steps)[0].toolCalls[0].input, { order: '20391' });
    });

    test('an image goes through, a PDF is refused by name', async () => {
        const show = (mediaType) =>
            generateText({
                model: model('answer'),
                messages: [{ role: 'user', content: [{ type: 'file', mediaType, data: Buffer.from('abc') }] }],
            });
        assert.equal((await show('image/png')).text, WORDS.join(''));
        assert.equal(last().body.messages[0].content[0].type, 'image');
        await assert.rejects(show('application/pdf'), (error) => {
            assert.equal(error.statusCode, 400);
            assert.match(error.message, /does not take content of type "file"/);
            return true;
        });
    });

    test('402 shows the message, after one request', async () => {
        const licence = gateway.oneMessage();
        await generateText({ model: model('answer', licence), prompt });
        const said = await says(licence, { model: 'answer' });
        const before = await gateway.answered();
        await assert.rejects(generateText({ model: model('answer', licence), prompt }), (error) => {
            assert.ok(APICallError.isInstance(error));
            assert.equal(error.statusCode, 402);
            assert.equal(error.isRetryable, false);
            assert.equal(error.message, said.message);
            return true;
        });
        assert.equal((await gateway.answered()) - before, 1);
    });

    test('a stream that breaks raises', async () => {
        let shown;
        const result = streamText({ model: model('broken'), prompt, onError: ({ error }) => (shown = error) });
        let text = '';
        for await (const part of result.textStream) text += part;
        assert.equal(text, WORDS[0] + WORDS[1], 'what arrived before is shown');
        assert.ok(shown, 'the app hears that it broke');
        assert.equal(await result.finishReason.catch(() => 'error'), 'error');
    });
});
