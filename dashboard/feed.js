// The last requests as they end: newest on top, held while one is read, filtered, opened into attempts.

import { at, list, make, say, show, terms } from './element.js';
import { OUTCOMES, age, attempt, code, compact, count, dollars, exact, many, millis } from './format.js';

/** Requests kept for filters to find something in. */
const KEPT = 400;
/** Rows of the page. */
const SHOWN = 80;

const FILTERS = {
    all: () => true,
    whole: ({ outcome }) => outcome === 'whole',
    failed: ({ outcome }) => outcome === 'failed' || outcome === 'broken',
    refused: ({ outcome }) => outcome === 'refused' || outcome === 'relayed',
    rescued: ({ outcome, attempts }) => outcome === 'whole' && attempts.length > 1,
};

/** Ids begin anew when a gateway does. */
const name = ({ gateway, id, time }) => `${gateway ?? ''}/${id}/${time}`;

export class Feed {
    constructor(clock) {
        this.clock = clock;
        this.rows = at('feed');
        this.boot = null;
        this.known = new Map();
        this.held = null;
        this.filter = { outcome: 'all', plan: '', gateway: '', request: '' };
        this.open = null;
        at('pause').addEventListener('click', () => (this.held ? this.resume() : this.pause()));
        for (const button of at('outcomes').children) {
            button.addEventListener('click', () => this.choose({ outcome: button.value }));
        }
        at('find').addEventListener('input', ({ target }) => this.choose({ request: target.value.trim() }));
        this.rows.addEventListener('keydown', (event) => this.move(event));
        at('skip-feed').addEventListener('click', (event) => {
            // An address of its own would be another view.
            event.preventDefault();
            at('keys-title').focus();
        });
        at('plan').addEventListener('change', ({ target }) => this.choose({ plan: target.value }));
    }

    /** `requests` newest first. A new boot of the gateway has other requests: those of the old are gone. Whether some are news. */
    take(requests, boot, seenBefore = true) {
        if (boot !== this.boot) {
            this.boot = boot;
            this.known.clear();
            this.held = null;
            this.open = null;
            this.rows.replaceChildren();
            at('plan').length = 1;
            this.choose({ plan: '' });
            seenBefore = false;
        }
        let fresh = 0;
        for (const request of requests.toReversed()) {
            if (this.known.has(name(request))) continue;
            this.known.set(name(request), { ...request, fresh: seenBefore });
            fresh += 1;
        }
        if (fresh === 0) return false;
        if (this.held) this.held.more += fresh;
        this.trim();
        this.plans();
        this.render();
        return seenBefore;
    }

    /** Those that are held stay, and as many as ever of those that came since. */
    trim() {
        const most = KEPT + (this.held?.names.size ?? 0);
        for (const key of this.known.keys()) {
            if (this.known.size <= most) return;
            if (!this.held?.names.has(key)) this.known.delete(key);
        }
    }

    newest() {
        const found = [...this.known.values()].reverse();
        return found.sort((a, b) => (a.time < b.time ? 1 : a.time > b.time ? -1 : b.id - a.id));
    }

    visible() {
        const { outcome, plan, gateway, request } = this.filter;
        const from = this.held ? this.newest().filter((one) => this.held.names.has(name(one))) : this.newest();
        return from
            .filter(FILTERS[outcome])
            .filter((one) => (!plan || one.plan === plan) && (!gateway || one.gateway === gateway) && (!request || one.request?.includes(request)))
            .slice(0, SHOWN);
    }

    choose(change) {
        Object.assign(this.filter, change);
        for (const button of at('outcomes').children) {
            button.setAttribute('aria-pressed', button.value === this.filter.outcome);
        }
        this.render();
    }

    /** Arrows go from row to row, Escape closes the one that is open. */
    move(event) {
        const buttons = [...this.rows.querySelectorAll('.request')];
        const here = buttons.indexOf(event.target.closest('.row')?.querySelector('.request'));
        const to = { ArrowDown: here + 1, ArrowUp: here - 1, Home: 0, End: buttons.length - 1 }[event.key];
        if (to !== undefined && here >= 0) {
            event.preventDefault();
            buttons[Math.max(0, Math.min(to, buttons.length - 1))].focus();
        } else if (event.key === 'Escape' && this.open) {
            const button = this.open.querySelector('.request');
            this.close(this.open);
            if (this.held?.because === 'row') this.resume();
            button.focus();
        }
    }

    /** Of one gateway, or of all. */
    show(gateway) {
        if (gateway !== this.filter.gateway) this.choose({ gateway });
    }

    pause(because = 'button') {
        if (this.held) return;
        this.held = { names: new Set(this.known.keys()), more: 0, because };
        this.render();
    }

    resume() {
        this.held = null;
        this.trim();
        this.render();
    }

    plans() {
        const select = at('plan');
        const there = new Set([...select.options].map(({ value }) => value));
        const wanted = new Set([...this.known.values()].map(({ plan }) => plan).filter(Boolean));
        for (const plan of [...wanted].sort()) {
            if (!there.has(plan)) select.append(make('option', { value: plan }, plan));
        }
    }

    render() {
        const visible = this.visible();
        list(this.rows, visible, {
            key: name,
            create: (request) => this.row(request),
            update: (row, request) => this.freshen(row, request),
        });
        const { held } = this;
        say(at('pause'), held ? 'Resume' : 'Pause');
        at('pause').setAttribute('aria-pressed', Boolean(held));
        say(at('held'), held ? `Held${held.because === 'row' ? ' while a row is open' : ''}${held.more ? `, ${count(held.more)} new` : ''}` : '');
        show(at('held'), held);
        at('feed-panel').classList.toggle('held', Boolean(held));
        show(at('feed-none'), visible.length === 0 && this.known.size > 0);
        show(at('feed-head'), this.known.size > 0);
        show(at('first'), this.known.size === 0);
        for (const row of this.rows.children) this.known.get(row.dataset.key).fresh = false;
    }

    /** Once a second: how long ago. */
    tick() {
        for (const row of this.rows.children) this.freshen(row, this.known.get(row.dataset.key));
    }

    freshen(row, request) {
        if (request) say(row.querySelector('time'), age(this.clock() - Date.parse(request.time)));
    }

    row(request) {
        const { outcome, model, served, provider, plan, attempts, status } = request;
        const { word, tone } = OUTCOMES[outcome] ?? { word: outcome, tone: 'off' };
        const routed = request.route && request.route !== 'model';
        const detail = make('div', { class: 'detail', hidden: true });
        const button = make('button', { class: 'request', type: 'button', 'aria-expanded': 'false', onclick: () => this.toggle(row, request) },
            make('span', { class: `mark ${tone} ${outcome}`, 'aria-hidden': 'true' }),
            make('span', { class: 'outcome' }, word, status === 200 ? null : make('span', { class: 'status' }, ` ${status}`)),
            make('span', { class: 'models' },
                make('span', { class: 'asked' }, model || request.endpoint),
                served ? make('span', { class: `arrow${routed ? ' routed' : ''}`, 'aria-label': routed ? 'routed to' : 'served by' }, ' → ') : null,
                served ? make('span', { class: 'served' }, served.startsWith(`${provider}/`) ? served.slice(provider.length + 1) : served) : null,
                served ? make('span', { class: 'by' }, ` ${provider}`) : null,
                !served && request.error ? make('span', { class: 'by' }, ` ${reason(request)}`) : null),
            make('span', { class: 'plan' }, plan || ''),
            make('span', { class: 'ticks', title: ticksInWords(attempts) }, attempts.map(tick), make('span', { class: 'unseen' }, ticksInWords(attempts))),
            make('span', { class: 'tokens' }, request.tokens > 0 ? compact(request.tokens) : '', make('span', { class: 'unseen' }, ' tokens')),
            make('span', { class: 'took' }, millis(request.ms)),
            make('time', { datetime: request.time, title: exact(request.time) }));
        const row = make('li', { class: `row ${tone}${request.fresh ? ' fresh' : ''}` }, button, detail);
        return row;
    }

    toggle(row, request) {
        const opens = this.open !== row;
        if (this.open) this.close(this.open);
        if (opens) {
            row.querySelector('button').setAttribute('aria-expanded', 'true');
            const detail = row.querySelector('.detail');
            detail.replaceChildren(...inDetail(request));
            detail.hidden = false;
            this.open = row;
            this.pause('row');
        } else if (this.held?.because === 'row') {
            this.resume();
        }
    }

    close(row) {
        row.querySelector('button').setAttribute('aria-expanded', 'false');
        row.querySelector('.detail').hidden = true;
        this.open = null;
    }
}

/** Why it failed, in a row: what the provider did, else what the gateway says. */
function reason({ attempts, error }) {
    const last = attempts.findLast(({ outcome }) => !NO_FAULT.has(outcome) && outcome !== 'ok');
    return last ? `${last.provider}: ${attempt(last.outcome)}` : code(error);
}

/** Attempts that say nothing against the provider. */
const NO_FAULT = new Set(['app_left', 'request_rejected', 'crowded', 'key_gone']);

const toneOf = ({ outcome }) => (outcome === 'ok' ? 'served' : NO_FAULT.has(outcome) ? 'off' : 'failed');

const tick = (one) => make('i', { class: toneOf(one), 'aria-hidden': 'true' });

const ticksInWords = (attempts) => attempts.map((one) => `${one.key} ${attempt(one.outcome)}`).join(', ');

/** What one request came to: its attempts one below the other on one scale of time, and the facts. */
function inDetail(request) {
    const { attempts } = request;
    const whole = Math.max(1, request.ms, attempts.reduce((sum, { ms }) => sum + ms, 0));
    let began = 0;
    const bars = attempts.map((one, index) => {
        const bar = make('i', { class: toneOf(one) });
        bar.style.marginLeft = `${(began / whole) * 100}%`;
        bar.style.width = `${Math.max(0.5, (one.ms / whole) * 100)}%`;
        began += one.ms;
        return make('li', {},
            make('span', { class: 'which' }, `${index + 1}. `, make('b', {}, one.key), ` ${one.provider}`),
            make('span', { class: `came ${toneOf(one)}` }, attempt(one.outcome)),
            make('span', { class: 'ms' }, millis(one.ms)),
            make('span', { class: 'span', 'aria-hidden': 'true' }, bar));
    });
    const attempted = attempts.length > 0
        ? make('ol', { class: 'attempts', 'aria-label': many(attempts.length, 'attempt') }, bars)
        : make('p', { class: 'quiet' }, 'No provider was asked.');
    const dl = make('dl', { class: 'facts' });
    terms(dl, facts(request));
    return [attempted, dl];
}

function facts(request) {
    const { error, status, input, output, cost, ttft_ms: ttft, route } = request;
    return [
        ['Request', request.request],
        ['When', exact(request.time)],
        ['Answer', error ? `${status}, ${error} (${code(error)})` : String(status)],
        ['Endpoint', request.endpoint],
        ['Plan', request.plan],
        ['Route', route && route !== 'model' ? route : null],
        ['First token', ttft === null || ttft === undefined ? null : millis(ttft)],
        ['In all', millis(request.ms)],
        ['Tokens', request.tokens > 0 ? tokens(input, output, request.tokens) : null],
        ['Cost', cost > 0 ? dollars(cost) : null],
        ['Who (until the next start)', request.who && request.who !== '000000' ? request.who : null],
        ['Gateway', request.gateway],
    ];
}

const tokens = (input, output, whole) =>
    input === undefined || output === undefined ? count(whole) : `${count(input)} in, ${count(output)} out`;
