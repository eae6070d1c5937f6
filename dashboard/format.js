// Numbers, durations and code words as people read them.

const whole = new Intl.NumberFormat('en-GB', { maximumFractionDigits: 0 });
const short = new Intl.NumberFormat('en', { notation: 'compact', maximumSignificantDigits: 3 });
const THIN = '\u202f';
const NONE = '–';

const missing = (value) => value === null || value === undefined || Number.isNaN(value);

export const count = (value) => (missing(value) ? NONE : whole.format(value));

/** 1,204 as it is, 12,400 as 12.4K. */
export const compact = (value) =>
    missing(value) ? NONE : value < 10_000 ? whole.format(value) : short.format(value);

/** Cut, not rounded: 100 % is said only where nothing failed. */
export function percent(rate) {
    if (missing(rate)) return NONE;
    return `${percentFigure(rate)}${THIN}%`;
}

export function percentFigure(rate) {
    if (missing(rate)) return NONE;
    const tenths = Math.floor(rate * 1000 + 1e-9) / 10;
    return tenths === 100 ? '100' : tenths.toFixed(1);
}

export function dollars(value) {
    if (missing(value)) return NONE;
    if (value === 0) return '$0';
    if (value < 0.0001) return '<$0.0001';
    const digits = value < 0.1 ? 4 : value < 1000 ? 2 : 0;
    return `$${value.toLocaleString('en-GB', { minimumFractionDigits: digits, maximumFractionDigits: digits })}`;
}

export function millis(value) {
    if (missing(value)) return NONE;
    if (value < 1000) return `${Math.round(value)}${THIN}ms`;
    if (value < 60_000) return `${(value / 1000).toFixed(value < 10_000 ? 1 : 0)}${THIN}s`;
    return duration(value);
}

/** Two units at most: 41 s, 2 min 5 s, 3 h 12 min, 2 d 4 h. */
export function duration(ms) {
    const seconds = Math.max(0, Math.round(ms / 1000));
    const units = [
        ['d', 86_400],
        ['h', 3600],
        ['min', 60],
        ['s', 1],
    ];
    const first = units.findIndex(([, size]) => seconds >= size);
    if (first < 0) return `0${THIN}s`;
    let rest = seconds;
    const parts = [];
    for (const [unit, size] of units.slice(first, first + 2)) {
        const many = Math.floor(rest / size);
        rest -= many * size;
        if (many > 0) parts.push(`${many}${THIN}${unit}`);
    }
    return parts.join(' ');
}

/** One unit: now, 3 s, 41 s, 2 min, 3 h, 2 d. */
export function age(ms) {
    const seconds = Math.floor(ms / 1000);
    if (seconds < 1) return 'now';
    if (seconds < 60) return `${seconds}${THIN}s`;
    if (seconds < 3600) return `${Math.floor(seconds / 60)}${THIN}min`;
    if (seconds < 86_400) return `${Math.floor(seconds / 3600)}${THIN}h`;
    return `${Math.floor(seconds / 86_400)}${THIN}d`;
}

const dayAndTime = new Intl.DateTimeFormat('en-GB', {
    day: 'numeric',
    month: 'short',
    year: 'numeric',
    hour: '2-digit',
    minute: '2-digit',
    second: '2-digit',
    timeZoneName: 'short',
});
const clockTime = new Intl.DateTimeFormat('en-GB', { hour: '2-digit', minute: '2-digit' });
const secondsTime = new Intl.DateTimeFormat('en-GB', { hour: '2-digit', minute: '2-digit', second: '2-digit' });
const dayOnly = new Intl.DateTimeFormat('en-GB', { day: 'numeric', month: 'long', year: 'numeric' });

const moment = (format) => (at) => {
    const date = new Date(at);
    return Number.isNaN(date.getTime()) ? NONE : format.format(date);
};

export const exact = moment(dayAndTime);
export const clock = moment(clockTime);
export const clockSeconds = moment(secondsTime);
export const day = moment(dayOnly);

export const many = (n, one, more = `${one}s`) => `${count(n)} ${n === 1 ? one : more}`;

/** "a", "a and b", "a, b and c". */
export function and(words) {
    if (words.length < 2) return words.join('');
    return `${words.slice(0, -1).join(', ')} and ${words.at(-1)}`;
}

/** Why a key rests. */
const WHY = {
    failing: 'its answers fail',
    rate_limited: 'rate-limited',
    daily_limit: 'daily limit reached',
    no_money: 'no money left',
    bad_credential: 'key rejected',
    no_permission: 'no permission',
};

/** What came of an attempt. */
const ATTEMPT = {
    ...WHY,
    ok: 'answered',
    model_missing: 'model not there',
    provider_error: 'provider error',
    connect_error: 'no connection',
    timeout: 'timed out',
    broken_answer: 'answer broke off',
    empty_answer: 'answer was empty',
    tool_use_failed: 'tool call unreadable',
    too_large: 'request too large',
    content_refused: 'content refused',
    firewall: 'stopped by a firewall',
    app_left: 'app left',
    request_rejected: 'request refused',
    crowded: 'no room in the gateway',
    key_gone: 'key taken away',
};

/** What a request came to. */
export const OUTCOMES = {
    whole: { word: 'whole', tone: 'served' },
    broken: { word: 'broke off', tone: 'failed' },
    failed: { word: 'failed', tone: 'failed' },
    refused: { word: 'refused', tone: 'refused' },
    relayed: { word: 'relayed', tone: 'refused' },
    abandoned: { word: 'app left', tone: 'off' },
};

const plain = (code) => String(code).replaceAll('_', ' ');

export const why = (code) => WHY[code] ?? plain(code);
export const attempt = (code) => ATTEMPT[code] ?? plain(code);

/** Error codes that the gateway sends, in the operator's words. */
const CODES = {
    license_missing: 'no licence key sent',
    license_invalid: 'licence key not known',
    license_expired: 'licence expired',
    license_disabled: 'licence disabled',
    license_refunded: 'licence refunded',
    license_wrong_product: 'licence of another product',
    device_limit: 'too many devices',
    model_not_allowed: 'model not in the plan',
    prompt_required: 'prompts only',
    conversation_limited: 'conversation limited',
    quota_exceeded: 'plan used up',
    rate_limited: 'too fast',
    invalid_request: 'request not valid',
    model_not_found: 'no such model',
    not_found: 'no such address',
    method_not_allowed: 'wrong method',
    body_too_large: 'request too large',
    unsupported_encoding: 'compressed request',
    upstream_error: 'providers failed',
    upstream_timeout: 'providers timed out',
    upstream_exhausted: 'no key free',
    license_check_unavailable: 'shop not reachable',
    store_unavailable: 'store not reachable',
    shutting_down: 'shutting down',
};

export const code = (name) => CODES[name] ?? plain(name);
