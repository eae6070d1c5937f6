// A small provider of all dialects. The model's name says what it does.
import { once } from 'node:events';
import http from 'node:http';
import { setTimeout as sleep } from 'node:timers/promises';

import { anthropic } from './provider-anthropic.js';
import { PATH, gemini } from './provider-gemini.js';
import { responses } from './provider-responses.js';

export const MASTER_KEY = 'sk-master-of-the-client-tests';
export const USAGE = { prompt_tokens: 11, completion_tokens: 5, total_tokens: 16 };
export const WORDS = ['The ', 'parcel ', 'is ', 'on ', 'its way.'];

export async function startProvider() {
    const requests = []; // what arrived, in order: { url, headers, body, left: Promise<boolean> }
    const server = http.createServer(async (req, res) => {
        let text = '';
        for await (const part of req) text += part;
        const body = JSON.parse(text);
        const left = once(res, 'close').then(() => !res.writableFinished);
        requests.push({ url: req.url, headers: req.headers, body, left });
        res.on('error', () => {});
        await behaviour(req.url, body)(body, res);
    });
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    return {
        requests,
        baseUrl: `http://127.0.0.1:${server.address().port}/v1`,
        stop() {
            server.close();
            server.closeAllConnections();
        },
    };
}

function behaviour(url, body) {
    const [, model, method] = PATH.exec(url) ?? [];
    if (model) {
        body.stream = method !== 'generateContent';
        return gemini[model];
    }
    if (url.endsWith('/messages')) return anthropic[body.model];
    if (url.endsWith('/responses')) return responses[body.model];
    return chat[body.model] ?? answer;
}

const chat = {
    answer,
    tool,
    // Never comes to an end by itself.
    async endless(body, res) {
        if (!body.stream) return; // no answer at all
        begin(res);
        while (!res.destroyed) {
            event(res, { delta: { role: 'assistant', content: 'again ' } });
            await sleep(20);
        }
    },
    // Breaks after two words.
    async broken(body, res) {
        begin(res);
        event(res, { delta: { role: 'assistant', content: WORDS[0] } });
        event(res, { delta: { content: WORDS[1] } });
        await sleep(50);
        res.destroy();
    },
};

async function answer(body, res) {
    if (!body.stream) {
        return json(res, { message: { role: 'assistant', content: WORDS.join('') }, finish_reason: 'stop' });
    }
    begin(res);
    event(res, { delta: { role: 'assistant', content: '' } });
    for (const content of WORDS) {
        event(res, { delta: { content } });
        await sleep(5);
    }
    end(res, body, 'stop');
}

// Asks for the tool first, and answers with what the tool found.
async function tool(body, res) {
    const found = body.messages.findLast((message) => message.role === 'tool');
    if (found) {
        const content = `It is ${JSON.parse(found.content).state}.`;
        if (!body.stream) return json(res, { message: { role: 'assistant', content }, finish_reason: 'stop' });
        begin(res);
        event(res, { delta: { role: 'assistant', content } });
        return end(res, body, 'stop');
    }
    const call = (args) => ({
        id: 'call_1',
        type: 'function',
        function: { name: body.tools[0].function.name, arguments: args },
    });
    if (!body.stream) {
        return json(res, {
            message: { role: 'assistant', content: null, tool_calls: [call('{"order":"20391"}')] },
            finish_reason: 'tool_calls',
        });
    }
    begin(res);
    event(res, { delta: { role: 'assistant', tool_calls: [{ index: 0, ...call('') }] } });
    for (const part of ['{"order"', ':"20391"}']) {
        event(res, { delta: { tool_calls: [{ index: 0, function: { arguments: part } }] } });
    }
    end(res, body, 'tool_calls');
}

const about = (object) => ({ id: 'chatcmpl-1', object, created: 1764000000, model: 'mock' });

function json(res, choice) {
    res.setHeader('content-type', 'application/json');
    res.end(JSON.stringify({ ...about('chat.completion'), choices: [{ index: 0, ...choice }], usage: USAGE }));
}

function begin(res) {
    res.writeHead(200, { 'content-type': 'text/event-stream' });
}

function event(res, choice, more = {}) {
    const choices = choice ? [{ index: 0, finish_reason: null, ...choice }] : [];
    res.write(`data: ${JSON.stringify({ ...about('chat.completion.chunk'), choices, ...more })}\n\n`);
}

function end(res, body, finish_reason) {
    event(res, { delta: {}, finish_reason });
    if (body.stream_options?.include_usage) event(res, null, { usage: USAGE });
    res.end('data: [DONE]\n\n');
}
