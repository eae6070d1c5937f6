// The one question: are buyers being served, and if not, why? Answered from `/status` alone, so that
// the words can be tested without a page.

import { and, count, duration, many, percent, why } from './format.js';

/** Answers judged in the last minutes before a bad share of them is worth a word. */
const ENOUGH = 5;
const BAD_SHARE = 0.05;
/** From here on it is the rule, not the exception. */
const TERRIBLE_SHARE = 0.25;

/**
 * `{ tone, lead, tail, notes: [{ tone, text, href? }] }`. `tone` is served, waiting, failed or off.
 * `today` is `{ success, failed, refused, period }`, `lately` the same of the last five minutes.
 */
export function sentence({ status, today, lately }) {
    const notes = [...shops(status), ...config(status), ...budget(status)];
    const providers = status.providers.map((provider) => condition(provider, status.keys));
    const serving = providers.filter(({ serves }) => serves);
    const tried = providers.filter(({ tried }) => tried);
    const out = providers.filter(({ serves, tried }) => !serves && !tried);
    const doubtful = [...out, ...tried];
    const said = (tone, lead, tail = figures(today)) => ({ tone, lead, tail, notes });

    if (status.phase === 'draining') {
        const open = status.in_flight ?? 0;
        const rest = open === 0 ? 'No answer is open.' : `${many(open, 'answer')} still on the way.`;
        return said('waiting', 'Shutting down: new requests are turned away.', rest);
    }
    if (providers.length > 0 && out.length === providers.length) return said('failed', ...nobody(out, status, notes));
    if (status.store?.up === false) {
        const text = `${storeName(status)} does not answer. What is counted meanwhile is settled when it is back.`;
        notes.unshift({ tone: 'waiting', text });
    }
    const trouble = struggling(lately);
    if (trouble) {
        notes.unshift(...doubtful.map(({ words }) => ({ tone: 'waiting', text: `${words}.` })));
        return said(trouble.tone, trouble.words);
    }
    if (doubtful.length > 0) {
        const lead = and(doubtful.map(({ words }) => words));
        if (serving.length === 0) return said('waiting', `No provider is sure to serve: ${lead}.`);
        const others = serving.map(({ name }) => name);
        const serve = others.length > 3
            ? `the other ${others.length} are`
            : `${and(others)} ${others.length === 1 ? 'is' : 'are'}`;
        return said('waiting', `${lead}; ${serve} serving.`);
    }
    if (status.store?.up === false) return said('waiting', `Serving without ${storeName(status).replace('The', 'the')}.`);
    return said('served', allServe(providers));
}

const storeName = ({ store }) => (store.kind === 'redis' ? 'Redis' : 'The store');

/** No provider serves: in one sentence, or where there are several, one note for each. */
function nobody(out, { keys }, notes) {
    if (out.length === 1) return [`Nobody can be served: ${out[0].words}.`];
    notes.unshift(...out.map(({ words }) => ({ tone: 'failed', text: `${words}.` })));
    const all = out.length === 2 ? 'both providers are out' : `all ${out.length} providers are out`;
    const lefts = keys.filter(({ state }) => state !== 'off').map((key) => key.left_ms).filter((left) => left > 0);
    const next = lefts.length > 0 ? `The next key is tried in ${duration(Math.min(...lefts))}.` : 'No key comes back by itself.';
    return [`Nobody can be served: ${all}.`, next];
}

function allServe(providers) {
    if (providers.length === 0) return 'No provider is configured.';
    if (providers.length === 1) return `${providers[0].name} is serving.`;
    if (providers.length === 2) return 'Both providers are serving.';
    return `All ${providers.length} providers are serving.`;
}

function figures(today) {
    if (!today) return '';
    const { success, failed, refused, period = 'today' } = today;
    const judged = success + failed;
    const turned = refused > 0 ? ` ${count(refused)} refused.` : '';
    if (judged === 0) return `No answer ${period}.${turned}`;
    return `${many(judged, 'answer')} ${period}, ${percent(success / judged)} whole.${turned}`;
}

/** Failures that buyers saw in the last minutes. */
function struggling(lately) {
    if (!lately) return null;
    const judged = lately.success + lately.failed;
    const bad = lately.failed / judged;
    if (judged < ENOUGH || bad < BAD_SHARE) return null;
    const words = `${count(lately.failed)} of ${count(judged)} answers failed in the last 5 minutes.`;
    return { tone: bad < TERRIBLE_SHARE ? 'waiting' : 'failed', words };
}

/**
 * What one provider does, in words: `{ name, serves, tried, words }`. One that is `tried` may fail as before:
 * one request finds out.
 */
export function condition({ name, state, why: cause, sick_for_ms: sick }, keys) {
    if (state === 'serving') return { name, serves: true, words: `${name} is serving` };
    if (state === 'recovering') return { name, serves: false, tried: true, words: `${name} failed and is being tried again` };
    if (state === 'sick') {
        const since = sick ? ` for ${duration(sick)}` : '';
        if (cause === 'firewall') {
            return { name, serves: false, words: `${name} is left out${since}: the provider's firewall refuses this server` };
        }
        return { name, serves: false, words: `${name} fails${since} and is left out` };
    }
    const own = keys.filter(({ provider }) => provider === name);
    return { name, serves: false, words: `${name} ${resting(own)}` };
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

function config({ config: { refused, waits_for_restart: waits = [], limits_by_address: byAddress = true } }) {
    const notes = [];
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
