// Master keys by provider and account: how each is, why, until when, and what an operator does about it.

import { at, list, make, say, show } from './element.js';
import { and, compact, count, dollars, duration, exact, many, millis, why } from './format.js';
import { alwaysFails, condition, wasAsked } from './sentence.js';
import { post } from './api.js';

const TONES = { ready: 'served', doubtful: 'waiting', cooling: 'waiting', quarantined: 'failed', off: 'off' };
const WORDS = { ready: 'ready', doubtful: 'in doubt', cooling: 'cooling', quarantined: 'set aside', off: 'off' };
const PROVIDER_TONES = { serving: 'served', recovering: 'waiting', sick: 'failed', out: 'waiting' };
const PROVIDER_WORDS = { serving: 'serving', recovering: 'being tried again', sick: 'failing', out: 'no key ready' };

const FOUND = {
    taken: 'The provider takes this key.',
    refused: 'The provider refuses this key.',
    no_list: 'The provider has no list of models: only a request can tell.',
    unwell: 'The provider says that it is not well.',
    silent: 'The provider did not answer in time.',
};
/** A probe waits for the provider. */
const PROBE_MS = 30_000;

export class Keys {
    constructor({ clock, changed }) {
        this.clock = clock;
        this.changed = changed;
        this.box = at('keys');
        this.read = 0;
    }

    update({ providers, keys }) {
        this.read = this.clock();
        const groups = providers.map((provider) => ({
            ...provider,
            condition: condition(provider, keys),
            keys: keys.filter((key) => key.provider === provider.name),
        }));
        show(at('keys-none'), groups.length === 0);
        list(this.box, groups, {
            key: ({ name }) => name,
            create: (provider) => this.provider(provider),
            update: (box, provider) => this.freshenProvider(box, provider),
        });
    }

    provider({ name, dialect }) {
        return make('section', { class: 'provider', 'aria-label': `Provider ${name}` },
            make('h3', {},
                make('span', { class: 'mark', 'aria-hidden': 'true' }),
                make('span', { class: 'name' }, name),
                dialect && dialect !== name ? make('span', { class: 'dialect', title: 'What it speaks' }, dialect) : null,
                make('span', { class: 'state' })),
            make('p', { class: 'spent', hidden: true }),
            make('div', { class: 'accounts' }));
    }

    freshenProvider(box, provider) {
        const { state, keys, spent_today: spent, budget } = provider;
        const { serves, asked, tried } = provider.condition;
        const isFresh = serves && !asked;
        const tone = isFresh ? 'off' : state === 'serving' && tried ? 'waiting' : (PROVIDER_TONES[state] ?? 'off');
        box.querySelector('h3 .mark').className = `mark ${tone} state-${isFresh ? 'off' : tone === 'waiting' ? 'out' : state}`;
        const since = state === 'sick' && provider.sick_for_ms ? ` for ${duration(provider.sick_for_ms)}` : '';
        say(box.querySelector('h3 .state'), `${providerWord(provider)}${since}`);
        if (show(box.querySelector('.spent'), budget > 0)) {
            say(box.querySelector('.spent'), `${dollars(spent)} of ${dollars(budget)} spent today`);
        }
        const accounts = [...new Set(keys.map(({ group }) => group))].map((group) => ({
            group,
            keys: keys.filter((key) => key.group === group),
        }));
        list(box.querySelector('.accounts'), accounts, {
            key: ({ group }) => group,
            create: ({ group }) => make('div', { class: 'account' }, make('p', { class: 'account-name' }, `account ${group}`), make('ul', {})),
            update: (account, { group, keys: own }) => {
                // A key alone in an account of its own name needs no heading.
                show(account.querySelector('.account-name'), own.length > 1 || own[0].id !== group);
                list(account.querySelector('ul'), own, {
                    key: ({ id }) => id,
                    create: (key) => this.key(key),
                    update: (row, key) => this.freshen(row, key),
                });
            },
        });
    }

    key({ provider, id }) {
        const act = (command, label) =>
            make('button', { type: 'button', class: `small ${command}`, 'aria-label': `${label} ${id}`, onclick: (event) => this.act(command, { provider, key: id }, event.currentTarget) }, label);
        return make('li', { class: 'key' },
            make('span', { class: 'mark', 'aria-hidden': 'true' }),
            make('span', { class: 'id' }, id),
            make('span', { class: 'state' }),
            make('span', { class: 'numbers' }),
            make('span', { class: 'resting' }),
            make('span', { class: 'progress', 'aria-hidden': 'true', hidden: true }, make('i')),
            make('span', { class: 'acts' }, act('pause', 'Pause'), act('resume', 'Resume'), act('probe', 'Probe')),
            make('span', { class: 'left' }),
            make('span', { class: 'said', role: 'status' }));
    }

    freshen(row, key) {
        row.data = key;
        const [shown, tone, word] = standing(key);
        row.className = `key ${tone}`;
        row.querySelector('.mark').className = `mark ${tone} state-${shown}`;
        const reason = key.why ? `: ${why(key.why)}` : '';
        const state = row.querySelector('.state');
        say(state, `${word}${reason}`);
        state.title = key.since ? `since ${exact(key.since)}` : '';
        say(row.querySelector('.numbers'), numbers(key));
        const isOff = key.state === 'off';
        show(row.querySelector('.pause'), !isOff);
        show(row.querySelector('.resume'), key.state !== 'ready');
        show(row.querySelector('.probe'), !isOff);
        this.count(row);
    }

    /** Once a second: what is left of a rest, between two reports. */
    tick() {
        for (const row of this.box.querySelectorAll('.key')) this.count(row);
    }

    count(row) {
        const { left_ms: left, state, since, limit, remaining } = row.data;
        const now = this.clock();
        const still = left === null || left === undefined ? null : Math.max(0, left - (now - this.read));
        const lasted = since ? now - Date.parse(since) : null;
        const words = [];
        if (still !== null) words.push(state === 'quarantined' ? `next try in ${duration(still)}` : `${duration(still)} left`);
        else if (lasted !== null && state !== 'ready') words.push(`for ${duration(lasted)}`);
        else if (limit > 0) words.push(`${count(remaining)} of ${count(limit)} left`);
        say(row.querySelector('.left'), words.join(', '));
        say(row.querySelector('.resting'), resting(row.data, now - this.read).join(' · '));
        const bar = row.querySelector('.progress');
        if (still !== null && lasted > 0) {
            show(bar, true);
            bar.firstChild.style.width = `${(still / (still + lasted)) * 100}%`;
        } else if (show(bar, limit > 0 && state === 'ready')) {
            bar.firstChild.style.width = `${(remaining / limit) * 100}%`;
        }
    }

    async act(command, which, button) {
        const said = button.closest('.key').querySelector('.said');
        button.disabled = true;
        say(said, command === 'probe' ? 'Asking the provider…' : '');
        try {
            const { state, found } = await post(`/api/keys/${command}`, which, PROBE_MS);
            say(said, outcome(command, state, found));
        } catch (error) {
            say(said, error.message);
        }
        button.disabled = false;
        this.changed();
        clearTimeout(said.timer);
        said.timer = setTimeout(() => say(said, ''), 12_000);
    }
}

function providerWord({ state, why: cause, condition: { serves, asked, tried } }) {
    if (cause === 'no_address') return 'no address';
    if (state === 'serving' && tried) return 'failing';
    if (serves && !asked) return 'not asked yet';
    return PROVIDER_WORDS[state] ?? state;
}

/** Its state, tone and word: one that was never asked, or fails each time, is not simply ready. */
function standing(key) {
    if (alwaysFails(key)) return ['cooling', 'waiting', `failed ${count(key.failed_in_a_row)} times in a row`];
    if (key.state === 'ready' && !wasAsked(key)) return ['off', 'off', 'not asked yet'];
    return [key.state, TONES[key.state] ?? 'off', WORDS[key.state] ?? key.state];
}

function outcome(command, state, found) {
    if (command === 'probe') return FOUND[found] ?? `Found: ${found}.`;
    if (command === 'pause') return 'Paused: it gets no new request.';
    return state === 'off' ? 'It is off in the configuration.' : 'Resumed.';
}

function numbers({ requests, errors, open, ttft_ms: ttft }) {
    const parts = [many(requests, 'request').replace(count(requests), compact(requests)), many(errors, 'error')];
    if (open > 0) parts.push(`${count(open)} open`);
    if (ttft) parts.push(millis(ttft));
    return parts.join(' · ');
}

/** What holds for some of a key's models only, or keeps its account out while others serve. `age`: since the report. */
function resting({ models = [], fails_for_ms: fails }, age) {
    const parts = models.map(({ model, why: because, left_ms: left }) => `${model}: ${why(because)}, ${duration(Math.max(0, left - age))} left`);
    if (fails) parts.push(`its account fails for ${duration(fails + age)}: others come first`);
    return parts;
}

/** For the panel's head: "4 of 7 ready". */
export function ready(keys) {
    const waits = ['doubtful', 'cooling', 'quarantined', 'off'].map((state) => [state, keys.filter((key) => key.state === state).length]);
    const rest = waits.filter(([, n]) => n > 0).map(([state, n]) => `${n} ${WORDS[state]}`);
    const up = keys.filter(({ state }) => state === 'ready').length;
    return `${up} of ${keys.length} ready${rest.length > 0 ? `, ${and(rest)}` : ''}`;
}
