// The Vercel AI SDK (`ai`), over both of its providers for OpenAI's chat endpoint.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';

import { createOpenAI } from '@ai-sdk/openai';
import { createOpenAICompatible } from '@ai-sdk/openai-compatible';
import { APICallError, generateText, jsonSchema, stepCountIs, streamText, tool } from 'ai';

import { soon, startGateway } from './gateway.js';
import { MASTER_KEY, USAGE, WORDS } from './provider.js';

const prompt = 'Where is my parcel?';

let gateway;
before(async () => (gateway = await startGateway()));
after(() => gateway?.stop());

const providers = {
    '@ai-sdk/openai-compatible': (name, apiKey) =>
        createOpenAICompatible({ name: 'gatekeeper', baseURL: gateway.baseURL, apiKey, includeUsage: true })(name),
    // Without .chat() this one speaks the responses endpoint.
    '@ai-sdk/openai': (name, apiKey) => createOpenAI({ baseURL: gateway.baseURL, apiKey }).chat(name),
};

const findOrder = () => ({
    find_order: tool({
        description: 'Looks an order up.',
        inputSchema: jsonSchema({
            type: 'object',
            properties: { order: { type: 'string' } },
            required: ['order'],
        }),
        execute: async ({ order }) => ({ order, state: 'on its way' }),
    }),
});

for (const [name, provider] of Object.entries(providers)) {
    const model = (id, licence = gateway.licence) => provider(id, licence);

    describe(name, () => {
        test('chat', async () => {
            const { text, usage, finishReason } = await generateText({ model: model('answer'), prompt });
            assert.equal(text, WORDS.join(''));
            assert.equal(finishReason, 'stop');
            assert.equal(usage.inputTokens, USAGE.prompt_tokens);
            assert.equal(usage.outputTokens, USAGE.completion_tokens);
            const seen = gateway.provider.requests.at(-1);
            assert.equal(seen.headers.authorization, `Bearer ${MASTER_KEY}`);
            assert.ok(!JSON.stringify(seen).includes(gateway.licence), 'the licence stays here');
        });

        test('stream with usage', async () => {
            const result = streamText({ model: model('answer'), prompt });
            let text = '';
            for await (const part of result.textStream) text += part;
            assert.equal(text, WORDS.join(''));
            const usage = await result.usage;
            assert.equal(usage.inputTokens, USAGE.prompt_tokens);
            assert.equal(usage.outputTokens, USAGE.completion_tokens);
        });

        test('tool call', async () => {
            const { text, steps } = await generateText({
                model: model('tool'),
                prompt,
                tools: findOrder(),
                stopWhen: stepCountIs(3),
            });
            assert.equal(text, 'It is on its way.');
            assert.deepEqual(steps[0].toolCalls[0].input, { order: '20391' });
        });

        test('tool call, streamed', async () => {
            const result = streamText({
                model: model('tool'),
                prompt,
                tools: findOrder(),
                stopWhen: stepCountIs(3),
            });
            assert.equal(await result.text, 'It is on its way.');
            assert.deepEqual((await result.steps)[0].toolCalls[0].input, { order: '20391' });
        });

        test('abort reaches the provider', async () => {
            const abort = new AbortController();
            const result = streamText({ model: model('endless'), prompt, abortSignal: abort.signal });
            const parts = [];
            for await (const part of result.fullStream) {
                parts.push(part.type);
                if (part.type === 'text-delta') abort.abort();
            }
            assert.equal(parts.at(-1), 'abort');
            assert.equal(await soon(gateway.provider.requests.at(-1).left, 'the cancel'), true);
        });

        test('402 shows the message, after one request', async () => {
            const licence = gateway.oneMessage();
            await generateText({ model: model('answer', licence), prompt });
            const messages = [{ role: 'user', content: prompt }];
            const said = await gateway.says(licence, { model: 'answer', messages });
            assert.equal(said.status, 402);

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

        test('403 shows the message', async () => {
            const licence = 'NOT-A-LICENCE-0001';
            const messages = [{ role: 'user', content: prompt }];
            const said = await gateway.says(licence, { model: 'answer', messages });
            const before = await gateway.answered();
            await assert.rejects(generateText({ model: model('answer', licence), prompt }), (error) => {
                assert.ok(APICallError.isInstance(error));
                assert.equal(error.statusCode, 403);
                assert.equal(error.message, said.message);
                return true;
            });
            assert.equal((await gateway.answered()) - before, 1);
        });

        test('a stream that breaks raises', async () => {
            let shown;
            const result = streamText({
                model: model('broken'),
                prompt,
                onError: ({ error }) => (shown = error),
            });
            let text = '';
            for await (const part of result.textStream) text += part;
            assert.equal(text, WORDS[0] + WORDS[1], 'what arrived before is shown');
            assert.ok(shown, 'the app hears that it broke');
            assert.equal(await result.finishReason.catch(() => 'error'), 'error');
        });
    });
}
