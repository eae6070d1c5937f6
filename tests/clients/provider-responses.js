// The provider's side of OpenAI's responses. It keeps nothing: whoever sends an id gets a 404.
import { setTimeout as sleep } from 'node:timers/promises';

import { WORDS } from './provider.js';

export const USAGE = {
    input_tokens: 11,
    input_tokens_details: { cached_tokens: 0 },
    output_tokens: 5,
    output_tokens_details: { reasoning_tokens: 0 },
    total_tokens: 16,
};

export const responses = {
    async answer(body, res) {
        await reply(body, res, message(WORDS.join('')));
    },
    // Asks for the tool first, and answers with what the tool found.
    async tool(body, res) {
        const found = Array.isArray(body.input) && body.input.find((item) => item.type === 'function_call_output');
        if (!found) {
            const call = { type: 'function_call', id: 'fc_1', call_id: 'call_1', name: body.tools[0].name };
            return reply(body, res, { ...call, arguments: '{"order":"20391"}', status: 'completed' });
        }
        await reply(body, res, message(`It is ${JSON.parse(found.output).state}.`));
    },
};

const message = (text) => ({
    type: 'message',
    id: 'msg_1',
    role: 'assistant',
    status: 'completed',
    content: [{ type: 'output_text', text, annotations: [] }],
});

async function reply(body, res, item) {
    const about = { id: 'resp_1', object: 'response', created_at: 1764000000, model: body.model, error: null };
    const whole = { ...about, status: 'completed', incomplete_details: null, output: [item], usage: USAGE };
    if (!body.stream) {
        res.setHeader('content-type', 'application/json');
        return res.end(JSON.stringify(whole));
    }
    res.writeHead(200, { 'content-type': 'text/event-stream' });
    let sequence_number = 0;
    const event = (type, more) => {
        const data = { type, sequence_number, ...more };
        sequence_number += 1;
        res.write(`event: ${type}\ndata: ${JSON.stringify(data)}\n\n`);
    };
    const at = { item_id: item.id, output_index: 0 };
    event('response.created', { response: { ...about, status: 'in_progress', output: [] } });
    if (item.type === 'message') {
        const [part] = item.content;
        const inPart = { ...at, content_index: 0 };
        event('response.output_item.added', { output_index: 0, item: { ...item, content: [], status: 'in_progress' } });
        event('response.content_part.added', { ...inPart, part: { ...part, text: '' } });
        for (const delta of part.text.split(/(?<= )/)) {
            event('response.output_text.delta', { ...inPart, delta, logprobs: [] });
            await sleep(2);
        }
        event('response.output_text.done', { ...inPart, text: part.text, logprobs: [] });
        event('response.content_part.done', { ...inPart, part });
    } else {
        event('response.output_item.added', { output_index: 0, item: { ...item, arguments: '', status: 'in_progress' } });
        event('response.function_call_arguments.delta', { ...at, delta: item.arguments });
        event('response.function_call_arguments.done', { ...at, arguments: item.arguments });
    }
    event('response.output_item.done', { output_index: 0, item });
    event('response.completed', { response: whole });
    res.end();
}
