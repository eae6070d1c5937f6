// Makes the pictures of the README: `npm run screenshots`, with the built gateway under traffic.
import { mkdir, stat, writeFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';

import { runGateway } from '../clients/gateway.js';
import { PHONE, isFine, open, startBrowser } from './browser.js';
import { startProvider } from './provider.js';

const folder = fileURLToPath(new URL('screenshots', import.meta.url));
const LARGEST = 200_000;
/** Some minutes of traffic. */
const TURNS = 330;

const provider = await startProvider();
let made = 0;
provider.pace = () => {
    made += 1;
    const [input, output] = [180 + ((made * 397) % 2100), 40 + ((made * 211) % 560)];
    return {
        ms: 140 + ((made * 97) % 420),
        usage: { prompt_tokens: input, completion_tokens: output, total_tokens: input + output },
    };
};
const buyers = ['free', 'pro', 'team'].map((plan) => ({ key: `BUYER-OF-${plan.toUpperCase()}-0001`, plan }));
const gateway = await runGateway(
    {
        licenses: { sources: [{ static: { keys: buyers } }] },
        plans: {
            free: { messages: '30/month', tokens: '100000/month', models: ['fast'] },
            pro: { messages: '1000/month', tokens: '5000000/month', models: ['*'] },
            team: { models: ['*'] },
        },
        providers: {
            groq: {
                base_url: provider.baseUrl,
                budget: { day: '$5' },
                keys: [
                    { id: 'groq-1', secret: 'env:GROQ_1', group: 'org-a' },
                    { id: 'groq-2', secret: 'env:GROQ_2', group: 'org-a' },
                    { id: 'groq-3', secret: 'env:GROQ_3', group: 'org-b' },
                ],
            },
            gemini: { base_url: provider.baseUrl, keys: [{ id: 'gemini-1', secret: 'env:GEMINI_1' }] },
        },
        models: {
            fast: ['groq/llama-3.1-8b-instant', 'gemini/gemini-2.5-flash'],
            strong: ['groq/llama-3.3-70b-versatile', 'gemini/gemini-2.5-flash'],
            auto: { smart: { simple: 'fast', complex: 'strong' } },
        },
        prices: {
            'groq/llama-3.1-8b-instant': { input: 0.05, output: 0.08 },
            'groq/llama-3.3-70b-versatile': { input: 0.59, output: 0.79 },
            'gemini/gemini-2.5-flash': { input: 0.3, output: 2.5 },
        },
        budget: { day: '$20' },
    },
    { GROQ_1: 'sk-1', GROQ_2: 'sk-2', GROQ_3: 'sk-3', GEMINI_1: 'sk-4' },
);
const browser = await startBrowser();
/** Pages stay until the browser ends. */
const shown = { after() {} };

async function ask(turn) {
    const { key } = buyers[[1, 0, 2, 1, 2][turn % 5]];
    const model = key.includes('FREE') ? 'fast' : ['auto', 'strong', 'fast', 'auto'][turn % 4];
    const response = await fetch(`${gateway.url}/v1/chat/completions`, {
        method: 'POST',
        headers: { authorization: `Bearer ${key}`, 'content-type': 'application/json' },
        body: JSON.stringify({ model, stream: turn % 3 > 0, messages: [{ role: 'user', content: 'Where is my parcel?' }] }),
    });
    await response.text();
}

try {
    await mkdir(folder, { recursive: true });
    const pages = [
        ['desktop', await open(shown, browser, gateway.admin, { plain: false })],
        ['desktop-light', await open(shown, browser, gateway.admin, { plain: false, colorScheme: 'light' })],
        ['phone', await open(shown, browser, gateway.admin, { plain: false, ...PHONE, deviceScaleFactor: 2 })],
    ];
    const answers = [];
    for (let turn = 0; turn < TURNS; turn += 1) {
        provider.moods['sk-1'] = turn > TURNS - 18 ? 429 : null;
        provider.moods['sk-2'] = turn > TURNS - 8 ? 429 : null;
        provider.moods['sk-3'] = turn % 13 === 12 ? 500 : null;
        answers.push(ask(turn));
        await new Promise((resolve) => setTimeout(resolve, 250 + (turn % 7) * 100));
    }
    await Promise.all(answers);
    await pages[0][1].waitForTimeout(2500);
    for (const [name, page] of pages) {
        const session = await page.context().newCDPSession(page);
        const { data } = await session.send('Page.captureScreenshot', { format: 'webp', quality: 82, ...(name === 'phone' && { clip: { x: 0, y: 0, ...PHONE.viewport, scale: 2 } }) });
        const file = `${folder}/${name}.webp`;
        await writeFile(file, Buffer.from(data, 'base64'));
        const { size } = await stat(file);
        console.log(`${file}: ${size} bytes`);
        if (size > LARGEST) throw new Error(`${name} is larger than ${LARGEST} bytes`);
        isFine(page);
    }
} finally {
    await browser.close();
    provider.stop();
    await gateway.stop();
}
