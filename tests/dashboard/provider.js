// A small OpenAI-like provider whose keys can be told to misbehave, and which counts.
import { once } from 'node:events';
import http from 'node:http';
import { setTimeout as sleep } from 'node:timers/promises';

export const USAGE = { prompt_tokens: 11, completion_tokens: 5, total_tokens: 16 };

export async function startProvider() {
    // What a secret is answered: a status, `broken`, or `hang` until `release`; else it is served.
    const moods = {};
    /** `pace()` makes `{ ms, usage }` of an answer; without, it comes at once. */
    const provider = { moods, retryAfter: 30, asked: [], answered: 0, pace: () => ({ ms: 0, usage: USAGE }) };
    const server = http.createServer(async (req, res) => {
        let text = '';
        for await (const part of req) text += part;
        const secret = req.headers.authorization?.replace('Bearer ', '');
        res.on('error', () => {});
        const mood = moods[secret];
        if (req.method === 'GET') return json(res, mood === 401 ? 401 : 200, { object: 'list', data: [] });
        provider.asked.push(secret);
        if (typeof mood === 'number') {
            if (mood === 429) res.setHeader('retry-after', String(provider.retryAfter));
            return json(res, mood, { error: { message: 'no', type: 'error', code: 'error' } });
        }
        const { stream, model } = JSON.parse(text);
        const { ms, usage } = provider.pace();
        await sleep(ms);
        if (!stream) {
            provider.answered += 1;
            const message = { role: 'assistant', content: 'On its way.' };
            return json(res, 200, { ...about('chat.completion', model), choices: [{ index: 0, message, finish_reason: 'stop' }], usage });
        }
        res.writeHead(200, { 'content-type': 'text/event-stream' });
        const event = (delta, more = {}) => {
            const choices = [{ index: 0, delta, finish_reason: null }];
            res.write(`data: ${JSON.stringify({ ...about('chat.completion.chunk', model), choices, ...more })}\n\n`);
        };
        event({ role: 'assistant', content: 'On ' });
        await sleep(10 + ms);
        if (mood === 'broken') return res.destroy();
        if (mood === 'hang') await new Promise((resolve) => (provider.release = resolve));
        event({ content: 'its way.' });
        event({}, { choices: [{ index: 0, delta: {}, finish_reason: 'stop' }] });
        event({}, { choices: [], usage });
        res.end('data: [DONE]\n\n');
        provider.answered += 1;
    });
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    return Object.assign(provider, {
        baseUrl: `http://127.0.0.1:${server.address().port}/v1`,
        stop() {
            server.close();
            server.closeAllConnections();
        },
    });
}

const about = (object, model) => ({ id: 'chatcmpl-1', object, created: 1764000000, model });

function json(res, status, body) {
    res.writeHead(status, { 'content-type': 'application/json' });
    res.end(JSON.stringify(body));
}
