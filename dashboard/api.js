// Calls to the gateway's admin listener. Nothing secret ever stands in an address.

export class Refused extends Error {
    constructor(status, message, retryAfter) {
        super(message);
        this.status = status;
        /** Seconds. */
        this.retryAfter = retryAfter;
    }
}

/** No answer at all. */
export class Unreachable extends Error {}

const PATIENCE_MS = 8000;

async function call(path, options) {
    let response;
    try {
        response = await fetch(path, {
            ...options,
            credentials: 'same-origin',
            cache: 'no-store',
            redirect: 'error',
            signal: AbortSignal.timeout(options?.patience ?? PATIENCE_MS),
        });
    } catch {
        throw new Unreachable('The gateway does not answer.');
    }
    const text = await response.text().catch(() => '');
    let body = null;
    try {
        body = text ? JSON.parse(text) : null;
    } catch {
        // A proxy's page, or plain words.
    }
    if (!response.ok) {
        const said = body?.error?.message ?? (text.length < 300 ? text.trim() : '');
        const words = said || `The gateway answered ${response.status}.`;
        throw new Refused(response.status, words, Number(response.headers.get('retry-after')) || 0);
    }
    return body;
}

const scope = (gateway) => (gateway ? `?gateway=${encodeURIComponent(gateway)}` : '');

export const status = (gateway) =>
    call(`/status${scope(gateway)}`, { headers: { accept: 'application/json' } });

export const history = (gateway) => call(`/api/history${scope(gateway)}`);

/** Those that used most this month. */
export const topLicences = () => call('/api/licenses');

export const post = (path, body, patience) =>
    call(path, {
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body: JSON.stringify(body),
        patience,
    });

/** Names an order: sent again under the same name, it is carried out once. */
export function orderId() {
    const bytes = crypto.getRandomValues(new Uint8Array(12));
    return [...bytes].map((byte) => byte.toString(16).padStart(2, '0')).join('');
}
