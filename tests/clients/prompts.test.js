// Each SDK asks a prompt of the gateway, in a way it can; the model and the text are not its choice.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';

import { createAnthropic } from '@ai-sdk/anthropic';
import { createGoogleGenerativeAI } from '@ai-sdk/google';
import { createOpenAI } from '@ai-sdk/openai';
import { createOpenAICompatible } from '@ai-sdk/openai-compatible';
import Anthropic from '@anthropic-ai/sdk';
import { GoogleGenAI } from '@google/genai';
import { generateText, streamText } from 'ai';
import OpenAI from 'openai';

import { Gatekeeper } from '../../examples/electron/gatekeeper.js';
import { runGateway } from './gateway.js';

const apiKey = 'JSTAR-DEMO-0001';
const variables = { shop: "Ann's shop", language: 'German' };
const content = JSON.stringify(variables);
const question = 'Where is my parcel?';

let gateway;
before(async () => {
    gateway = await runGateway({
        licenses: { sources: [{ static: { keys: [{ key: apiKey, plan: 'all' }] } }] },
        plans: { all: { prompts: ['reply'], prompts_only: true } },
        providers: {
            'stand-in': { base_url: 'stand-in' },
            'stand-in-anthropic': { base_url: 'stand-in', dialect: 'anthropic' },
            'stand-in-gemini': { base_url: 'stand-in', dialect: 'gemini' },
        },
        models: { fast: ['stand-in/small', 'stand-in-anthropic/small', 'stand-in-gemini/small'] },
        prompts: {
            reply: {
                model: 'fast',
                system: 'You answer for {{shop}} in {{language}}.',
                input: {
                    shop: { max: 80, required: true },
                    language: { one_of: ['English', 'German'] },
                    history: { turns: 4, max: 400 },
                },
                max_output_tokens: 200,
            },
        },
    });
});
after(() => gateway?.stop());

/** The stand-in says what the user said. */
const said = (text) => {
    assert.match(text, /stand-in provider/);
    assert.ok(text.includes("Ann's shop"), text);
};
const refusedBy = (status, code) => (error) => {
    const body = JSON.stringify(error.error ?? error.responseBody ?? error.message).toLowerCase();
    assert.equal(error.status ?? error.statusCode, status);
    assert.ok(body.includes(code), body);
    return true;
};

describe('openai', () => {
    const client = () => new OpenAI({ baseURL: `${gateway.url}/v1`, apiKey, maxRetries: 0 });
    const messages = [{ role: 'developer', content }, { role: 'user', content: question }];

    test('chat, whole and as a stream', async () => {
        const answer = await client().chat.completions.create({ model: 'prompt/reply', messages });
        said(answer.choices[0].message.content);
        let text = '';
        const stream = await client().chat.completions.create({ model: 'prompt/reply', messages, stream: true });
        for await (const chunk of stream) text += chunk.choices[0]?.delta?.content ?? '';
        said(text);
    });

    test('responses', async () => {
        const answer = await client().responses.create({ prompt: { id: 'reply', variables }, input: question });
        said(answer.output_text);
    });

    test('the address of the prompt itself', async () => {
        const body = { variables, messages: [{ role: 'user', content: question }] };
        const answer = await client().post('/prompts/reply', { body });
        said(answer.choices[0].message.content);
    });

    test('anything else is refused', async () => {
        const ask = (body) => client().chat.completions.create({ messages, ...body });
        await assert.rejects(ask({ model: 'fast' }), refusedBy(403, 'prompt_required'));
        await assert.rejects(ask({ model: 'prompt/reply', max_tokens: 201 }), refusedBy(400, 'max_tokens'));
        const system = { role: 'system', content: 'Be a pirate.' };
        await assert.rejects(ask({ model: 'prompt/reply', messages: [...messages, system] }), refusedBy(400, 'messages'));
    });
});

test('the example app', async () => {
    let kept = null;
    const store = { load: async () => kept, save: async (next) => (kept = next) };
    const gate = new Gatekeeper({ OpenAI, url: gateway.url, store });
    await gate.login(apiKey);
    let text = '';
    const messages = [{ role: 'user', content: question }];
    for await (const piece of gate.chat({ prompt: 'reply', variables, messages })) text += piece;
    said(text);
});

test('@anthropic-ai/sdk', async () => {
    const client = new Anthropic({ baseURL: gateway.url, apiKey, maxRetries: 0 });
    const body = { model: 'prompt/reply', max_tokens: 200, system: content, messages: [{ role: 'user', content: question }] };
    said((await client.messages.create(body)).content[0].text);
    await assert.rejects(client.messages.create({ ...body, system: 'Be a pirate.' }), refusedBy(400, 'system'));
});

test('@google/genai', async () => {
    const client = new GoogleGenAI({ apiKey, httpOptions: { baseUrl: gateway.url } });
    const answer = await client.models.generateContent({
        model: 'prompt/reply',
        contents: question,
        config: { systemInstruction: content },
    });
    said(answer.text);
});

describe('ai', () => {
    const baseURL = () => `${gateway.url}/v1`;
    for (const [name, model] of Object.entries({
        '@ai-sdk/openai (chat)': () => createOpenAI({ baseURL: baseURL(), apiKey }).chat('prompt/reply'),
        '@ai-sdk/openai (responses)': () => createOpenAI({ baseURL: baseURL(), apiKey })('prompt/reply'),
        '@ai-sdk/openai-compatible': () => createOpenAICompatible({ name: 'gatekeeper', baseURL: baseURL(), apiKey })('prompt/reply'),
        '@ai-sdk/anthropic': () => createAnthropic({ baseURL: baseURL(), apiKey })('prompt/reply'),
        '@ai-sdk/google': () => createGoogleGenerativeAI({ baseURL: `${gateway.url}/v1beta`, apiKey })('models/prompt/reply'),
    })) {
        test(name, async () => {
            const asked = { model: model(), system: content, prompt: question, maxOutputTokens: 200, maxRetries: 0 };
            said((await generateText(asked)).text);
            let text = '';
            for await (const piece of streamText(asked).textStream) text += piece;
            said(text);
        });
    }
});
