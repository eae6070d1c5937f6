// The one question: are buyers being served, and if not, why? Answered from `/status` alone, so that
// the words can be tested without a page.

import { and, attempt, clockSeconds, code, count, duration, many, percent, why } from './format.js';

/** Answers judged in the last minutes before a bad share of them is worth a word. */
const ENOUGH = 5;
const BAD_SHARE = 0.05;
/** From here on it is the rule, not the exception. */
const TERRIBLE_SHARE = 0.25;

/**
 * `{ tone, lead, tail, notes: [{ tone, text, href? }] }`. `tone` is served, waiting, failed or off.
 * `today` is `{ success, failed, refused, period }`, `lately` the same of the last five minutes, `answers` what
 * `Answers.judge` makes of the last ones, at the gateway's time `now`.
 */
export function sentence({ status, today, lately, answers = {}, now = 0 }) {
    const notes = [...shops(status), ...config(status), ...budget(status)];
    const providers = status.providers.map((provider) => condition(provider, status.keys));
    const serving = providers.filter(({ serves }) => serves);
    const tried = providers.filter(({ tried }) => tried);
    const out = providers.filter(({ serves, tried }) => !serves && !tried);
    const doubtful = [...out, ...tried];
    const said = (tone, lead, tail = [back(answers), figures(today)].filter(Boolean).join(' ')) => ({ tone, lead, tail, notes });

    if (status.phase === 'draining') {
        const open = status.in_flight ?? 0;
        const rest = open === 0 ? 'No answer is open.' : `${many(open, 'answer')} still on the way.`;
        return said('waiting', 'Shutting down: new requests are turned away.', rest);
    }
    if (providers.length > 0 && out.length === providers.length) return said('failed', ...noProviderServes(out, status, notes));
    if (status.store?.up === false) {
        const text = `${storeName(status)} does not answer. What is counted meanwhile is settled when it is back.`;
        notes.unshift({ tone: 'waiting', text });
    }
    const trouble = failing(answers, now) ?? struggling(answers, lately);
    if (trouble) {
        notes.unshift(...doubtful.map(({ words }) => ({ tone: 'waiting', text: `${words}.` })));
        return said(trouble.tone, trouble.words, trouble.tail);
    }
    if (doubtful.length > 0) {
        const lead = and(doubtful.map(({ words }) => words));
        if (serving.length === 0) return said('waiting', `No provider is sure to serve: ${lead}.`);
        return said('waiting', `${lead}; ${others(serving)}.`);
    }
    if (status.store?.up === false) return said('waiting', `Serving without ${storeName(status).replace('The', 'the')}.`);
    return said('served', allServe(providers));
}

const storeName = ({ store }) => (store.kind === 'redis' ? 'Redis' : 'The store');

/** No provider serves: in one sentence, or where there are several, one note for each. */
function noProviderServes(out, { keys, providers }, notes) {
    const fails = providers.some(({ state }) => state === 'sick');
    if (out.length === 1) return [`Nobody can be served: ${out[0].words}.`];
    notes.unshift(...out.map(({ words }) => ({ tone: 'failed', text: `${words}.` })));
    const all = out.length === 2 ? 'both providers are out' : `all ${out.length} providers are out`;
    const lefts = keys.filter(({ state }) => state !== 'off').map((key) => key.left_ms).filter((left) => left > 0);
    const next = lefts.length > 0 ? `The next key is tried in ${duration(Math.min(...lefts))}.` : fails ? 'They are asked again every few seconds.' : 'No key comes back by itself.';
    return [`Nobody can be served: ${all}.`, next];
}

function allServe(providers) {
    if (providers.length === 0) return 'No provider is configured.';
    const asked = providers.filter(({ asked }) => asked).length;
    if (asked > 0 && asked < providers.length) return `${others(providers)}.`;
    const what = asked > 0 ? 'serving' : 'ready, not asked yet';
    if (providers.length === 1) return `${providers[0].name} is ${what}.`;
    return `${providers.length === 2 ? 'Both providers are' : `All ${providers.length} providers are`} ${what}.`;
}

/** "a and b are serving; c is not asked yet". */
function others(serving) {
    const are = (some) => (some.length > 3 ? `${some.length} others are` : `${and(some.map(({ name }) => name))} ${some.length === 1 ? 'is' : 'are'}`);
    const [asked, fresh] = [serving.filter((one) => one.asked), serving.filter((one) => !one.asked)];
    return [asked.length > 0 && `${are(asked)} serving`, fresh.length > 0 && `${are(fresh)} not asked yet`].filter(Boolean).join('; ');
}

/** None of the last answers was whole. */
function failing({ outage, reasons }, now) {
    if (!outage) return null;
    const { inARow, last, since, stale } = outage;
    const of = inARow === 1 ? 'The last answer failed' : `None of the last ${count(inARow)} answers was whole`;
    const because = named(reasons.slice(0, inARow));
    const words = `${of}${because && ` (${because})`}.`;
    if (stale) return { tone: 'waiting', words, tail: `Nothing was asked for ${duration(now - last)}.` };
    return { tone: 'failed', words, tail: `Failing since ${clockSeconds(since)}: ${many(outage.failed, 'answer')}.` };
}

/** "groq: rate-limited, gemini: provider error": the last of each provider. */
function named(reasons = []) {
    const of = new Map();
    for (const { provider, outcome } of reasons) {
        if (!of.has(provider) && outcome) of.set(provider, provider ? `${provider}: ${attempt(outcome)}` : code(outcome));
    }
    return [...of.values()].slice(0, 3).join(', ');
}

const back = ({ again }) => again && `Serving again since ${clockSeconds(again.since)}; ${count(again.failed)} failed before.`;

function figures(today) {
    if (!today) return '';
    const { success, failed, refused, period = 'today' } = today;
    const judged = success + failed;
    const turned = refused > 0 ? ` ${count(refused)} refused.` : '';
    if (judged === 0) return `No answer ${period}.${turned}`;
    return `${many(judged, 'answer')} ${period}, ${percent(success / judged)} whole.${turned}`;
}

/** A share of the last answers failed: of the last 20 seconds, or where those are few of the last minutes. */
function struggling({ recent, again }, lately) {
    const last = recent ?? { good: 0, bad: 0 };
    const isEnough = last.good + last.bad >= ENOUGH;
    // What is over is in the minutes still.
    if (!isEnough && (again || !lately)) return null;
    const [good, failed] = isEnough ? [last.good, last.bad] : [lately.success, lately.failed];
    const judged = good + failed;
    const bad = failed / judged;
    if (judged < ENOUGH || bad < BAD_SHARE) return null;
    const words = `${count(failed)} of ${count(judged)} answers failed in the last ${isEnough ? '20 seconds' : '5 minutes'}.`;
    return { tone: bad < TERRIBLE_SHARE ? 'waiting' : 'failed', words };
}

/**
 * What one provider does, in words: `{ name, serves, tried, words }`. One that is `tried` may fail as before:
 * one request finds out.
 */
export function condition({ name, state, why: cause, sick_for_ms: sick }, keys) {
    const own = keys.filter(({ provider }) => provider === name);
    if (state === 'serving') return atWork(name, own);
    if (state === 'recovering') return { name, serves: false, tried: true, words: `${name} failed and is being tried again` };
    if (cause === 'no_address') return { name, serves: false, words: `${name} has no address (its host name can't be looked up)` };
    if (state === 'sick') {
        const since = sick >= 1000 ? ` for ${duration(sick)}` : '';
        if (cause === 'firewall') {
            return { name, serves: false, words: `${name} is left out${since}: the provider's firewall refuses this server` };
        }
        return { name, serves: false, words: `${name} has been failing${since} and is left out` };
    }
    return { name, serves: false, words: `${name} ${resting(own)}` };
}

/** Failures in a row from which on a key is taken for one that always fails. */
const ALWAYS = 2;

export const alwaysFails = ({ state, failed_in_a_row: failed = 0 }) => state === 'ready' && failed >= ALWAYS;
/** Where nothing is said of requests, it was asked. */
export const wasAsked = ({ requests = 1 }) => requests > 0;

/** Its circuit is closed and a key is ready: whether it serves is known once it was asked. */
function atWork(name, own) {
    const usable = own.filter(({ state }) => state === 'ready' || state === 'doubtful');
    if (usable.length > 0 && usable.every(alwaysFails)) {
        const last = Math.max(...usable.map(({ failed_in_a_row: failed }) => failed));
        return { name, serves: false, tried: true, words: `${name} failed the last ${count(last)} times it was asked` };
    }
    return { name, serves: true, asked: own.length === 0 || own.some(wasAsked), words: `${name} is serving` };
}

function resting(keys) {
    const wanted = keys.filter(({ state }) => state !== 'off');
    if (wanted.length === 0) return `has ${keys.length === 1 ? 'its key' : 'all its keys'} switched off`;
    const lefts = wanted.map((key) => key.left_ms).filter((left) => left > 0);
    const soonest = lefts.length > 0 ? Math.min(...lefts) : null;
    const causes = [...new Set(wanted.map((key) => key.why ?? (key.fails_for_ms ? 'failing' : null)).filter(Boolean))];
    if (causes.length === 1 && causes[0] === 'rate_limited') {
        return soonest === null ? 'is rate-limited' : `is rate-limited for ${duration(soonest)}`;
    }
    const next = soonest === null ? '' : `, next try in ${duration(soonest)}`;
    return `has no key ready (${and(causes.map(why))}${next})`;
}

function shops({ sources = [] }) {
    const words = {
        down: (name, because) => `${name} can't be asked${because}: known buyers are served, new licence keys wait.`,
        misconfigured: (name, because) => `${name} is not set up right${because}.`,
        holding: (name, because) => `${name} suddenly refuses many licences${because}: held back until it is sure.`,
    };
    return sources
        .filter(({ state }) => state !== 'ok')
        .map(({ name, state, why: because }) => {
            const tell = words[state] ?? (() => `${name}: ${state}.`);
            return { tone: 'waiting', text: tell(name, because ? ` (${because})` : '') };
        });
}

function config({ config: { refused, waits_for_restart: waits = [], limits_by_address: byAddress = true, https_in_front_missing: noTls = false } }) {
    const notes = [];
    if (noTls) {
        const text = 'behind_tls is set, but requests come without X-Forwarded-Proto: https: licence keys may cross the network in clear.';
        notes.push({ tone: 'failed', text, href: '#config' });
    }
    if (!byAddress) {
        const text = 'Limits by address are off: name the network of what speaks TLS for the gateway in trusted_proxies.';
        notes.push({ tone: 'waiting', text, href: '#config' });
    }
    if (refused) {
        const problems = many(refused.problems.length, 'problem');
        notes.push({
            tone: 'failed',
            text: `The last save of the configuration is not live: ${problems}. The one before it is.`,
            href: '#config',
        });
    }
    if (waits.length > 0) {
        notes.push({ tone: 'waiting', text: `${and(waits)} changed, which takes a restart.`, href: '#config' });
    }
    return notes;
}

function budget({ budget: whole, spent_today: spent, providers }) {
    const used = [{ name: null, whole, spent }, ...providers.map((p) => ({ name: p.name, whole: p.budget, spent: p.spent_today }))];
    return used
        .filter((one) => one.whole > 0 && one.spent >= one.whole * 0.8)
        .map((one) => {
            const whose = one.name ? `The day's budget of ${one.name}` : "The day's budget";
            const over = one.spent >= one.whole;
            const text = over ? `${whose} is spent.` : `${whose} is ${Math.floor((one.spent / one.whole) * 100)} % spent.`;
            return { tone: over ? 'failed' : 'waiting', text };
        });
}
