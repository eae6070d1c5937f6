// Brings the parts together: what the gateway says goes in, what the page shows comes out. Nothing is
// asked for while the page is hidden.

import { Answers } from './answers.js';
import * as api from './api.js';
import { Config } from './config.js';
import { DayChart } from './chart.js';
import { Feed } from './feed.js';
import { Issue } from './issue.js';
import { Keys, ready } from './keys.js';
import { Licences } from './licences.js';
import { Session } from './session.js';
import { Stream } from './stream.js';
import { at, list, make, say, show } from './element.js';
import { clock as clockTime, duration, exact } from './format.js';
import { lately, showDay, showFigures, today } from './figures.js';
import { sentence } from './sentence.js';

const STATUS_MS = 2000;
const HISTORY_MS = 15_000;
/** A connection that is back so soon is not shown as lost. */
const BLINK_MS = 1500;
const REST_MS = 3000;

const seen = {
    status: null,
    /** Totals and open requests, of the feed where it is ours that is shown. */
    live: null,
    history: null,
    /** Whose figures: `''` is the gateway that serves this page. */
    gateway: '',
    /** Each one's totals, where several share a store. */
    all: null,
    /** The name of this one among them. */
    own: null,
    boot: null,
    lostAt: null,
    isLost: false,
    /** Our clock minus the gateway's. */
    ahead: 0,
};

/** The gateway's time. */
const clock = () => Date.now() - seen.ahead;

const feed = new Feed(clock);
const keys = new Keys({ clock, changed: () => readStatus() });
const config = new Config({ clock, changed: () => readStatus() });
const licences = new Licences(clock);
const issue = new Issue();
const answers = new Answers();
const day = new DayChart(at('day'), at('day-readout'));
const session = new Session({ entered: () => start(), left: () => leave() });

const stream = new Stream({
    heard: (event) => {
        // What came before is in the status, too, with the gateway's name.
        if (!seen.status) return;
        if (event.boot !== seen.boot) readStatus();
        take(event.requests ?? [], event.boot, seen.own);
        if (seen.gateway === '') {
            seen.live = totals(event);
            judge(event, seen.own);
        }
        render();
    },
    opened: () => found(),
    lost: () => {
        seen.lostAt ??= Date.now();
        // Perhaps it is only that the session is over.
        readStatus();
    },
});

function take(requests, boot, gateway) {
    if (seen.boot !== null && seen.boot !== boot) {
        // The history of the last boot is not known any more.
        seen.history = seen.live = null;
        answers.forget();
        readHistory();
    }
    seen.boot = boot;
    const named = gateway ? requests.map((request) => ({ gateway, ...request })) : requests;
    if (feed.take(named, boot)) stir();
}

/** The ground moves while requests come, and rests soon after the last one. */
function stir() {
    document.body.dataset.busy = '';
    clearTimeout(stir.timer);
    stir.timer = setTimeout(() => delete document.body.dataset.busy, REST_MS);
}

const totals = ({ total, success, failed, refused, in_flight }) => ({ total, success, failed, refused, in_flight });

let reading = null;

/** One at a time; calls in between share the next one. */
function readStatus() {
    clearTimeout(readStatus.timer);
    if (reading) return (reading.again = true);
    const turn = (reading = { again: false });
    const { gateway } = seen;
    // Who picked another gateway meanwhile does not want this one's figures; who does not look gets new ones later.
    const still = (then) => (result) => gateway === seen.gateway && !document.hidden && then(result);
    return api
        .status(gateway)
        .then(still(took), still(failed))
        .finally(() => {
            if (reading === turn) reading = null;
            if (document.hidden || document.body.dataset.state === 'login') return;
            readStatus.timer = setTimeout(readStatus, turn.again ? 0 : STATUS_MS);
        });
}

function took(status) {
    const isNew = !seen.status;
    seen.ahead = Date.now() - Date.parse(status.now);
    seen.status = status;
    session.inside();
    found();
    gateways(status);
    // Another gateway has a boot of its own; it is this one whose restart empties the feed.
    const isOther = seen.gateway !== '' && seen.gateway !== 'all';
    take(status.requests ?? [], isOther ? seen.boot : status.boot, isOther ? seen.gateway : seen.own);
    // The feed may be ahead of a status that was on its way.
    if (seen.gateway !== '' || !(seen.live?.total > status.total)) {
        seen.live = totals(status);
        judge(status, seen.gateway === '' ? seen.own : null);
    }
    keys.update(status);
    config.update(status);
    issue.update(status);
    say(at('keys-ready'), ready(status.keys));
    say(at('curl'), curl(status));
    showDay(status);
    render();
    if (isNew) readHistory();
    if (isNew && document.body.dataset.view === 'licences') licences.opened(canList());
}

/** Requests of others are in the list, too, where several share a store; `own` names those that count. */
function judge(told, own) {
    const requests = (told.requests ?? []).filter(({ gateway }) => !own || !gateway || gateway === own);
    const named = requests.map(({ gateway, ...request }) => ({ ...request, gateway: own ? undefined : gateway }));
    const before = { outage: answers.outage?.over === null, good: answers.lastGood };
    answers.take(told, named, clock());
    const isOutage = answers.outage?.over === null;
    const isFirst = before.good === -Infinity;
    const isNewsOfGood = answers.lastGood > before.good && (isFirst || at('hero').dataset.tone === 'failed');
    // What the keys and providers are is told anew at once.
    if (isOutage !== before.outage || isNewsOfGood) readStatus();
}

function failed(error) {
    if (error instanceof api.Refused && error.status === 404 && seen.gateway) {
        // The gateway that was looked at is gone.
        pick('');
        return;
    }
    if (error instanceof api.Refused && error.status === 401) {
        stop();
        session.demand();
        return;
    }
    seen.lostAt ??= Date.now();
    seen.reason = error.message;
    render();
}

/** The gateway answers. */
function found() {
    if (seen.lostAt === null) return;
    seen.lostAt = null;
    seen.reason = null;
    stream.start();
    render();
}

async function readHistory() {
    clearTimeout(readHistory.timer);
    try {
        const { gateway } = seen;
        const history = await api.history(gateway);
        if (gateway !== seen.gateway) return;
        // From here on what comes is counted on top.
        seen.history = { ...history, at: seen.live ?? {} };
        day.update(history.day);
        render();
    } catch {
        // Shown as it was; whether the gateway is there is told by others.
    }
    clearTimeout(readHistory.timer);
    if (!document.hidden) readHistory.timer = setTimeout(readHistory, HISTORY_MS);
}

function gateways(status) {
    // Another gateway's figures come without the list.
    const all = (seen.all = status.gateways ?? seen.all);
    if (!all) return;
    seen.own = all[0].gateway;
    show(at('gateways'), all.length > 1 || seen.gateway);
    const others = all.map(({ gateway }) => gateway).filter((name) => name !== seen.own);
    const options = [['', `${seen.own} (this one)`], ['all', `All ${all.length} gateways`], ...others.map((name) => [name, name])];
    list(at('gateway'), options, {
        key: ([value]) => value,
        create: ([value]) => make('option', { value }),
        update: (option, [, label]) => say(option, label),
    });
    at('gateway').value = seen.gateway;
    feed.show(seen.gateway === 'all' ? '' : seen.gateway || seen.own);
}

function pick(gateway) {
    seen.gateway = gateway;
    seen.history = seen.live = null;
    answers.forget();
    readStatus();
    readHistory();
}

/** Since when those run whose totals are shown. */
function sinces() {
    const { gateway, all, status } = seen;
    return gateway === 'all' && all ? all.map(({ since }) => since) : [status.since];
}

function render() {
    const lost = seen.lostAt !== null && Date.now() - seen.lostAt > BLINK_MS;
    seen.isLost = lost;
    if (lost) {
        showLost();
    } else if (seen.live) {
        document.body.dataset.state = 'on';
        showSentence();
    }
    show(at('retry'), lost);
    if (!seen.status || !seen.live) return;
    const { status, live, history } = seen;
    showFigures({ live, status, history, day: sofar(), up: clock() - Math.min(...sinces().map(Date.parse)) });
    say(at('config-age'), age(status.config));
    at('config-age').title = `${status.config.source}, live since ${exact(status.config.since)}`;
}

const sofar = () => today({ live: seen.live, sinces: sinces(), now: clock(), history: seen.history });

const age = ({ since }) => `${duration(Math.max(0, clock() - Date.parse(since))).split(' ')[0]} old`;

function showSentence() {
    const status = { ...seen.status, in_flight: seen.live.in_flight };
    const isNew = seen.live.total === 0 && status.phase !== 'draining';
    const said = sentence({ status, today: sofar(), lately: lately(seen.history), answers: answers.judge(clock()), now: clock() });
    if (isNew && said.tone === 'served') Object.assign(said, { tail: 'Ready for the first request.' });
    speak(said);
}

function showLost() {
    document.body.dataset.state = 'lost';
    const since = clockTime(seen.lostAt);
    const lead = `No connection to the gateway since ${since}.`;
    const tail = seen.status ? `What you see is ${duration(Date.now() - seen.lostAt)} old. Trying again…` : 'Trying again…';
    speak({ tone: 'off', lead, tail, notes: [] });
}

function speak({ tone, lead, tail, notes }) {
    at('hero').dataset.tone = tone;
    say(at('lead'), lead);
    say(at('tail'), tail);
    // A screen reader hears what changed its meaning, not every figure: numbers move all the time.
    const meaning = [tone, ...notes.map(({ text }) => text.replace(/\d+/g, ''))].join();
    if (meaning !== speak.meaning) {
        speak.meaning = meaning;
        say(at('aloud'), [lead, ...notes.map(({ text }) => text)].join(' '));
    }
    show(at('notes'), notes.length > 0);
    list(at('notes'), notes, {
        key: ({ text }) => text,
        create: ({ tone: colour, text, href }) =>
            make('li', { class: colour }, make('span', { class: `mark ${colour}`, 'aria-hidden': 'true' }), href ? make('a', { href }, text) : text),
    });
    const sign = { served: '', waiting: '▲ ', failed: '✕ ', off: '… ' }[tone];
    const title = `${sign}${lead.replace(/\.$/, '')} · Gatekeeper`;
    if (document.title !== title) document.title = title;
}

function tick() {
    feed.tick();
    keys.tick();
    config.tick();
    render();
}

function start() {
    if (document.hidden) return;
    stream.start();
    readStatus();
    readHistory();
    clearInterval(start.timer);
    start.timer = setInterval(tick, 1000);
}

function stop() {
    stream.stop();
    clearTimeout(readStatus.timer);
    clearTimeout(readHistory.timer);
    clearInterval(start.timer);
}

/** Nothing of what was seen stays on the page. */
function leave() {
    stop();
    location.reload();
}

/** An older gateway, as in the middle of an upgrade, has no list of licences. */
const canList = () => Boolean(seen.status?.config.live);

const VIEWS = ['live', 'licences', 'config'];

function view() {
    const wanted = location.hash.slice(1);
    const name = VIEWS.includes(wanted) ? wanted : 'live';
    if (wanted && !VIEWS.includes(wanted)) return;
    document.body.dataset.view = name;
    for (const one of VIEWS) show(at(`view-${one}`), one === name);
    for (const link of document.querySelectorAll('nav a')) {
        if (link.hash === `#${name}`) link.setAttribute('aria-current', 'page');
        else link.removeAttribute('aria-current');
    }
    scrollTo(0, 0);
    if (name === 'licences') {
        at('licence-key').focus();
        licences.opened(canList());
    }
}

const THEMES = ['auto', 'dark', 'light'];

function theme(step) {
    const root = document.documentElement;
    const now = root.dataset.theme ?? 'auto';
    const next = step ? THEMES[(THEMES.indexOf(now) + 1) % THEMES.length] : now;
    if (next === 'auto') delete root.dataset.theme;
    else root.dataset.theme = next;
    try {
        if (step) localStorage.setItem('gatekeeper.theme', next);
    } catch {
        // Storage is off: chosen for this visit.
    }
    say(at('theme'), `Theme: ${next}`);
}

/** A request that works as it is with the default configuration. */
function curl({ listen }) {
    const url = new URL(listen ?? `http://${location.hostname}:8080`);
    // All addresses: then it is at the one this page is at, too.
    if (['0.0.0.0', '[::]'].includes(url.hostname)) url.hostname = location.hostname;
    return `curl -N ${url.origin}/v1/chat/completions \\
  -H 'Authorization: Bearer JSTAR-DEMO-0001' \\
  -H 'Content-Type: application/json' \\
  -d '{"model":"fast","stream":true,"messages":[{"role":"user","content":"Hello"}]}'`;
}

at('copy').addEventListener('click', async () => {
    try {
        await navigator.clipboard.writeText(at('curl').textContent);
        say(at('copied'), 'Copied.');
    } catch {
        getSelection().selectAllChildren(at('curl'));
        say(at('copied'), 'Selected: copy it with the keyboard.');
    }
});
at('theme').addEventListener('click', () => theme(true));
at('retry').addEventListener('click', () => {
    stream.retry();
    readStatus();
});
at('gateway').addEventListener('change', ({ target }) => {
    pick(target.value);
});
addEventListener('hashchange', view);
document.addEventListener('visibilitychange', () => (document.hidden ? stop() : start()));
theme(false);
view();
start();
