// A newcomer's first minutes: the SDKs against the configuration that the program ships, whose provider is made up.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';

import { createAnthropic } from '@ai-sdk/anthropic';
import { createGoogleGenerativeAI } from '@ai-sdk/google';
import { createOpenAI } from '@ai-sdk/openai';
import Anthropic from '@anthropic-ai/sdk';
import { GoogleGenAI } from '@google/genai';
import { embedMany, generateObject, generateText, jsonSchema, stepCountIs, streamText, tool } from 'ai';
import OpenAI from 'openai';

import { runGateway } from './gateway.js';

const apiKey = 'JSTAR-DEMO-0001';
const prompt = 'Where is my parcel?';
const SAID = /This is the stand-in provider\. You said: "Where is my parcel\?"\./;
const schema = {
    type: 'object',
    properties: { order: { type: 'string' }, days: { type: 'integer', minimum: 2, maximum: 9 }, kind: { type: 'string', enum: ['sea', 'air'] } },
    required: ['order', 'days', 'kind'],
    additionalProperties: false,
};
const PIXEL = 'iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==';

let gateway;
before(async () => {
    gateway = await runGateway({
        licenses: { sources: [{ static: { keys: [{ key: apiKey, plan: 'all' }] } }] },
        plans: { all: { models: ['*'] } },
        providers: {
            'stand-in': { base_url: 'stand-in' },
            'stand-in-anthropic': { base_url: 'stand-in', dialect: 'anthropic' },
            'stand-in-gemini': { base_url: 'stand-in', dialect: 'gemini' },
        },
        models: { fast: ['stand-in/small', 'stand-in-anthropic/small', 'stand-in-gemini/small'] },
    });
});
after(() => gateway?.stop());

const fits = ({ order, days, kind }, isBounded = true) => {
    assert.equal(typeof order, 'string');
    assert.ok(Number.isInteger(days));
    if (isBounded) assert.ok(days >= 2 && days <= 9);
    assert.ok(['sea', 'air'].includes(kind));
};

describe('openai', () => {
    const client = () => new OpenAI({ baseURL: `${gateway.url}/v1`, apiKey, maxRetries: 0 });
    const messages = [{ role: 'user', content: prompt }];
    const format = { type: 'json_schema', name: 'parcel', strict: true, schema };

    test('responses: JSON, events, a schema, a tool', async () => {
        const whole = await client().responses.create({ model: 'fast', input: prompt });
        assert.match(whole.output_text, SAID);
        const stream = client().responses.stream({ model: 'fast', input: prompt });
        let text = '';
        for await (const event of stream) if (event.type === 'response.output_text.delta') text += event.delta;
        assert.match(text, SAID);
        assert.match((await stream.finalResponse()).output_text, SAID);
        fits((await client().responses.parse({ model: 'fast', input: prompt, text: { format } })).output_parsed);
        const tools = [{ type: 'function', name: 'find', parameters: schema, strict: true }];
        const [call] = (await client().responses.create({ model: 'fast', input: prompt, tools })).output;
        fits(JSON.parse(call.arguments));
        const input = [{ role: 'user', content: prompt }, call, { type: 'function_call_output', call_id: call.call_id, output: 'at sea' }];
        assert.match((await client().responses.create({ model: 'fast', input, tools })).output_text, /The tool said: "at sea"/);
    });

    test('chat: parse, runTools, an image', async () => {
        const response_format = { type: 'json_schema', json_schema: { name: 'parcel', strict: true, schema } };
        fits((await client().chat.completions.parse({ model: 'fast', messages, response_format })).choices[0].message.parsed);
        const asked = [];
        const find = { name: 'find', description: 'finds', parameters: schema, parse: JSON.parse, function: (args) => (asked.push(args), 'at sea') };
        const runner = client().chat.completions.runTools({ model: 'fast', messages, stream: true, tools: [{ type: 'function', function: find }] });
        assert.match(await runner.finalContent(), /The tool said: "at sea"/);
        fits(asked[0]);
        const content = [{ type: 'text', text: prompt }, { type: 'image_url', image_url: { url: `data:image/png;base64,${PIXEL}` } }];
        const seen = await client().chat.completions.create({ model: 'fast', messages: [{ role: 'user', content }] });
        assert.match(seen.choices[0].message.content, /One image came along/);
        assert.ok(seen.usage.prompt_tokens < 300);
    });

    test('embeddings come as they are asked for', async () => {
        // The SDK asks for base64 by itself.
        const { data } = await client().embeddings.create({ model: 'fast', input: ['a', 'b'], dimensions: 16 });
        assert.deepEqual(data.map(({ embedding }) => embedding.length), [16, 16]);
        assert.ok(Math.abs(data[0].embedding.reduce((sum, part) => sum + part * part, 0) - 1) < 1e-3);
        assert.notDeepEqual(data[0].embedding, data[1].embedding);
    });

    test('models: the list, one of them, and one that is not there', async () => {
        assert.equal((await client().models.retrieve('fast')).id, 'fast');
        await assert.rejects(client().models.retrieve('fats'), /Did you mean "fast"\?/);
    });
});

describe('anthropic', () => {
    const client = () => new Anthropic({ baseURL: gateway.url, apiKey, maxRetries: 0 });
    const ask = { model: 'fast', max_tokens: 500, messages: [{ role: 'user', content: prompt }] };
    test('message, stream, tool, count', async () => {
        assert.match((await client().messages.create(ask)).content[0].text, SAID);
        assert.match(await client().messages.stream(ask).finalText(), SAID);
        const tools = [{ name: 'find', input_schema: schema }];
        const called = await client().messages.stream({ ...ask, tools }).finalMessage();
        assert.equal(called.stop_reason, 'tool_use');
        fits(called.content[0].input);
        const { max_tokens, ...bare } = ask;
        assert.ok((await client().messages.countTokens(bare)).input_tokens > 3);
    });
});

describe('@google/genai', () => {
    for (const apiVersion of ['v1beta', 'v1']) {
        test(`content, stream, tool, schema at ${apiVersion}`, async () => {
            const client = new GoogleGenAI({ apiKey, apiVersion, httpOptions: { baseUrl: gateway.url } });
            const ask = { model: 'fast', contents: prompt };
            assert.match((await client.models.generateContent(ask)).text, SAID);
            let text = '';
            for await (const chunk of await client.models.generateContentStream(ask)) text += chunk.text ?? '';
            assert.match(text, SAID);
            const config = { responseMimeType: 'application/json', responseJsonSchema: schema };
            fits(JSON.parse((await client.models.generateContent({ ...ask, config })).text));
            const tools = [{ functionDeclarations: [{ name: 'find', parametersJsonSchema: schema }] }];
            fits((await client.models.generateContent({ ...ask, config: { tools } })).functionCalls[0].args);
        });
    }
});

describe('ai', () => {
    const providers = () => ({
        openai: createOpenAI({ baseURL: `${gateway.url}/v1`, apiKey })('fast'),
        chat: createOpenAI({ baseURL: `${gateway.url}/v1`, apiKey }).chat('fast'),
        anthropic: createAnthropic({ baseURL: `${gateway.url}/v1`, apiKey })('fast'),
        google: createGoogleGenerativeAI({ baseURL: `${gateway.url}/v1beta`, apiKey })('fast'),
    });
    for (const name of ['openai', 'chat', 'anthropic', 'google']) {
        test(`${name}: text, stream, object, tool`, async () => {
            const model = providers()[name];
            assert.match((await generateText({ model, prompt, maxRetries: 0 })).text, SAID);
            assert.match(await streamText({ model, prompt, maxRetries: 0 }).text, SAID);
            const { object } = await generateObject({ model, prompt, schema: jsonSchema(schema), maxRetries: 0 });
            // Google's provider of the AI SDK sends no minimum and no maximum.
            fits(object, name !== 'google');
            const find = tool({ inputSchema: jsonSchema(schema), execute: async () => 'at sea' });
            const { text } = await generateText({ model, prompt, tools: { find }, stopWhen: stepCountIs(3), maxRetries: 0 });
            assert.match(text, /The tool said: /);
        });
    }
    test('embeddings', async () => {
        const model = createOpenAI({ baseURL: `${gateway.url}/v1`, apiKey }).textEmbeddingModel('fast');
        assert.equal((await embedMany({ model, values: ['a', 'b'], maxRetries: 0 })).embeddings.length, 2);
    });
});
