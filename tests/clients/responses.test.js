// OpenAI's responses: what `openai('model')` of the AI SDK speaks unless told otherwise.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';

import { createOpenAI } from '@ai-sdk/openai';
import { generateText, jsonSchema, stepCountIs, streamText, tool } from 'ai';
import OpenAI from 'openai';

import { startGateway } from './gateway.js';
import { USAGE } from './provider-responses.js';
import { WORDS } from './provider.js';

const prompt = 'Where is my parcel?';
const schema = { type: 'object', properties: { order: { type: 'string' } }, required: ['order'], additionalProperties: false };

let gateway;
before(async () => (gateway = await startGateway()));
after(() => gateway?.stop());

const last = () => gateway.provider.requests.at(-1);

describe('openai', () => {
    const client = () => new OpenAI({ baseURL: gateway.baseURL, apiKey: gateway.licence });
    const tools = [{ type: 'function', name: 'find_order', parameters: schema, strict: true }];

    test('response and stream', async () => {
        const response = await client().responses.create({ model: 'answer', input: prompt });
        assert.equal(response.output_text, WORDS.join(''));
        assert.deepEqual(response.usage, USAGE);
        assert.equal(last().body.store, false);
        let text = '';
        const stream = await client().responses.create({ model: 'answer', input: prompt, stream: true });
        for await (const event of stream) if (event.type === 'response.output_text.delta') text += event.delta;
        assert.equal(text, WORDS.join(''));
    });

    for (const stream of [false, true]) {
        test(`tool call, ${stream ? 'streamed' : 'JSON'}`, async () => {
            const round = (input) => {
                const body = { model: 'tool', input, tools, store: false };
                return stream ? client().responses.stream(body).finalResponse() : client().responses.create(body);
            };
            const input = [{ role: 'user', content: prompt }];
            const first = await round(input);
            const [call] = first.output;
            assert.deepEqual(JSON.parse(call.arguments), { order: '20391' });
            const output = JSON.stringify({ state: 'on its way' });
            const second = await round([
                ...input,
                ...first.output,
                { type: 'function_call_output', call_id: call.call_id, output },
            ]);
            assert.equal(second.output_text, 'It is on its way.');
        });
    }
});

describe('@ai-sdk/openai, by its default', () => {
    const model = (id) => createOpenAI({ baseURL: gateway.baseURL, apiKey: gateway.licence })(id);
    const options = (more) => ({
        prompt,
        tools: {
            find_order: tool({
                description: 'Looks an order up.',
                inputSchema: jsonSchema(schema),
                execute: async ({ order }) => ({ order, state: 'on its way' }),
            }),
        },
        stopWhen: stepCountIs(3),
        ...more,
    });
    // The option that the refusal below names.
    const providerOptions = { openai: { store: false } };

    test('response', async () => {
        const { text, usage } = await generateText({ model: model('answer'), prompt });
        assert.equal(text, WORDS.join(''));
        assert.equal(usage.outputTokens, USAGE.output_tokens);
        assert.equal(last().url, '/v1/responses');
        assert.equal(last().body.store, false);
    });

    test('tool call, with the option that keeps nothing', async () => {
        const { text, steps } = await generateText({ model: model('tool'), ...options({ providerOptions }) });
        assert.equal(text, 'It is on its way.');
        assert.deepEqual(steps[0].toolCalls[0].input, { order: '20391' });
        const streamed = streamText({ model: model('tool'), ...options({ providerOptions }) });
        assert.equal(await streamed.text, 'It is on its way.');
    });

    /** Two turns: the second sends what the first answered. */
    async function twoTurns(more) {
        const messages = [{ role: 'user', content: prompt }];
        const first = await generateText({ model: model('answer'), messages, ...more });
        messages.push(...first.response.messages, { role: 'user', content: 'And the other one?' });
        return generateText({ model: model('answer'), messages, ...more });
    }

    test('a second turn, with the option that keeps nothing', async () => {
        assert.equal((await twoTurns({ providerOptions })).text, WORDS.join(''));
        assert.equal(last().body.input[1].content[0].text, WORDS.join(''));
    });

    test('a second turn without it: the refusal names the option', async () => {
        await assert.rejects(twoTurns(), (error) => {
            assert.equal(error.statusCode, 400);
            assert.ok(error.message.includes('providerOptions: { openai: { store: false } }'), error.message);
            return true;
        });
    });
});
