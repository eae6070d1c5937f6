// Apps of OpenAI's chat, served by an Anthropic target. What the provider gets is held against what Anthropic's own
// SDKs send for the same conversation.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';

import { createAnthropic } from '@ai-sdk/anthropic';
import { createOpenAI } from '@ai-sdk/openai';
import { createOpenAICompatible } from '@ai-sdk/openai-compatible';
import Anthropic from '@anthropic-ai/sdk';
import { generateText, jsonSchema, stepCountIs, streamText, tool } from 'ai';
import OpenAI from 'openai';

import { soon, startGateway } from './gateway.js';
import { USAGE } from './provider-anthropic.js';
import { MASTER_KEY, WORDS } from './provider.js';

const licence = 'TRANSLATED-0001';
const prompt = 'Where is my parcel?';
const messages = [{ role: 'user', content: prompt }];
const schema = { type: 'object', properties: { order: { type: 'string' } }, required: ['order'] };
const INPUT = USAGE.input_tokens + USAGE.cache_read_input_tokens;
const names = ['answer', 'tool', 'endless', 'broken'];

let gateway;
before(async () => {
    gateway = await startGateway({
        sources: [{ static: { keys: [{ key: licence, plan: 'translated' }] } }],
        plans: { translated: { messages: '10000/month', tokens: '10000000/month', models: ['*'] } },
        more: Object.fromEntries(names.map((name) => [`claude-${name}`, [`anthropic/${name}`]])),
    });
});
after(() => gateway?.stop());

const last = () => gateway.provider.requests.at(-1);

/** The provider was asked as one of Anthropic's, and saw nothing of the SDK's or the buyer's. */
function isClean(seen) {
    assert.equal(seen.url, '/v1/messages');
    assert.equal(seen.headers['x-api-key'], MASTER_KEY);
    assert.equal(seen.headers.authorization, undefined);
    assert.equal(seen.headers['anthropic-version'], '2023-06-01');
    assert.ok(!JSON.stringify(seen).includes(licence), 'the licence stays here');
    assert.deepEqual(Object.keys(seen.headers).filter((name) => name.startsWith('x-stainless')), []);
}

/** Texts stand in blocks, and what the SDKs and Gatekeeper (`identify`) add of their own is left out. */
function plain(body) {
    const blocks = (content) => (typeof content === 'string' ? [{ type: 'text', text: content }] : content);
    const clean = ({ cache_control, caller, is_error, ...block }) =>
        block.type === 'tool_result' ? { ...block, content: blocks(block.content).map(clean) } : block;
    const { system, metadata, ...rest } = body;
    return JSON.parse(
        JSON.stringify({
            ...rest,
            system: system && blocks(system).map(({ text }) => text).join('\n\n'),
            messages: body.messages.map(({ role, content }) => ({ role, content: blocks(content).map(clean) })),
        }),
    );
}

describe('openai', () => {
    const client = () => new OpenAI({ baseURL: gateway.baseURL, apiKey: licence });
    const find_order = {
        name: 'find_order',
        description: 'Looks an order up.',
        parameters: schema,
        parse: JSON.parse,
        function: ({ order }) => ({ order, state: 'on its way' }),
    };

    test('chat', async () => {
        const chat = await client().chat.completions.create({ model: 'claude-answer', messages });
        assert.equal(chat.object, 'chat.completion');
        assert.equal(chat.choices[0].message.content, WORDS.join(''));
        assert.equal(chat.choices[0].finish_reason, 'stop');
        assert.equal(chat.usage.prompt_tokens, INPUT);
        assert.equal(chat.usage.total_tokens, INPUT + USAGE.output_tokens);
        assert.equal(chat.usage.prompt_tokens_details.cached_tokens, USAGE.cache_read_input_tokens);
        assert.ok(chat._request_id, 'the request id reaches the app');
        isClean(last());
    });

    test('stream, with the usage only for apps that ask', async () => {
        const ask = (more) =>
            client().chat.completions.create({ model: 'claude-answer', messages, stream: true, ...more });
        let text = '';
        for await (const chunk of await ask()) {
            text += chunk.choices[0].delta.content ?? '';
            assert.ok(!chunk.usage);
        }
        assert.equal(text, WORDS.join(''));
        const chunks = [];
        for await (const chunk of await ask({ stream_options: { include_usage: true } })) chunks.push(chunk);
        assert.equal(chunks.at(-1).usage.total_tokens, INPUT + USAGE.output_tokens);
        assert.equal(new Set(chunks.map(({ id }) => id)).size, 1);
        isClean(last());
    });

    test('the helper for streams makes one message of it', async () => {
        const stream = client().chat.completions.stream({ model: 'claude-answer', messages });
        const chat = await stream.finalChatCompletion();
        assert.equal(chat.choices[0].message.content, WORDS.join(''));
        assert.equal(chat.choices[0].finish_reason, 'stop');
    });

    for (const stream of [false, true]) {
        test(`tool call, ${stream ? 'streamed' : 'JSON'}`, async () => {
            const tools = [{ type: 'function', function: find_order }];
            const runner = client().chat.completions.runTools({ model: 'claude-tool', stream, messages, tools });
            assert.equal(await runner.finalContent(), 'It is on its way.');
            const [, call, result] = last().body.messages;
            assert.deepEqual(call.content[0].input, { order: '20391' });
            assert.equal(result.content[0].tool_use_id, 'toolu_1');
            isClean(last());
        });
    }

    test('leaving the loop reaches the provider', async () => {
        const stream = await client().chat.completions.create({ model: 'claude-endless', messages, stream: true });
        for await (const chunk of stream) if (chunk.choices[0].delta.content) break;
        assert.equal(await soon(last().left, 'the cancel'), true);
    });

    test('a stream that breaks raises', async () => {
        const stream = await client().chat.completions.create({ model: 'claude-broken', messages, stream: true });
        let text = '';
        await assert.rejects(
            async () => {
                for await (const chunk of stream) text += chunk.choices[0].delta.content ?? '';
            },
            (error) => error instanceof OpenAI.APIError && /^The answer broke off/.test(error.message),
        );
        assert.equal(text, WORDS[0] + WORDS[1], 'what arrived before is shown');
    });

    test('400 names what has no translation', async () => {
        const format = { response_format: { type: 'json_object' } };
        const asked = client().chat.completions.create({ model: 'claude-answer', messages, ...format });
        await assert.rejects(asked, (error) => error.status === 400 && error.param === 'response_format');
    });

    test("what is sent is what Anthropic's SDK sends", async () => {
        const url = 'data:image/png;base64,aGVsbG8=';
        const call = { id: 'call_1', type: 'function', function: { name: 'find_order', arguments: '{"order":"7"}' } };
        await client().chat.completions.create({
            model: 'claude-answer',
            max_completion_tokens: 200,
            stop: 'END',
            messages: [
                { role: 'system', content: 'Be brief.' },
                { role: 'user', content: [{ type: 'text', text: 'And this?' }, { type: 'image_url', image_url: { url } }] },
                { role: 'assistant', content: 'Let me see.', tool_calls: [call] },
                { role: 'tool', tool_call_id: 'call_1', content: 'lost' },
                { role: 'user', content: 'Oh.' },
            ],
            tools: [{ type: 'function', function: { name: 'find_order', description: 'Finds.', parameters: schema } }],
            tool_choice: 'required',
            parallel_tool_calls: false,
            response_format: { type: 'json_schema', json_schema: { name: 'x', schema } },
        });
        const ours = last();
        isClean(ours);
        const direct = new Anthropic({ baseURL: new URL(gateway.provider.baseUrl).origin, apiKey: 'sk-direct' });
        await direct.messages.create({
            model: 'answer',
            max_tokens: 200,
            stop_sequences: ['END'],
            system: 'Be brief.',
            messages: [
                {
                    role: 'user',
                    content: [
                        { type: 'text', text: 'And this?' },
                        { type: 'image', source: { type: 'base64', media_type: 'image/png', data: 'aGVsbG8=' } },
                    ],
                },
                {
                    role: 'assistant',
                    content: [
                        { type: 'text', text: 'Let me see.' },
                        { type: 'tool_use', id: 'call_1', name: 'find_order', input: { order: '7' } },
                    ],
                },
                {
                    role: 'user',
                    content: [
                        { type: 'tool_result', tool_use_id: 'call_1', content: [{ type: 'text', text: 'lost' }] },
                        { type: 'text', text: 'Oh.' },
                    ],
                },
            ],
            tools: [{ name: 'find_order', description: 'Finds.', input_schema: schema }],
            tool_choice: { type: 'any', disable_parallel_tool_use: true },
            output_config: { format: { type: 'json_schema', schema } },
        });
        const theirs = last();
        assert.equal(ours.url, theirs.url);
        assert.equal(ours.headers['content-type'], theirs.headers['content-type']);
        const { metadata, ...sent } = ours.body;
        assert.match(metadata.user_id, /^[0-9a-f]{32}$/, 'identify is on');
        assert.deepEqual(sent, theirs.body);
    });
});

const providers = {
    '@ai-sdk/openai': () => createOpenAI({ baseURL: gateway.baseURL, apiKey: licence }).chat,
    '@ai-sdk/openai-compatible': () =>
        createOpenAICompatible({ name: 'gatekeeper', baseURL: gateway.baseURL, apiKey: licence, includeUsage: true }),
};

for (const [name, provider] of Object.entries(providers)) {
    describe(name, () => {
        const model = (id) => provider()(`claude-${id}`);
        const find_order = tool({
            description: 'Looks an order up.',
            inputSchema: jsonSchema(schema),
            execute: async ({ order }) => ({ order, state: 'on its way' }),
        });

        test('chat', async () => {
            const { text, usage, finishReason } = await generateText({ model: model('answer'), prompt });
            assert.equal(text, WORDS.join(''));
            assert.equal(finishReason, 'stop');
            assert.equal(usage.inputTokens, INPUT);
            assert.equal(usage.outputTokens, USAGE.output_tokens);
            assert.equal(usage.cachedInputTokens, USAGE.cache_read_input_tokens);
            isClean(last());
        });

        test('stream with usage', async () => {
            const result = streamText({ model: model('answer'), prompt });
            const parts = [];
            for await (const part of result.textStream) parts.push(part);
            assert.equal(parts.join(''), WORDS.join(''));
            assert.ok(parts.length > 1, 'word by word');
            assert.equal((await result.usage).inputTokens, INPUT);
            assert.equal((await result.usage).outputTokens, USAGE.output_tokens);
            assert.equal(await result.finishReason, 'stop');
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

        test('a stream that breaks raises', async () => {
            let shown;
            const result = streamText({ model: model('broken'), prompt, onError: ({ error }) => (shown = error) });
            let text = '';
            for await (const part of result.textStream) text += part;
            assert.equal(text, WORDS[0] + WORDS[1], 'what arrived before is shown');
            assert.ok(shown, 'the app hears that it broke');
        });

        test('what is sent is what @ai-sdk/anthropic sends', async () => {
            const image = { type: 'image', image: Buffer.from('hello'), mediaType: 'image/png' };
            const options = {
                system: 'Be brief.',
                messages: [
                    { role: 'user', content: [{ type: 'text', text: 'And this?' }, image] },
                    { role: 'assistant', content: 'A parcel.' },
                    { role: 'user', content: prompt },
                ],
                tools: { find_order },
                toolChoice: 'auto',
                stopSequences: ['END'],
                temperature: 0.5,
                maxOutputTokens: 300,
                stopWhen: stepCountIs(3),
            };
            const anthropic = createAnthropic({ baseURL: gateway.provider.baseUrl, apiKey: 'sk-direct' });
            const sent = async (model) => {
                const before = gateway.provider.requests.length;
                await generateText({ model, ...options });
                return gateway.provider.requests.slice(before).map(({ body }) => plain(body));
            };
            const ours = await sent(model('tool'));
            assert.equal(ours.length, 2, 'two rounds');
            assert.deepEqual(ours, await sent(anthropic('tool')));
        });
    });
}
