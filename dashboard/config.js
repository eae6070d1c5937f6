// Which file is live since when, what became of the last save, and the chain that requests go through.

import { at, list, make, say, show, terms } from './element.js';
import { age, code, count, dollars, duration, exact, many } from './format.js';
import { post } from './api.js';

const SOURCE_TONES = { ok: 'served', down: 'waiting', holding: 'waiting', misconfigured: 'failed' };
/** A gateway reads and builds the whole configuration for it. */
const RELOAD_MS = 30_000;

export class Config {
    constructor({ clock, changed }) {
        this.clock = clock;
        this.changed = changed;
        at('check').addEventListener('click', () => this.reload(true));
        at('reload').addEventListener('click', () => this.reload(false));
    }

    update(status) {
        const { config } = status;
        this.since = config.since;
        say(at('config-source'), config.source);
        at('config-since').title = exact(config.since);
        this.refused(config);
        chain(config);
        live(config.live);
        sources(status.sources ?? [], this.clock());
        machine(status, this.clock());
        this.tick();
    }

    tick() {
        if (!this.since) return;
        say(at('config-since'), `live for ${duration(Math.max(0, this.clock() - Date.parse(this.since)))}`);
        if (this.refusedAt) say(at('refused-when'), `${age(this.clock() - Date.parse(this.refusedAt))} ago`);
    }

    refused({ refused, changes = [], waits_for_restart: waits = [] }) {
        this.refusedAt = refused?.at ?? null;
        if (show(at('refused'), refused)) {
            at('refused-when').title = exact(refused.at);
            say(at('refused-title'), `The last save is not live: ${many(refused.problems.length, 'problem')}`);
            problems(at('refused-problems'), refused.problems);
        }
        if (show(at('changed'), changes.length > 0 && !refused)) {
            at('changed-list').replaceChildren(...changes.map((line) => make('li', {}, line)));
        }
        if (show(at('waits'), waits.length > 0)) {
            at('waits-list').replaceChildren(...waits.map((field) => make('li', {}, make('code', {}, field))));
        }
    }

    async reload(dryRun) {
        const said = at('reload-said');
        const buttons = [at('check'), at('reload')];
        for (const button of buttons) button.disabled = true;
        show(at('reload-result'), false);
        said.classList.remove('failed');
        say(said, 'Reading the file…');
        try {
            const result = await post('/api/reload', { dry_run: dryRun }, RELOAD_MS);
            this.result(result, dryRun);
        } catch (error) {
            said.classList.add('failed');
            say(said, error.message);
        }
        for (const button of buttons) button.disabled = false;
        if (!dryRun) this.changed();
    }

    result({ ok, changes = [], waits_for_restart: waits = [], warnings = [], problems: found = [] }, dryRun) {
        at('reload-said').classList.toggle('failed', !ok);
        say(at('reload-said'), outcome(ok, dryRun, changes.length + waits.length > 0, found.length));
        if (!show(at('reload-result'), changes.length + waits.length + warnings.length + found.length > 0)) return;
        const lines = [...changes.map((line) => ['change', line]), ...waits.map((line) => ['wait', `${line}: after a restart`])];
        at('reload-changes').replaceChildren(...lines.map(([kind, line]) => make('li', { class: kind }, line)));
        problems(at('reload-warnings'), warnings);
        problems(at('reload-problems'), found);
    }
}

function outcome(ok, dryRun, isChanged, found) {
    const faults = many(found, 'problem');
    if (!ok) return `${faults}: ${dryRun ? 'the file would be refused' : 'the file is refused, the one before stays live'}.`;
    if (dryRun) return isChanged ? 'The file is sound. It would change:' : 'The file is sound. It would change nothing.';
    return isChanged ? 'The file is live. It changed:' : 'The file is live. It changed nothing.';
}

/** "41:12: path: message" with its place set apart. */
function problems(box, found) {
    box.replaceChildren(
        ...found.map((problem) => {
            const place = /^(\d+):(\d+): (.*)$/s.exec(problem);
            const where = place ? make('span', { class: 'place' }, `line ${place[1]}, column ${place[2]}`) : null;
            return make('li', {}, where, make('span', { class: 'problem' }, place ? place[3] : problem));
        }));
}

/** Words in backticks are code. */
const quoted = (text) => text.split('`').map((part, index) => (index % 2 ? make('code', {}, part) : part));

function chain({ chain: names = [], steps }) {
    list(at('chain'), steps ?? names.map((name) => ({ name, summary: '', options: {} })), {
        key: ({ name }) => name,
        create: ({ name }) => make('li', {}, make('span', { class: 'name' }, name), make('span', { class: 'summary' }), make('dl', {})),
        update: (row, { summary, options }) => {
            row.querySelector('.summary').replaceChildren(...quoted(summary ?? ''));
            const shown = Object.entries(options ?? {});
            row.querySelector('dl').replaceChildren(
                ...shown.map(([option, value]) => make('div', {}, make('dt', {}, option), make('dd', {}, typeof value === 'string' ? value : JSON.stringify(value)))));
        },
    });
}

/** `1000/month` of something, in words. */
function per(limit, what) {
    const [most, unit] = limit.split('/');
    return `${count(Number(most))} ${what} ${unit === 'hour' ? 'an' : 'a'} ${unit}`;
}

const limits = ({ messages, tokens, rate, concurrency, max_output_tokens: output, max_input_tokens: input }) =>
    [
        messages ? per(messages, 'messages') : 'messages unlimited',
        tokens ? per(tokens, 'tokens') : 'tokens unlimited',
        rate && per(rate, 'requests'),
        concurrency && `${count(concurrency)} at one time`,
        output && `answers up to ${count(output)} tokens`,
        input && `requests up to ${count(input)} tokens`,
    ].filter(Boolean).join(' · ');

/** What a plan may ask: models and prompts, or prompts alone. */
const opens = ({ models, prompts = [], prompts_only: only }) =>
    [
        !only && (models.includes('*') ? 'all models' : models.join(', ')),
        prompts.length > 0 && `prompts ${prompts.includes('*') ? 'all' : prompts.join(', ')}`,
        only && 'nothing else',
    ].filter(Boolean).join(' · ');

const price = ({ input, output }) => `$${input} / $${output}`;

/** Plans, and models with their targets in order, as they are live. */
function live({ plans = [], models = [], prompts = [] } = {}) {
    show(at('plans-panel'), plans.length > 0);
    show(at('prompts-panel'), prompts.length > 0);
    show(at('live-models-panel'), models.length > 0);
    list(at('live-plans'), plans, {
        key: ({ name }) => name,
        create: ({ name }) => make('li', {}, make('span', { class: 'name' }, name), make('span', { class: 'summary' }), make('span', { class: 'quiet' })),
        update: (row, plan) => {
            say(row.querySelector('.summary'), limits(plan));
            say(row.querySelector('.quiet'), opens(plan));
        },
    });
    list(at('live-prompts'), prompts, {
        key: ({ name }) => name,
        create: ({ name }) => make('li', {}, make('span', { class: 'name' }, name), make('span', { class: 'summary' }), make('span', { class: 'quiet' })),
        update: (row, { model, input = [], max_output_tokens: output, tools = [] }) => {
            say(row.querySelector('.summary'), input.length > 0 ? input.join(' · ') : 'takes nothing');
            say(row.querySelector('.quiet'), [model, output && `answers up to ${count(output)} tokens`, ...tools].filter(Boolean).join(' · '));
        },
    });
    list(at('live-models'), models, {
        key: ({ name }) => name,
        create: ({ name }) => make('li', {}, make('span', { class: 'name' }, name), make('ol', {})),
        update: (row, { targets, smart }) => {
            const lines = smart
                ? [[`${smart.simple} for simple requests, ${smart.complex} for complex ones`, '']]
                : targets.map(({ target, price: of }) => [target, of ? price(of) : 'no price']);
            list(row.querySelector('ol'), lines, {
                key: ([target]) => target,
                create: ([target]) => make('li', {}, make('span', {}, target), make('span', { class: 'quiet' })),
                update: (line, [, of]) => say(line.lastChild, of),
            });
        },
    });
}

/** "last webhook 3 min ago", and why one was refused after that. */
function webhook(of, now) {
    if (!of) return '';
    const ago = (at) => `${age(now - Date.parse(at))} ago`;
    const last = of.taken ? `last webhook ${ago(of.taken)}` : 'last webhook: never';
    return of.refused && !(of.taken > of.refused) ? `${last}; one refused ${ago(of.refused)} (${code(of.why)})` : last;
}

function sources(found, now) {
    show(at('sources-none'), found.length === 0);
    list(at('sources'), found, {
        key: ({ name }) => name,
        create: ({ name }) => make('li', {}, make('span', { class: 'mark', 'aria-hidden': 'true' }), make('span', { class: 'name' }, name), make('span', { class: 'state' }), make('span', { class: 'why' }), make('span', { class: 'quiet webhook' })),
        update: (row, { state, why, webhook: last }) => {
            say(row.querySelector('.webhook'), webhook(last, now));
            row.querySelector('.mark').className = `mark ${SOURCE_TONES[state] ?? 'off'} source-${state}`;
            say(row.querySelector('.state'), state);
            say(row.querySelector('.why'), why ?? '');
        },
    });
}

function machine(status, now) {
    terms(at('machine'), [
        ['Version', status.version],
        ['Running for', duration(now - Date.parse(status.since)), exact(status.since)],
        ['Store', status.store ? `${status.store.kind}, ${status.store.up ? 'up' : 'down'}` : null],
        ['Gateway', status.gateways?.[0]?.gateway],
        ['Providers', status.providers.map(({ name, dialect }) => `${name} (${dialect})`).join(', ')],
        ['Budget of a day', status.budget ? `${dollars(status.budget)}, ${dollars(status.spent_today)} spent` : 'none'],
    ]);
}
