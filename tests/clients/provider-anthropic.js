// The provider's side of Anthropic's messages.
import { setTimeout as sleep } from 'node:timers/promises';

import { WORDS } from './provider.js';

export const USAGE = { input_tokens: 11, cache_creation_input_tokens: 0, cache_read_input_tokens: 3, output_tokens: 5 };

export const anthropic = {
    async answer(body, res) {
        await reply(body, res, [{ type: 'text', text: WORDS.join('') }]);
    },
    // Asks for the tool first, and answers with what the tool found.
    async tool(body, res) {
        const results = body.messages.at(-1).content;
        const found = Array.isArray(results) && results.find((block) => block.type === 'tool_result');
        if (!found) {
            const call = { type: 'tool_use', id: 'toolu_1', name: body.tools[0].name, input: { order: '20391' } };
            return reply(body, res, [call], 'tool_use');
        }
        const said = Array.isArray(found.content) ? found.content[0].text : found.content;
        await reply(body, res, [{ type: 'text', text: `It is ${JSON.parse(said).state}.` }]);
    },
    async endless(body, res) {
        if (!body.stream) return; // no answer at all
        begin(body, res);
        event(res, { type: 'content_block_start', index: 0, content_block: { type: 'text', text: '' } });
        while (!res.destroyed) {
            event(res, { type: 'content_block_delta', index: 0, delta: { type: 'text_delta', text: 'again ' } });
            await sleep(20);
        }
    },
    // Breaks after two words.
    async broken(body, res) {
        begin(body, res);
        event(res, { type: 'content_block_start', index: 0, content_block: { type: 'text', text: '' } });
        for (const text of WORDS.slice(0, 2)) {
            event(res, { type: 'content_block_delta', index: 0, delta: { type: 'text_delta', text } });
        }
        await sleep(50);
        res.destroy();
    },
};

const about = (body) => ({ id: 'msg_1', type: 'message', role: 'assistant', model: body.model, stop_sequence: null });

async function reply(body, res, content, stop_reason = 'end_turn') {
    if (!body.stream) {
        res.setHeader('content-type', 'application/json');
        return res.end(JSON.stringify({ ...about(body), content, stop_reason, usage: USAGE }));
    }
    begin(body, res);
    for (const [index, block] of content.entries()) {
        const empty = block.type === 'text' ? { type: 'text', text: '' } : { ...block, input: {} };
        event(res, { type: 'content_block_start', index, content_block: empty });
        event(res, { type: 'ping' });
        for (const delta of deltas(block)) {
            event(res, { type: 'content_block_delta', index, delta });
            await sleep(2);
        }
        event(res, { type: 'content_block_stop', index });
    }
    const { output_tokens } = USAGE;
    event(res, { type: 'message_delta', delta: { stop_reason, stop_sequence: null }, usage: { output_tokens } });
    event(res, { type: 'message_stop' });
    res.end();
}

function deltas(block) {
    if (block.type === 'text') {
        return block.text.split(/(?<= )/).map((text) => ({ type: 'text_delta', text }));
    }
    const json = JSON.stringify(block.input);
    const parts = ['', json.slice(0, 5), json.slice(5)];
    return parts.map((partial_json) => ({ type: 'input_json_delta', partial_json }));
}

function begin(body, res) {
    res.writeHead(200, { 'content-type': 'text/event-stream' });
    const message = { ...about(body), content: [], stop_reason: null, usage: { ...USAGE, output_tokens: 1 } };
    event(res, { type: 'message_start', message });
}

function event(res, data) {
    res.write(`event: ${data.type}\ndata: ${JSON.stringify(data)}\n\n`);
}
