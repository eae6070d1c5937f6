// The provider's side of Gemini's own API. The model and the method stand in the path.
import { setTimeout as sleep } from 'node:timers/promises';

import { WORDS } from './provider.js';

export const USAGE = { promptTokenCount: 11, candidatesTokenCount: 5, thoughtsTokenCount: 2, totalTokenCount: 18 };

export const PATH = /\/models\/([^/]+):(generateContent|streamGenerateContent\?alt=sse)$/;

export const gemini = {
    async answer(body, res) {
        await reply(body, res, WORDS.map((text) => ({ text })));
    },
    // Asks for the tool first, and answers with what the tool found.
    async tool(body, res) {
        const found = body.contents.at(-1).parts.find((part) => part.functionResponse);
        if (!found) {
            const { name } = body.tools[0].functionDeclarations[0];
            return reply(body, res, [{ functionCall: { name, args: { order: '20391' } } }]);
        }
        const { response } = found.functionResponse;
        await reply(body, res, [{ text: `It is ${(response.content ?? response).state}.` }]);
    },
    async endless(body, res) {
        if (!body.stream) return; // no answer at all
        begin(res);
        while (!res.destroyed) {
            event(res, [{ text: 'again ' }]);
            await sleep(20);
        }
    },
    // Breaks after two words.
    async broken(body, res) {
        begin(res);
        for (const text of WORDS.slice(0, 2)) event(res, [{ text }]);
        await sleep(50);
        res.destroy();
    },
};

async function reply(body, res, parts) {
    if (!body.stream) {
        res.setHeader('content-type', 'application/json');
        return res.end(JSON.stringify(chunk(parts, { finishReason: 'STOP' })));
    }
    begin(res);
    for (const part of parts) {
        event(res, [part]);
        await sleep(2);
    }
    event(res, [{ text: '' }], { finishReason: 'STOP' });
    res.end();
}

const chunk = (parts, more = {}) => ({
    candidates: [{ content: { role: 'model', parts }, index: 0, ...more }],
    usageMetadata: USAGE,
    modelVersion: 'mock',
});

function begin(res) {
    res.writeHead(200, { 'content-type': 'text/event-stream' });
}

function event(res, parts, more) {
    res.write(`data: ${JSON.stringify(chunk(parts, more))}\r\n\r\n`);
}
