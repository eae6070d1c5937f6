// Gemini's own API, with the SDKs that speak it.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';

import { createGoogleGenerativeAI } from '@ai-sdk/google';
import { ApiError, GoogleGenAI } from '@google/genai';
import { APICallError, generateText, jsonSchema, stepCountIs, streamText, tool } from 'ai';

import { soon, startGateway } from './gateway.js';
import { USAGE } from './provider-gemini.js';
import { MASTER_KEY, WORDS } from './provider.js';

const prompt = 'Where is my parcel?';
const schema = { type: 'object', properties: { order: { type: 'string' } }, required: ['order'] };
const OUTPUT = USAGE.candidatesTokenCount + USAGE.thoughtsTokenCount;

let gateway;
before(async () => (gateway = await startGateway()));
after(() => gateway?.stop());

const last = () => gateway.provider.requests.at(-1);

/** What the provider saw is ours, and nothing of the SDK's or the buyer's. */
function isClean(seen, path) {
    assert.equal(seen.url, `/v1/models/${path}`);
    assert.equal(seen.headers['x-goog-api-key'], MASTER_KEY);
    assert.equal(seen.headers.authorization, undefined);
    assert.equal(seen.headers['x-goog-api-client'], undefined);
    assert.ok(!JSON.stringify(seen).includes(gateway.licence), 'the licence stays here');
}

/** What the gateway says to a bare request, to compare with what an SDK shows. */
async function says(licence, model, body = {}) {
    const response = await fetch(`${gateway.url}/v1beta/models/${model}:generateContent`, {
        method: 'POST',
        headers: { 'x-goog-api-key': licence, 'content-type': 'application/json' },
        body: JSON.stringify({ contents: [{ parts: [{ text: prompt }] }], ...body }),
    });
    return (await response.json()).error;
}

/** Tokens that the licence has used. */
async function used() {
    const response = await fetch(`${gateway.baseURL}/me`, {
        headers: { authorization: `Bearer ${gateway.licence}` },
    });
    return (await response.json()).limits.tokens.used;
}

describe('@google/genai', () => {
    const models = (apiKey = gateway.licence) =>
        new GoogleGenAI({ apiKey, httpOptions: { baseUrl: gateway.url } }).models;
    const find = { name: 'find_order', description: 'Looks an order up.', parametersJsonSchema: schema };

    test('answer', async () => {
        const before = await used();
        const answer = await models().generateContent({
            model: 'answer',
            contents: prompt,
            config: { systemInstruction: 'Be brief.', maxOutputTokens: 50, temperature: 0 },
        });
        assert.equal(answer.text, WORDS.join(''));
        assert.equal(answer.usageMetadata.totalTokenCount, USAGE.totalTokenCount);
        isClean(last(), 'answer:generateContent');
        assert.deepEqual(last().body.generationConfig, { temperature: 0, maxOutputTokens: 50 });
        assert.equal((await used()) - before, USAGE.totalTokenCount);
    });

    test('stream', async () => {
        const stream = await models().generateContentStream({ model: 'answer', contents: prompt });
        let text = '';
        let usage;
        for await (const chunk of stream) {
            text += chunk.text ?? '';
            usage = chunk.usageMetadata;
        }
        assert.equal(text, WORDS.join(''));
        assert.equal(usage.totalTokenCount, USAGE.totalTokenCount);
        isClean(last(), 'answer:streamGenerateContent?alt=sse');
    });

    test('tool call', async () => {
        const config = { tools: [{ functionDeclarations: [find] }] };
        const contents = [{ role: 'user', parts: [{ text: prompt }] }];
        const first = await models().generateContent({ model: 'tool', contents, config });
        const [call] = first.functionCalls;
        assert.deepEqual(call.args, { order: '20391' });
        const functionResponse = { name: call.name, response: { state: 'on its way' } };
        contents.push(first.candidates[0].content, { role: 'user', parts: [{ functionResponse }] });
        const second = await models().generateContent({ model: 'tool', contents, config });
        assert.equal(second.text, 'It is on its way.');
    });

    test('an image goes through, a stored file is refused by name', async () => {
        const show = (part) =>
            models().generateContent({ model: 'answer', contents: [{ role: 'user', parts: [part] }] });
        const image = await show({ inlineData: { mimeType: 'image/png', data: 'AAAA' } });
        assert.equal(image.text, WORDS.join(''));
        await assert.rejects(
            show({ fileData: { fileUri: 'https://example.com/files/1', mimeType: 'image/png' } }),
            (error) => error instanceof ApiError && error.status === 400 && /file_id/.test(error.message),
        );
    });

    test('abort of a stream reaches the provider', async () => {
        const abort = new AbortController();
        const config = { abortSignal: abort.signal };
        const stream = await models().generateContentStream({ model: 'endless', contents: prompt, config });
        await assert.rejects(async () => {
            for await (const _ of stream) abort.abort();
        });
        assert.equal(await soon(last().left, 'the cancel'), true);
    });

    test('402 shows the message, after one request', async () => {
        const licence = gateway.oneMessage();
        await models(licence).generateContent({ model: 'answer', contents: prompt });
        const said = await says(licence, 'answer');
        assert.equal(said.code, 402);
        assert.equal(said.details[0].reason, 'QUOTA_EXCEEDED');
        for (const ask of ['generateContent', 'generateContentStream']) {
            const before = await gateway.answered();
            await assert.rejects(models(licence)[ask]({ model: 'answer', contents: prompt }), (error) => {
                assert.ok(error instanceof ApiError);
                assert.equal(error.status, 402);
                assert.ok(error.message.includes(said.message), error.message);
                return true;
            });
            assert.equal((await gateway.answered()) - before, 1);
        }
    });

    for (const [what, status, licence, model, config] of [
        ['an unknown licence', 403, 'NOT-A-LICENCE-0001', 'answer'],
        ['a model of another plan', 403, 'FULL-0001', 'not-in-the-plan'],
        ['no such model', 404, 'FULL-0001', 'nothing'],
        ['a hosted tool', 400, 'FULL-0001', 'answer', { tools: [{ googleSearch: {} }] }],
        ['more than one answer', 400, 'FULL-0001', 'answer', { candidateCount: 2 }],
    ]) {
        test(`${status} shows the message: ${what}`, async () => {
            const { tools, ...generationConfig } = config ?? {};
            const said = await says(licence, model, { tools, generationConfig });
            await assert.rejects(models(licence).generateContent({ model, contents: prompt, config }), (error) => {
                assert.ok(error instanceof ApiError);
                assert.equal(error.status, status);
                assert.equal(JSON.parse(error.message).error.message, said.message);
                return true;
            });
        });
    }

    test('a stream that breaks raises', async () => {
        const stream = await models().generateContentStream({ model: 'broken', contents: prompt });
        let text = '';
        await assert.rejects(
            async () => {
                for await (const chunk of stream) text += chunk.text ?? '';
            },
            (error) => error instanceof ApiError && /broke off/.test(error.message),
        );
        assert.equal(text, WORDS[0] + WORDS[1], 'what arrived before is shown');
    });
});

describe('@ai-sdk/google', () => {
    const model = (id, apiKey = gateway.licence) =>
        createGoogleGenerativeAI({ baseURL: `${gateway.url}/v1beta`, apiKey })(id);
    const find_order = tool({
        description: 'Looks an order up.',
        inputSchema: jsonSchema(schema),
        execute: async ({ order }) => ({ order, state: 'on its way' }),
    });

    test('answer', async () => {
        const { text, usage, finishReason } = await generateText({ model: model('answer'), prompt, system: 'Be brief.' });
        assert.equal(text, WORDS.join(''));
        assert.equal(finishReason, 'stop');
        assert.equal(usage.inputTokens, USAGE.promptTokenCount);
        assert.equal(usage.outputTokens, OUTPUT);
        isClean(last(), 'answer:generateContent');
    });

    test('stream with usage', async () => {
        const result = streamText({ model: model('answer'), prompt });
        let text = '';
        for await (const part of result.textStream) text += part;
        assert.equal(text, WORDS.join(''));
        const usage = await result.usage;
        assert.equal(usage.outputTokens, OUTPUT);
        isClean(last(), 'answer:streamGenerateContent?alt=sse');
    });

    test('tool call', async () => {
        const options = { prompt, tools: { find_order }, stopWhen: stepCountIs(3) };
        const { text, steps } = await generateText({ model: model('tool'), ...options });
        assert.equal(text, 'It is on its way.');
        assert.deepEqual(steps[0].toolCalls[0].input, { order: '20391' });
        const streamed = streamText({ model: model('tool'), ...options });
        assert.equal(await streamed.text, 'It is on its way.');
    });

    test('402 shows the message, after one request', async () => {
        const licence = gateway.oneMessage();
        await generateText({ model: model('answer', licence), prompt });
        const said = await says(licence, 'answer');
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
    });
});
