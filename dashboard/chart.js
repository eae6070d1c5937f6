// Small drawings in SVG: ring, sparkline, and the day.

import { clock, compact, count, many } from './format.js';
import { draw, say } from './element.js';

/** A share of a whole; `null` draws the empty ring. */
export function ring(svg, share) {
    const RADIUS = 26;
    const around = 2 * Math.PI * RADIUS;
    if (!svg.firstChild) {
        const circle = (name) => draw('circle', { class: name, cx: 32, cy: 32, r: RADIUS });
        svg.setAttribute('viewBox', '0 0 64 64');
        svg.append(circle('rest'), circle('share'));
    }
    const [rest, arc] = svg.children;
    arc.style.strokeDasharray = `${(share ?? 0) * around} ${around}`;
    rest.classList.toggle('failed', share !== null && share < 1);
}

/** Lines over the width of `svg`; a line is `{ values, name, area }`, null in it a gap. */
export function sparkline(svg, lines, top) {
    const length = Math.max(2, ...lines.map(({ values }) => values.length));
    const highest = top ?? Math.max(0, ...lines.flatMap(({ values }) => values.map((v) => v ?? 0)));
    const y = (value) => (highest > 0 ? 38 - (value / highest) * 34 : 38);
    svg.setAttribute('viewBox', `0 0 ${length - 1} 40`);
    svg.setAttribute('preserveAspectRatio', 'none');
    svg.parentElement?.toggleAttribute('data-waits', highest === 0);
    if (highest === 0) return svg.replaceChildren();
    svg.replaceChildren(
        ...lines.flatMap(({ values, name, area }) => {
            const runs = stretches(values);
            const line = runs.map((run) => `M${run.map(([x, v]) => `${x} ${y(v).toFixed(2)}`).join('L')}`).join('');
            const shapes = [];
            if (area) {
                const filled = runs
                    .map((run) => `M${run[0][0]} 40L${run.map(([x, v]) => `${x} ${y(v).toFixed(2)}`).join('L')}L${run.at(-1)[0]} 40Z`)
                    .join('');
                shapes.push(draw('path', { class: `area ${name}`, d: filled }));
            }
            shapes.push(draw('path', { class: `line ${name}`, d: line }));
            return shapes;
        }),
    );
}

/** Runs of neighbours that are there, as [index, value]; a lone one becomes a dash, of which both ends of a line show half. */
function stretches(values) {
    const runs = [];
    let run = null;
    values.forEach((value, index) => {
        if (value === null || value === undefined) {
            run = null;
            return;
        }
        if (!run) runs.push((run = []));
        run.push([index, value]);
    });
    const dash = ([index, value]) => [[index - 0.4, value], [index + 0.4, value]];
    return runs.map((one) => (one.length === 1 ? dash(one[0]) : one));
}

const STACK = ['success', 'refused', 'failed'];
const HEIGHT = 220;
const EDGE = { top: 14, right: 46, bottom: 24, left: 40 };

/** Answers of 24 hours, stacked by outcome, with tokens as a line. */
export class DayChart {
    constructor(box, readout) {
        this.box = box;
        this.readout = readout;
        this.svg = draw('svg', { class: 'day', 'aria-hidden': 'true' });
        box.append(this.svg);
        this.bars = [];
        this.chosen = null;
        new ResizeObserver(() => this.draw()).observe(box);
        box.addEventListener('pointermove', (event) => this.point(event.clientX));
        box.addEventListener('pointerleave', () => this.choose(null));
        box.addEventListener('blur', () => this.choose(null));
        box.addEventListener('keydown', (event) => this.key(event));
    }

    update(day) {
        this.history = day;
        this.draw();
    }

    draw() {
        const { history, box, svg } = this;
        const width = box.clientWidth;
        if (!history || width < 100) return;
        this.bars = bars(history, width < 560 ? 6 : 3);
        const scale = this.scale(width);
        svg.setAttribute('viewBox', `0 0 ${width} ${HEIGHT}`);
        this.cursor = draw('rect', { class: 'cursor', y: EDGE.top, height: scale.bottom - EDGE.top, width: 0 });
        svg.replaceChildren(
            ...this.gridlines(scale, width),
            this.cursor,
            ...this.bars.flatMap((bar, index) => this.column(bar, index, scale)),
            this.tokens(scale),
            ...this.hours(scale),
        );
        this.choose(this.chosen !== null ? Math.min(this.chosen, this.bars.length - 1) : null);
        box.setAttribute('aria-valuemax', Math.max(0, this.bars.length - 1));
    }

    scale(width) {
        const step = (width - EDGE.left - EDGE.right) / this.bars.length;
        const bottom = HEIGHT - EDGE.bottom;
        const most = nice(Math.max(1, ...this.bars.map((bar) => bar.success + bar.refused + bar.failed)));
        const mostTokens = nice(Math.max(1, ...this.bars.map((bar) => bar.tokens)));
        const y = (value, top) => bottom - (value / top) * (bottom - EDGE.top);
        return { step, bottom, most, mostTokens, x: (index) => EDGE.left + index * step, y };
    }

    gridlines({ y, most, mostTokens }, width) {
        return [0, 0.5, 1].flatMap((share) => {
            const height = y(share, 1);
            const label = (x, anchor, text) => draw('text', { x, y: height + 4, 'text-anchor': anchor }, text);
            const quiet = share === 0.5 && most % 2 !== 0;
            return [
                draw('line', { class: 'rule', x1: EDGE.left, x2: width - EDGE.right, y1: height, y2: height }),
                ...(quiet ? [] : [label(EDGE.left - 8, 'end', compact(most * share))]),
                ...(share === 0 ? [] : [label(width - EDGE.right + 8, 'start', compact(mostTokens * share))]),
            ];
        });
    }

    column(bar, index, { x, y, step, most }) {
        let under = 0;
        return STACK.filter((name) => bar[name] > 0).map((name) => {
            const [from, to] = [under, (under += bar[name])];
            return draw('rect', {
                class: `column ${name}${index === this.bars.length - 1 ? ' running' : ''}`,
                x: (x(index) + step * 0.14).toFixed(2),
                width: Math.max(1, step * 0.72).toFixed(2),
                y: y(to, most).toFixed(2),
                height: Math.max(0.75, y(from, most) - y(to, most)).toFixed(2),
            });
        });
    }

    tokens({ x, y, step, mostTokens }) {
        // The running bar is not over, and would look like a fall.
        const points = this.bars.slice(0, -1).map((bar, index) => `${(x(index) + step / 2).toFixed(1)} ${y(bar.tokens, mostTokens).toFixed(1)}`);
        return draw('path', { class: 'tokens', d: this.bars.some((bar) => bar.tokens > 0) ? `M${points.join('L')}` : '' });
    }

    hours({ x, step }) {
        const every = this.box.clientWidth < 560 ? 6 : 3;
        return this.bars.flatMap((bar, index) => {
            const at = new Date(bar.from);
            if (at.getHours() % every !== 0 || at.getMinutes() !== 0) return [];
            const place = x(index) + step / 2;
            if (place > this.box.clientWidth - EDGE.right - 12) return [];
            return [draw('text', { x: place, y: HEIGHT - 6, 'text-anchor': 'middle' }, clock(at))];
        });
    }

    point(clientX) {
        if (this.bars.length === 0) return;
        const { left, width } = this.box.getBoundingClientRect();
        const { step } = this.scale(width);
        const index = Math.floor((clientX - left - EDGE.left) / step);
        this.choose(Math.max(0, Math.min(index, this.bars.length - 1)));
    }

    key(event) {
        const last = this.bars.length - 1;
        const now = this.chosen ?? last;
        const next = { ArrowLeft: now - 1, ArrowRight: now + 1, Home: 0, End: last, Escape: null }[event.key];
        if (next === undefined) return;
        event.preventDefault();
        this.choose(next === null ? null : Math.max(0, Math.min(next, last)));
    }

    choose(index) {
        this.chosen = index;
        const bar = index === null ? null : this.bars[index];
        if (!bar) {
            this.cursor?.setAttribute('width', 0);
            const sum = (name) => this.bars.reduce((total, one) => total + one[name], 0);
            const words = `24 hours: ${count(sum('success'))} whole, ${count(sum('failed'))} failed, ${count(sum('refused'))} refused, ${compact(sum('tokens'))} tokens.`;
            say(this.readout, this.bars.length > 0 ? words : '');
            this.box.setAttribute('aria-valuetext', words);
            return;
        }
        const scale = this.scale(this.box.clientWidth);
        this.cursor.setAttribute('x', scale.x(index));
        this.cursor.setAttribute('width', scale.step);
        const words = `${clock(bar.from)} to ${clock(bar.to)}: ${count(bar.success)} whole, ${count(bar.failed)} failed, ${count(bar.refused)} refused, ${many(Math.round(bar.tokens), 'token')}.`;
        say(this.readout, words);
        this.box.setAttribute('aria-valuenow', index);
        this.box.setAttribute('aria-valuetext', words);
    }
}

/** Points put together by `by`, aligned so that a full hour begins a bar. */
function bars({ step_s: step, from, series }, by) {
    const start = Date.parse(from);
    const wide = step * by * 1000;
    const found = new Map();
    series.success.forEach((_, index) => {
        const begins = Math.floor((start + index * step * 1000) / wide) * wide;
        const bar = found.get(begins) ?? { from: begins, to: begins + wide, success: 0, failed: 0, refused: 0, tokens: 0 };
        for (const name of STACK) bar[name] += series[name][index] ?? 0;
        bar.tokens += (series.input[index] ?? 0) + (series.output[index] ?? 0);
        found.set(begins, bar);
    });
    return [...found.values()];
}

/** The next of 1, 2, 4, 5, 6, 8, 10 times a power of ten. */
function nice(value) {
    const power = 10 ** Math.floor(Math.log10(value));
    return [1, 2, 4, 5, 6, 8, 10].find((step) => step * power >= value) * power;
}
