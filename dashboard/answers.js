// What the last answers came to, judged as they come in: the headline is about now, not about an average.

/** Answers of so long ago say what buyers get. */
const WINDOW_MS = 20_000;
/** Older ones say nothing of a gateway that was not asked since. */
const STALE_MS = 5 * 60_000;
/** Failures in a row from which on nothing is served; fewer where nothing else is known. */
const IN_A_ROW = 3;
const IN_A_ROW_ALONE = 2;
/** After so many good answers in a row, and so long without a failure, the failures before are over. */
const CALM_ANSWERS = 10;
const CALM_MS = 2000;
/** Reasons kept, of the newest failures. */
const REASONS = 20;

const isGood = ({ outcome }) => outcome === 'whole';
const isBad = ({ outcome }) => outcome === 'failed' || outcome === 'broken';

export class Answers {
    constructor() {
        this.forget();
    }

    /** Another gateway, or another boot. */
    forget() {
        this.totals = null;
        this.seen = new Set();
        /** `{ at, good, bad }`, oldest first. */
        this.steps = [];
        this.row = { good: 0, bad: 0, since: null };
        this.lastGood = this.lastBad = -Infinity;
        this.outage = null;
        this.reasons = [];
    }

    /**
     * `totals` counted from the gateway's start, `requests` the newest ones, newest first. At many answers a
     * second there are fewer requests than were counted: the rest came before them.
     */
    take({ success, failed }, requests, now) {
        const fresh = requests.filter((one) => !this.seen.has(idOf(one)) && (isGood(one) || isBad(one)));
        this.seen = new Set(requests.map(idOf).concat([...this.seen].slice(0, 200)));
        if (this.totals) {
            const good = success - this.totals.success - fresh.filter(isGood).length;
            const bad = failed - this.totals.failed - fresh.filter(isBad).length;
            // What was told in one order and counted in another evens out at the next step.
            if (good > 0) this.note(now, true, good);
            if (bad > 0) this.note(now, false, bad);
        }
        // One that was on its way longer is behind.
        const before = this.totals ?? { success: 0, failed: 0 };
        this.totals = { success: Math.max(success, before.success), failed: Math.max(failed, before.failed) };
        for (const one of fresh.toReversed()) {
            if (isBad(one)) this.reasons = [reason(one), ...this.reasons].slice(0, REASONS);
            this.note(Math.min(now, Date.parse(one.time)), isGood(one), 1);
        }
        this.steps = this.steps.filter(({ at }) => at > now - WINDOW_MS);
    }

    note(at, good, count) {
        this.steps.push({ at, good: good ? count : 0, bad: good ? 0 : count });
        const { row, outage } = this;
        if (good) {
            if (outage && outage.over === null) outage.over = at;
            Object.assign(row, { good: row.good + count, bad: 0, since: null });
            this.lastGood = at;
            return;
        }
        row.since ??= at;
        Object.assign(row, { good: 0, bad: row.bad + count });
        this.lastBad = at;
        if (outage && outage.over === null) {
            outage.failed += count;
        } else if (row.bad >= (at - this.lastGood > STALE_MS ? IN_A_ROW_ALONE : IN_A_ROW)) {
            const goesOn = outage && row.since - outage.over < WINDOW_MS;
            this.outage = goesOn
                ? { ...outage, failed: outage.failed + row.bad, over: null }
                : { since: row.since, failed: row.bad, over: null };
        }
    }

    /**
     * `outage`: nothing is served since then, `stale` where nothing was asked for long. `again`: it is over since
     * then. `recent`: the last 20 seconds, without what is over.
     */
    judge(now) {
        const { outage, row } = this;
        const isOver = outage && outage.over !== null;
        const from = Math.max(now - WINDOW_MS, isOver ? outage.over : 0);
        const calm = row.good >= CALM_ANSWERS && now - this.lastBad >= CALM_MS;
        const recent = { good: 0, bad: 0 };
        for (const { at, good, bad } of this.steps) {
            if (at < from) continue;
            recent.good += good;
            recent.bad += calm ? 0 : bad;
        }
        return {
            recent,
            reasons: this.reasons,
            outage: outage && !isOver ? { ...outage, inARow: row.bad, last: this.lastBad, stale: now - this.lastBad > STALE_MS } : null,
            again: isOver && now - outage.over < STALE_MS ? { since: outage.over, failed: outage.failed } : null,
        };
    }
}

const idOf = ({ gateway, id, time }) => `${gateway ?? ''}/${id}/${time}`;

/** Who failed last in a request, and how; a code where no provider was asked. */
function reason({ attempts = [], error }) {
    const last = attempts.findLast(({ outcome }) => outcome !== 'ok') ?? attempts.at(-1);
    return last ? { provider: last.provider, outcome: last.outcome } : { provider: null, outcome: error };
}
