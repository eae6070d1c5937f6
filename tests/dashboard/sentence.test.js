// What the page's first sentence says, in every state of the gateway.
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { test } from 'node:test';

// As the browser gets them: modules, whatever an older Node takes files named .js for.
const module = (text) => `data:text/javascript,${encodeURIComponent(text)}`;
const source = (name) => readFile(new URL(`../../dashboard/${name}`, import.meta.url), 'utf8');
const format = module(await source('format.js'));
const { Answers } = await import(module(await source('answers.js')));
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
    assert.deepEqual(say({ providers: [sick, serving('gemini')] }).slice(0, 2), ['waiting', 'groq has been failing for 12 s and is left out; gemini is serving.']);
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

test('a provider that was not asked, always fails or has no address is not said to serve', () => {
    const fresh = [{ ...ready('groq'), requests: 0 }, { ...ready('gemini'), requests: 0 }];
    assert.deepEqual(say({ keys: fresh }).slice(0, 2), ['served', 'Both providers are ready, not asked yet.']);
    assert.equal(say({ keys: [{ ...ready('groq'), requests: 4 }, fresh[1]] })[1], 'groq is serving; gemini is not asked yet.');
    assert.equal(say({ providers: [serving('groq')], keys: [fresh[0]] })[1], 'groq is ready, not asked yet.');
    const failing = { ...ready('gemini'), requests: 9, errors: 9, failed_in_a_row: 9 };
    assert.deepEqual(say({ keys: [ready('groq'), failing] }).slice(0, 2), ['waiting', 'gemini failed the last 9 times it was asked; groq is serving.']);
    const lost = { ...out('gemini'), why: 'no_address' };
    assert.deepEqual(say({ providers: [serving('groq'), lost], keys: [fresh[0], ready('gemini')] }).slice(0, 2), [
        'waiting', "gemini has no address (its host name can't be looked up); groq is not asked yet.",
    ]);
});

/** What the page says after requests of these outcomes, `step` milliseconds apart. */
function heard(outcomes, { step = 100, wait = 0, from = 1_000_000_000_000 } = {}) {
    const answers = new Answers();
    answers.take({ success: 0, failed: 0 }, [], from);
    const totals = { success: 0, failed: 0 };
    let at = from;
    outcomes.forEach((outcome, id) => {
        at = from + id * step;
        totals[outcome === 'whole' ? 'success' : 'failed'] += 1;
        const attempts = [{ provider: id % 2 ? 'groq' : 'gemini', outcome: id % 2 ? 'rate_limited' : 'provider_error' }];
        answers.take(totals, [{ id, time: new Date(at).toISOString(), outcome, attempts }], at);
    });
    const now = at + wait;
    return say({}, { answers: answers.judge(now), now, lately: null });
}
const times = (n, outcome) => Array.from({ length: n }, () => outcome);

test('none of the last answers was whole: red at once, with the reason', () => {
    assert.deepEqual(heard(times(100, 'whole'))[0], 'served');
    const [tone, lead, tail] = heard([...times(400, 'whole'), ...times(3, 'failed')]);
    assert.equal(tone, 'failed');
    assert.equal(lead, 'None of the last 3 answers was whole (gemini: provider error, groq: rate-limited).');
    assert.match(tail, /^Failing since \d\d:\d\d:\d\d: 3 answers\.$/);
    assert.equal(heard(times(2, 'failed'))[0], 'failed', 'nothing else is known');
    assert.equal(heard([...times(9, 'whole'), 'failed'], { step: 60_000 })[0], 'served', 'one is no rule');
    const [later, , ago] = heard(times(4, 'broken'), { wait: 12 * 60_000 });
    assert.deepEqual([later, ago], ['waiting', 'Nothing was asked for 12 min.']);
});

test('good again: at once, since when, and how many failed', () => {
    const [tone, lead, tail] = heard([...times(50, 'whole'), ...times(450, 'failed'), ...times(5, 'whole')]);
    assert.deepEqual([tone, lead], ['served', 'Both providers are serving.']);
    assert.match(tail, /^Serving again since \d\d:\d\d:\d\d; 450 failed before\. 1,204 answers today/);
    const again = heard([...times(5, 'failed'), 'whole', ...times(5, 'failed'), 'whole']);
    assert.match(again[2], /; 10 failed before\./, 'one good answer in between did not end it');
    const old = heard([...times(5, 'failed'), ...times(400, 'whole')], { step: 1000 });
    assert.ok(!old[2].includes('again'), 'after five minutes it is no news');
});

test('some of the last answers fail', () => {
    const mixed = Array.from({ length: 100 }, (_, n) => (n % 5 === 4 ? 'failed' : 'whole'));
    assert.deepEqual(heard(mixed).slice(0, 2), ['waiting', '20 of 100 answers failed in the last 20 seconds.']);
    const half = Array.from({ length: 100 }, (_, n) => (n % 2 ? 'failed' : 'whole'));
    assert.deepEqual(heard(half).slice(0, 2), ['failed', '50 of 100 answers failed in the last 20 seconds.']);
    assert.equal(heard([...half, ...times(22, 'whole')])[0], 'served', 'two seconds of good ones later it is over');
});

test('at many answers a second most are counted, not listed', () => {
    const answers = new Answers();
    const now = 1_000_000_000_000;
    const listed = (from, outcome) => Array.from({ length: 50 }, (_, n) => ({ id: from + 50 - n, time: new Date(now).toISOString(), outcome }));
    answers.take({ success: 100, failed: 0 }, listed(0, 'whole'), now);
    answers.take({ success: 100, failed: 300 }, listed(400, 'failed'), now);
    const { outage } = answers.judge(now);
    assert.deepEqual([outage.failed, outage.inARow], [300, 300]);
    answers.take({ success: 90, failed: 290 }, [], now);
    answers.take({ success: 101, failed: 300 }, [], now);
    assert.equal(answers.judge(now).again.failed, 300, 'an older status moves nothing');
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

test('behind_tls, and nothing that speaks TLS shows', () => {
    const config = { ...fine.config, https_in_front_missing: true };
    assert.match(say({ config })[3][0], /^failed: behind_tls is set, but requests come without X-Forwarded-Proto: https/);
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
