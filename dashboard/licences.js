// One buyer: what the licence may do, what it used, and what an operator does about it. The key is sent
// once, in a body, and forgotten: from then on the licence is named by its id.

import { at, list, make, say, show, terms } from './element.js';
import { age, code, compact, count, day, dollars, exact, many } from './format.js';
import { Refused, orderId, post, topLicences } from './api.js';

const ID = /^[0-9a-f]{64}$/i;
const DONE = {
    grant: 'Granted.',
    reset: 'What was used is forgiven.',
    revoke: 'Revoked: the next request of this licence is refused.',
    restore: 'Restored: this licence may come in again.',
};

/** What stands beside the title of a list. */
function counted(kind, shown, { all = 0, unknown_keys: unknown }) {
    if (kind !== 'refused') return `this month: ${all > shown ? `${count(shown)} of ` : ''}${many(all, 'licence')}`;
    const keys = unknown?.times > 0 ? `; ${many(unknown.times, 'request')} with keys that no source knows` : '';
    return `since the start of this gateway: ${many(shown, 'licence')}${keys}`;
}

export class Licences {
    constructor(clock) {
        this.clock = clock;
        this.shown = null;
        this.isAsking = false;
        /** The last order whose answer did not come: `{ said, id }`. */
        this.open = null;
        at('search').addEventListener('submit', (event) => {
            event.preventDefault();
            this.search();
        });
        at('grant').addEventListener('submit', (event) => {
            event.preventDefault();
            this.grant();
        });
        at('top-filter').addEventListener('input', () => this.renderTop());
        for (const button of at('top-kinds').children) button.addEventListener('click', () => this.choose(button.value));
        /** `{ licenses, seen, refused, all, unknown_keys }` of the gateway. */
        this.lists = {};
        this.kind = 'licenses';
        at('reset').addEventListener('click', () => this.ask('reset'));
        at('revoke').addEventListener('click', () => this.ask('revoke'));
        at('restore').addEventListener('click', () => this.order('restore', this.shown.license, {}));
        at('sure').addEventListener('close', () => {
            if (at('sure').returnValue !== 'yes') return;
            const { command, license } = this.asked;
            this.order(command, license, { note: at('sure-note').value.trim() || undefined });
        });
    }

    /** The view was opened. */
    async opened(canList) {
        if (!show(at('top-panel'), canList)) return;
        try {
            this.lists = await topLicences();
            say(at('top-said'), '');
        } catch (error) {
            if (!(error instanceof Refused && error.status === 401)) say(at('top-said'), error.message);
        }
        this.renderTop();
    }

    choose(kind) {
        this.kind = kind;
        for (const button of at('top-kinds').children) button.setAttribute('aria-pressed', button.value === kind);
        this.renderTop();
    }

    renderTop() {
        const { kind, lists } = this;
        const all = lists[kind] ?? [];
        const wanted = at('top-filter').value.trim().toLowerCase();
        const found = all.filter(({ license, plan, error }) => license.startsWith(wanted) || `${plan} ${error ? code(error) : ''}`.toLowerCase().includes(wanted));
        say(at('top-count'), counted(kind, all.length, lists));
        say(at('top-none'), all.length > 0 ? 'None of these fits the filter.' : 'None.');
        show(at('top-none'), found.length === 0);
        list(at('top'), found, {
            key: ({ license }) => license,
            create: ({ license }) =>
                make('li', {},
                    make('button', { type: 'button', class: 'request', title: 'Open this licence', onclick: () => this.call('show', { license }, '').then(() => at('licences').scrollIntoView()) },
                        make('code', {}, license.slice(0, 12)), make('span', { class: 'plan' }), make('span', { class: 'used' }), make('span', { class: 'cost' }), make('span', { class: 'last' }))),
            update: (row, one) => {
                const put = (name, text) => say(row.querySelector(`.${name}`), text);
                put('plan', one.plan || 'no plan');
                put('used', one.error ? code(one.error) : `${many(one.messages, 'message')}, ${compact(one.tokens)} tokens`);
                put('cost', one.error ? many(one.times, 'time') : dollars(one.cost));
                put('last', this.last(one));
            },
        });
    }

    last({ last_seen: seen, last_day: on, last_refused: refused }) {
        const ago = (moment) => `${age(this.clock() - Date.parse(moment))} ago`;
        if (refused) return `refused ${ago(refused)}`;
        return seen ? `seen ${ago(seen)}` : `seen on ${day(on)}`;
    }

    async search() {
        const input = at('licence-key');
        const typed = input.value.trim();
        if (!typed) return input.focus();
        const subject = ID.test(typed) ? { license: typed.toLowerCase() } : { key: typed };
        if (await this.call('show', subject, '')) input.value = '';
    }

    grant() {
        const amount = (id) => Math.max(0, Math.floor(Number(at(id).value) || 0));
        const [messages, tokens] = [amount('grant-messages'), amount('grant-tokens')];
        if (messages + tokens === 0) {
            say(at('licence-said'), 'Say how many messages or tokens.');
            return at('grant-messages').focus();
        }
        const order = { note: at('grant-note').value.trim() || undefined };
        if (messages > 0) order.messages = messages;
        if (tokens > 0) order.tokens = tokens;
        return this.order('grant', this.shown.license, order).then((done) => done && at('grant').reset());
    }

    ask(command) {
        // What is asked is about this one, whatever is shown when the answer is given.
        this.asked = { command, license: this.shown.license };
        say(at('sure-title'), command === 'revoke' ? 'Revoke this licence?' : 'Forgive what this licence used?');
        say(at('sure-text'), command === 'revoke'
            ? 'Its next request is refused, whatever the shop says, until you restore it.'
            : 'Messages and tokens used in this period count as none.');
        say(at('sure-yes'), command === 'revoke' ? 'Revoke' : 'Reset');
        at('sure-yes').classList.toggle('danger', command === 'revoke');
        at('sure-note').value = '';
        at('sure').returnValue = 'no';
        at('sure').showModal();
    }

    /** The same order again, after no answer came, keeps its name: it may have been carried out. */
    async order(command, license, more) {
        if (this.isAsking) return false;
        const said = JSON.stringify([command, license, more]);
        if (this.open?.said !== said) this.open = { said, id: orderId() };
        return this.call(command, { license, id: this.open.id, ...more }, DONE[command]);
    }

    /** One call at a time: a second click does nothing. */
    async call(command, body, words) {
        if (this.isAsking) return false;
        this.busy(true);
        const said = at('licence-said');
        say(said, 'One moment…');
        said.classList.remove('failed');
        let done = false;
        try {
            this.shown = await post(`/api/licenses/${command}`, body);
            const waits = this.shown.done?.told === false ? ' The other gateways hear of it when the store is back.' : '';
            say(said, words + waits);
            done = true;
            // An order that is over: the next one like it is another one.
            if (body.id || this.shown.actions?.some(({ id }) => id === this.open?.id)) this.open = null;
        } catch (error) {
            said.classList.add('failed');
            say(said, error.message);
            if (command === 'show') this.shown = null;
            if (!(error instanceof Refused) && command !== 'show') say(said, `${error.message} Whether it was done is not known: look it up again.`);
        }
        this.busy(false);
        this.render();
        return done;
    }

    busy(isAsking) {
        this.isAsking = isAsking;
        at('licences').setAttribute('aria-busy', isAsking);
        for (const button of at('licences').querySelectorAll('button')) button.disabled = isAsking;
    }

    render() {
        const { shown } = this;
        show(at('licences-none'), !shown);
        if (!show(at('licence'), shown)) return;
        const { status, plan, revoked, limits } = shown;
        const tone = status === 'valid' ? 'served' : 'failed';
        at('licence-mark').className = `mark ${tone} ${status === 'valid' ? 'whole' : 'failed'}`;
        say(at('licence-status'), status === 'valid' ? 'Valid' : status.charAt(0).toUpperCase() + status.slice(1).replaceAll('_', ' '));
        say(at('licence-plan'), plan ? `plan ${plan}` : 'no plan');
        say(at('licence-id'), shown.license);
        facts(this.clock(), shown);
        show(at('licence-limits'), true);
        limit(at('limit-messages'), limits?.messages, 'messages');
        limit(at('limit-tokens'), limits?.tokens, 'tokens');
        show(at('revoke'), !revoked);
        show(at('restore'), revoked);
        const grants = { messages: limits?.messages, tokens: limits?.tokens };
        at('grant-messages').disabled = !grants.messages;
        at('grant-tokens').disabled = !grants.tokens;
        const limited = Boolean(grants.messages || grants.tokens);
        show(at('grant'), limited);
        show(at('reset'), limited);
        actions(shown.actions ?? []);
    }
}

function facts(now, { source, until, revoked_at: revokedAt, devices, open, last_seen: seen, checked, store }) {
    const ago = (at) => (at ? `${age(now - Date.parse(at))} ago` : 'never');
    terms(at('licence-facts'), [
        ['Source', source ?? 'none'],
        ['Until', until ? day(until) : 'no end', until ? exact(until) : null],
        ['Revoked', revokedAt ? ago(revokedAt) : null, revokedAt ? exact(revokedAt) : null],
        ['Devices', devices ? `${count(devices.used)}${devices.max ? ` of ${count(devices.max)}` : ''}` : 'not counted'],
        ['Open requests', open === null ? 'not known' : count(open)],
        ['Last seen', ago(seen), seen ? exact(seen) : null],
        ['Asked at the shop', source === 'static' ? null : ago(checked), checked ? exact(checked) : null],
        ['Store', store === 'down' ? 'down: what was used is not known now' : null],
    ]);
}

function limit(box, spent, what) {
    if (!spent) {
        box.replaceChildren(make('p', { class: 'figure-label' }, what), make('p', { class: 'unlimited' }, 'no limit'));
        return;
    }
    const whole = Math.max(1, spent.used + spent.left);
    const used = Math.min(1, spent.used / whole);
    const bar = make('i', { class: spent.left === 0 ? 'failed' : used > 0.8 ? 'waiting' : 'served' });
    bar.style.width = `${used * 100}%`;
    const extra = [
        spent.extra > 0 ? `${count(spent.extra)} granted` : null,
        spent.forgiven > 0 ? `${count(spent.forgiven)} forgiven` : null,
        spent.resets_at ? `resets ${day(spent.resets_at)}` : null,
    ].filter(Boolean);
    box.replaceChildren(
        make('p', { class: 'figure-label' }, what),
        make('p', { class: 'used' }, make('b', {}, count(spent.left)), ` left of ${count(spent.limit)}`),
        make('span', { class: 'bar', role: 'img', 'aria-label': `${Math.round(used * 100)} % used` }, bar),
        make('p', { class: 'quiet' }, [`${count(spent.used)} used`, ...extra].join(' · ')));
}

function actions(done) {
    show(at('actions-none'), done.length === 0);
    list(at('actions'), done, {
        key: ({ action, id, time }) => `${action} ${id} ${time}`,
        create: ({ time, action, detail, note }) =>
            make('li', {},
                make('span', { class: 'what' }, [action, detail].filter(Boolean).join(': ')),
                make('span', { class: 'note' }, note || ''),
                make('time', { datetime: time, title: exact(time), tabindex: '0' }, day(time))),
    });
    say(at('actions-count'), done.length > 0 ? many(done.length, 'action') : '');
}
