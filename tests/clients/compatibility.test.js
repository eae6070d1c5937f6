// compatcanary against the demo: what it probes holds, or stands here with the reason.
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

import { runDemo } from './gateway.js';

/** What does not pass, by its id, and why that is meant. */
const MISSES = {};

const scanner = fileURLToPath(new URL('./node_modules/compatcanary/src/cli.js', import.meta.url));

test('every miss of compatcanary is explained', async (t) => {
    const demo = await runDemo();
    t.after(() => demo.stop());
    const words = ['scan', '--base-url', `${demo.url}/v1`, '--model', 'fast', '--format', 'json', '--fail-on', 'never'];
    const env = { ...process.env, OPENAI_API_KEY: 'JSTAR-DEMO-PRO-0001' };
    const { stdout } = await promisify(execFile)(process.execPath, [scanner, ...words], { env });
    const { results } = JSON.parse(stdout);
    assert.ok(results.length >= 7, stdout);
    const missed = results.filter(({ status }) => status !== 'pass').map(({ id }) => id);
    assert.deepEqual(missed.sort(), Object.keys(MISSES).sort(), stdout);
});
