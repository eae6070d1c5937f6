// The four headline figures, and what the day's traffic was made of.

import { at, list, make, say, show } from './element.js';
import { clock, code, compact, count, dollars, many, millis, percentFigure } from './format.js';
import { ring, sparkline } from './chart.js';

/** Points of a line, at least. */
const SHORTEST = 10;

/** Answers of today, or of the last `minutes`: `{ success, failed, refused }`. */
export function sums(series, from = 0) {
    const sum = (name) => series[name].slice(from).reduce((total, value) => total + (value ?? 0), 0);
    return { success: sum('success'), failed: sum('failed'), refused: sum('refused') };
}

/**
 * Answers of today (UTC), or since the start where that was today: what was before is not known. Exact
 * where the totals of one gateway say it all; else from the history, and what was counted since that was
 * read. `sinces` are the starts of the gateways whose totals `live` are.
 */
export function today({ live, sinces, now, history }) {
    const midnight = Math.floor(now / 86_400_000) * 86_400_000;
    const starts = sinces.map((since) => Date.parse(since));
    const oldest = Math.min(...starts);
    const period = oldest > midnight ? `since ${clock(oldest)}` : 'today';
    const { success, failed, refused } = live;
    if (oldest >= midnight) return { success, failed, refused, period };
    if (!history) return null;
    const { step_s: step, from, series } = history.day;
    const first = Math.max(0, Math.ceil((midnight - Date.parse(from)) / (step * 1000)));
    const counted = sums(series, first);
    const grown = (name) => Math.max(0, live[name] - (history.at?.[name] ?? live[name]));
    const sum = (name) => counted[name] + grown(name);
    return { success: sum('success'), failed: sum('failed'), refused: sum('refused'), period };
}

/** The last five minutes and the running one. */
export const lately = (history) => (history ? sums(history.minutes.series, -6) : null);

/** `up` is how long the gateway runs, in milliseconds. */
export function showFigures({ live, status, history, day, up }) {
    success(day);
    const { figures } = status;
    const perMinute = figures?.requests_per_minute;
    say(at('rate'), count(perMinute));
    say(at('rate-sub'), `${many(live.in_flight ?? 0, 'request')} open now`);

    const latency = figures?.latency ?? {};
    const [figure, unit] = split(millis(latency.ttft_p50_ms));
    say(at('ttft'), figure);
    say(at('ttft-unit'), unit);
    const own = latency.overhead_p50_us > 0 ? `, own share ${micros(latency.overhead_p50_us)}` : '';
    say(at('ttft-sub'), latency.ttft_p95_ms > 0 ? `p95 ${millis(latency.ttft_p95_ms)}${own}` : 'no answer in the last hour');

    say(at('cost'), dollars(figures?.cost_today));
    const { budget } = status;
    say(at('cost-sub'), budget ? `of ${dollars(budget).replace(/\.00$/, '')}` : '');
    show(at('cost-sub'), budget);
    const saved = figures?.saved_today;
    say(at('saved'), `${dollars(saved)} saved`);
    show(at('saved'), saved > 0);

    if (history) sparklines(known(history.minutes, up));
}

function success(day) {
    const judged = day ? day.success + day.failed : 0;
    const rate = judged > 0 ? day.success / judged : null;
    say(at('success-title'), `Success ${day?.period ?? 'today'}`);
    say(at('success'), percentFigure(rate));
    show(at('success-unit'), rate !== null);
    say(at('success-sub'), day && judged > 0 ? `${many(day.failed, 'failure')}, ${count(day.refused)} refused` : 'no answer yet');
    ring(at('success-ring'), rate);
}

/**
 * The minutes that were whole: the running one looks like a fall until it is over, and before the start
 * there was nothing.
 */
function known({ step_s: step, series }, up) {
    const steps = Math.max(SHORTEST, Math.ceil(up / (step * 1000)));
    return Object.fromEntries(Object.entries(series).map(([name, values]) => [name, values.slice(0, -1).slice(-steps)]));
}

function sparklines(minutes) {
    const total = minutes.success.map((whole, index) => whole + minutes.failed[index] + minutes.refused[index]);
    sparkline(at('success-spark'), [
        { values: minutes.success.map((whole, index) => share(whole, minutes.failed[index])), name: 'served', area: true },
    ], 1);
    sparkline(at('rate-spark'), [{ values: total, name: 'served', area: true }]);
    sparkline(at('ttft-spark'), [
        { values: minutes.ttft_p95_ms, name: 'faint' },
        { values: minutes.ttft_p50_ms, name: 'plain', area: true },
    ]);
    sparkline(at('cost-spark'), [
        { values: minutes.cost, name: 'plain', area: true },
        { values: minutes.saved, name: 'routed' },
    ]);
}

const share = (whole, failed) => (whole + failed > 0 ? whole / (whole + failed) : null);

const micros = (us) => (us < 1000 ? `${Math.round(us)}\u202fµs` : millis(us / 1000));

/** "212 ms" as figure and unit. */
function split(text) {
    const [figure, unit = ''] = text.split('\u202f');
    return [figure, unit];
}

/** Active licences, most used models, and why requests were refused. */
export function showDay({ figures }) {
    if (!figures) return;
    for (const window of ['1d', '7d', '30d']) say(at(`active-${window}`), count(figures.active?.[window]));
    models(figures.models_today ?? []);
    codes(figures.codes ?? []);
}

function models(used) {
    const sorted = [...used].sort((a, b) => b.requests - a.requests).slice(0, 6);
    const most = Math.max(1, ...sorted.map(({ requests }) => requests));
    show(at('models-none'), sorted.length === 0);
    list(at('models'), sorted, {
        key: ({ model }) => model,
        create: ({ model }) =>
            make('li', { class: 'meter-row' },
                make('span', { class: 'name', title: model }, model),
                make('span', { class: 'amount' }),
                make('span', { class: 'bar', 'aria-hidden': 'true' }, make('i')),
                make('span', { class: 'more' })),
        update: (row, { requests, input, output, cost }) => {
            say(row.querySelector('.amount'), many(requests, 'request'));
            say(row.querySelector('.more'), `${compact(input + output)} tokens, ${dollars(cost)}`);
            row.querySelector('.bar i').style.width = `${(requests / most) * 100}%`;
        },
    });
}

function codes(found) {
    const sorted = [...found].filter(({ count: n }) => n > 0).sort((a, b) => b.count - a.count).slice(0, 6);
    show(at('codes-none'), sorted.length === 0);
    list(at('codes'), sorted, {
        key: ({ code: name, status }) => `${name} ${status}`,
        create: ({ code: name, status }) =>
            make('li', { class: `code ${status >= 500 ? 'failed' : 'refused'}` },
                make('span', { class: 'mark', 'aria-hidden': 'true' }),
                make('span', { class: 'name', title: name }, code(name)),
                make('span', { class: 'status' }, status),
                make('span', { class: 'amount' })),
        update: (row, { count: n }) => say(row.querySelector('.amount'), count(n)),
    });
}

