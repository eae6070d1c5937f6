// What the page's first sentence says, in every state of the gateway.
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { test } from 'node:test';

// As the browser gets them: modules, whatever an older Node takes files named .js for.
const module = (text) => `data:text/javascript,${encodeURIComponent(text)}`;
const source = (name) => readFile(new URL(`../../dashboard/${name}`, import.meta.url), 'utf8');
const format = module(await source('format.js'));
const { sentence } = await import(module((await source('sentence.js')).replace("'./format.js'", JSON.stringify(format))));

const ready = (provider, id = `${provider}-1`) => ({ provider, id, state: 'ready', why: null, left_ms: null });
const cooling = (provider, left_ms) => ({ provider, id: `${provider}-1`, state: 'cooling', why: 'rate_limited', left_ms });
const serving = (name) => ({ name, state: 'serving', sick_for_ms: null, spent_today: 0, budget: null });
const out = (name) => ({ ...serving(name), state: 'out' });

const fine = {
    phase: 'serving',
    in_flight: 0,
    keys: [ready('groq'), ready('gemini')],
    providers: [serving('groq'), serving('gemini')],
    sources: [{ name: 'static', state: 'ok', why: null }],
    store: { kind: 'embedded', up: true },
    config: { refused: null, waits_for_restart: [] },
    spent_today: 0,
    budget: null,
};
const today = { success: 1199, failed: 5, refused: 0, period: 'today' };
const calm = { success: 50, failed: 0, refused: 3 };

/** Tone, first part, second part, notes; thin spaces as spaces. */
function say(change, more = {}) {
    const { tone, lead, tail, notes } = sentence({ status: { ...fine, ...change }, today, lately: calm, ...more });
    const plain = (text) => text.replaceAll('\u202f', ' ');
    return [tone, plain(lead), plain(tail), notes.map((note) => `${note.tone}: ${plain(note.text)}`)];
}

test('all is well', () => {
    assert.deepEqual(say({}), ['served', 'Both providers are serving.', '1,204 answers today, 99.5 % whole.', []]);
    const three = ['groq', 'gemini', 'anthropic'];
    const [, lead] = say({ providers: three.map(serving), keys: three.map((name) => ready(name)) });
    assert.equal(lead, 'All 3 providers are serving.');
    assert.equal(say({ providers: [serving('groq')] })[1], 'groq is serving.');
});

test('a hundred per cent is said only where nothing failed', () => {
    const of = (success, failed) => say({}, { today: { ...today, success, failed } })[2];
    assert.equal(of(100_000, 1), '100,001 answers today, 99.9 % whole.');
    assert.equal(of(100_000, 0), '100,000 answers today, 100 % whole.');
    assert.equal(of(0, 0), 'No answer today.');
    const since = { success: 1, failed: 0, refused: 2, period: 'since 14:02' };
    assert.equal(say({}, { today: since })[2], '1 answer since 14:02, 100 % whole. 2 refused.');
});

test('a provider is rate-limited and another one serves', () => {
    const change = { providers: [out('groq'), serving('gemini')], keys: [cooling('groq', 41_000), ready('gemini')] };
    assert.deepEqual(say(change).slice(0, 2), ['waiting', 'groq is rate-limited for 41 s; gemini is serving.']);
});

test('the soonest key counts, and keys that were switched off do not', () => {
    const keys = [cooling('groq', 41_000), { ...cooling('groq', 9_000), id: 'groq-2' }, { ...ready('groq'), id: 'groq-3', state: 'off' }, ready('gemini')];
    assert.match(say({ providers: [out('groq'), serving('gemini')], keys })[1], /^groq is rate-limited for 9 s;/);
    const off = [{ ...ready('groq'), state: 'off' }, ready('gemini')];
    assert.match(say({ providers: [out('groq'), serving('gemini')], keys: off })[1], /^groq has its key switched off;/);
    const bad = [{ ...ready('groq'), state: 'quarantined', why: 'bad_credential', left_ms: 30_000 }, ready('gemini')];
    assert.match(say({ providers: [out('groq'), serving('gemini')], keys: bad })[1], /^groq has no key ready \(key rejected, next try in 30 s\);/);
    // The account that is left fails, another one's key is rejected.
    const failing = [...bad, { ...ready('groq'), id: 'groq-2', fails_for_ms: 5000 }];
    assert.match(say({ providers: [out('groq'), serving('gemini')], keys: failing })[1], /^groq has no key ready \(key rejected and its answers fail, next try in 30 s\);/);
});

test('a provider fails', () => {
    const sick = { ...serving('groq'), state: 'sick', sick_for_ms: 12_000 };
    assert.deepEqual(say({ providers: [sick, serving('gemini')] }).slice(0, 2), ['waiting', 'groq fails for 12 s and is left out; gemini is serving.']);
});

test('a provider failed and is tried again: that it serves is not sure', () => {
    const tried = (name) => ({ ...serving(name), state: 'recovering', sick_for_ms: 130_000 });
    assert.deepEqual(say({ providers: [tried('groq'), serving('gemini')] }).slice(0, 2), ['waiting', 'groq failed and is being tried again; gemini is serving.']);
    assert.deepEqual(say({ providers: [tried('groq')] }).slice(0, 2), ['waiting', 'No provider is sure to serve: groq failed and is being tried again.']);
    const keys = [ready('groq'), cooling('gemini', 41_000)];
    assert.equal(say({ providers: [tried('groq'), out('gemini')], keys })[1], 'No provider is sure to serve: gemini is rate-limited for 41 s and groq failed and is being tried again.');
    const [tone, , , notes] = say({ providers: [tried('groq'), serving('gemini')] }, { lately: { success: 10, failed: 10, refused: 0 } });
    assert.deepEqual([tone, notes], ['failed', ['waiting: groq failed and is being tried again.']]);
});

test('nobody can be served', () => {
    const one = { providers: [out('groq')], keys: [cooling('groq', 41_000)] };
    assert.deepEqual(say(one).slice(0, 2), ['failed', 'Nobody can be served: groq is rate-limited for 41 s.']);
    const two = { providers: [out('groq'), out('gemini')], keys: [cooling('groq', 41_000), cooling('gemini', 12_000)] };
    assert.deepEqual(say(two), [
        'failed',
        'Nobody can be served: both providers are out.',
        'The next key is tried in 12 s.',
        ['failed: groq is rate-limited for 41 s.', 'failed: gemini is rate-limited for 12 s.'],
    ]);
    const off = { providers: [out('groq'), out('gemini')], keys: [{ ...ready('groq'), state: 'off' }, { ...ready('gemini'), state: 'off' }] };
    assert.equal(say(off)[2], 'No key comes back by itself.');
});

test('answers fail although providers seem to serve', () => {
    const lately = (success, failed) => say({}, { lately: { success, failed, refused: 0 } }).slice(0, 2);
    assert.deepEqual(lately(68, 4), ['waiting', '4 of 72 answers failed in the last 5 minutes.']);
    assert.deepEqual(lately(10, 10), ['failed', '10 of 20 answers failed in the last 5 minutes.']);
    assert.equal(lately(99, 1)[0], 'served', 'one of a hundred is no news');
    assert.equal(lately(1, 1)[0], 'served', 'two answers say little');
});

test('the store is away', () => {
    const [tone, lead, , notes] = say({ store: { kind: 'redis', up: false } });
    assert.deepEqual([tone, lead], ['waiting', 'Serving without Redis.']);
    assert.match(notes[0], /^waiting: Redis does not answer\./);
    assert.equal(say({ store: { kind: 'embedded', up: false } })[1], 'Serving without the store.');
});

test('a shop is down, and buyers that are known are served all the same', () => {
    const sources = [{ name: 'lemonsqueezy', state: 'down', why: 'timeout' }];
    const [tone, , , notes] = say({ sources });
    assert.equal(tone, 'served');
    assert.deepEqual(notes, ["waiting: lemonsqueezy can't be asked (timeout): known buyers are served, new licence keys wait."]);
});

test('the last save was refused, and something waits for a restart', () => {
    const config = { refused: { at: '2026-01-02T03:04:05Z', problems: ['1:1: a', '2:1: b'] }, waits_for_restart: ['server.listen'] };
    assert.deepEqual(say({ config })[3], [
        'failed: The last save of the configuration is not live: 2 problems. The one before it is.',
        'waiting: server.listen changed, which takes a restart.',
    ]);
});

test('a budget runs out', () => {
    assert.deepEqual(say({ budget: 20, spent_today: 17 })[3], ["waiting: The day's budget is 85 % spent."]);
    const providers = [{ ...serving('groq'), budget: 5, spent_today: 5.01 }, serving('gemini')];
    assert.deepEqual(say({ providers })[3], ["failed: The day's budget of groq is spent."]);
});

test('the gateway drains', () => {
    assert.deepEqual(say({ phase: 'draining', in_flight: 2 }).slice(0, 3), [
        'waiting',
        'Shutting down: new requests are turned away.',
        '2 answers still on the way.',
    ]);
});
