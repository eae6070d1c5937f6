// An app's side of Gatekeeper, for Electron's main process. Nothing of Electron is needed here: the
// `openai` package and the place where the key is kept are handed in, so it runs under plain Node too.
import { randomUUID } from 'node:crypto';
import { hostname } from 'node:os';
import { setTimeout as sleep } from 'node:timers/promises';

// Sent once: the user waits in a dialog, and an activation that is sent twice takes two places.
const ONCE = { maxRetries: 0, timeout: 20_000 };

export class Gatekeeper {
    #OpenAI;
    #url;
    #store;
    #retries;

    /**
     * OpenAI   the class that the `openai` package exports
     * url      the gateway; a /v1 at its end, as SDKs have it, does no harm
     * store    keeps one small object: `load()` gives it back, or null; `save(object or null)`
     * retries  how often a chat is asked again by itself after 429, 5xx and network trouble
     */
    constructor({ OpenAI, url, store, retries = 2 }) {
        this.#OpenAI = OpenAI;
        this.#url = url.replace(/\/+$/, '').replace(/\/v1$/, '');
        this.#store = store;
        this.#retries = retries;
    }

    /** Checks the key, keeps it, and gives the account. A plan that counts devices gets this one activated. */
    async login(typed, device = hostname()) {
        const key = typed.trim();
        if (!/^[\x21-\x7e]{1,256}$/.test(key)) {
            throw refusal(403, 'license_invalid', 'This does not look like a licence key. Please copy all of it.');
        }
        const known = await this.#store.load();
        const licence = known?.key === key ? known : { key };
        try {
            const account = await this.#me(licence);
            await this.#store.save(licence);
            return account;
        } catch (error) {
            if (error.error?.code !== 'device_limit') throw error;
            await this.#activate(key, device);
            return this.account();
        }
    }

    /**
     * Takes the key by the one-time code of a link ("open in the app"), and logs in with it.
     * Any page may open such a link, with the licence of a stranger. So `confirm({ licence, plan, replaces })` asks the
     * user first, with the ends of the new key and of the one it replaces, if there is one; where it gives false nothing
     * changes, and this gives null. Without `confirm` no other key is replaced.
     */
    async loginByLink(link, device = hostname(), confirm) {
        const before = await this.#store.load();
        if (before && !confirm) throw refusal(409, 'license_kept', 'Log out before you use another licence.');
        const code = new URL(link).searchParams.get('code') ?? '';
        const answer = await fetch(`${this.#url}/license/claim`, {
            method: 'POST',
            headers: { 'content-type': 'application/json' },
            body: JSON.stringify({ code }),
            signal: AbortSignal.timeout(20_000),
        });
        const said = await answer.json().catch(() => ({}));
        if (!answer.ok) {
            const { code: why = 'upstream_error', message = 'The licence could not be taken over.' } = said.error ?? {};
            throw refusal(answer.status, why, message);
        }
        const isSame = before?.key === said.key;
        const about = { licence: end(said.key), plan: said.plan, replaces: before ? end(before.key) : null };
        if (confirm && !isSame && !(await confirm(about))) return null;
        return this.login(said.key, device);
    }

    /** Plan and what is left: `plan`, `until`, `limits.messages.left`, `limits.tokens.left`, `models`. */
    async account() {
        return this.#me(await this.#licence());
    }

    /** Forgets the key, and gives this device's place back if that can be done now. */
    async logout() {
        await this.deactivate().catch(() => {}); // an expired key must not keep anybody logged in
        await this.#store.save(null);
    }

    /** Takes a place for this device; gives `{ used, max }`. */
    async activate(name = hostname()) {
        const { key } = await this.#licence();
        return this.#activate(key, name);
    }

    /** Gives this device's place back. */
    async deactivate() {
        const licence = await this.#licence();
        if (!licence.instance) return;
        const body = { instance_id: licence.instance };
        await this.#client(licence).post(`${this.#url}/license/deactivate`, { ...ONCE, body });
        await this.#store.save({ key: licence.key });
    }

    /**
     * The answer's text, piece by piece. Leaving the loop or aborting the signal ends the request.
     * The same `messageId` for another try of one message makes it count once.
     * `waiting(seconds)` is told before each wait for another try; aborting the signal ends that, too.
     * `prompt` names a prompt of the gateway, and `variables` fill it: then there is no model to choose.
     * Without a `conversationId` each call is a conversation of its own.
     */
    async *chat({ prompt, variables = {}, model, messages = [], messageId = randomUUID(), conversationId = randomUUID(), signal, waiting }) {
        const client = this.#client(await this.#licence());
        const headers = { 'x-message-id': messageId, 'x-conversation-id': conversationId };
        if (prompt) {
            model = `prompt/${prompt}`;
            messages = [{ role: 'developer', content: JSON.stringify(variables) }, ...messages];
        }
        for (let tries = 0; ; tries += 1) {
            let begun = false;
            try {
                // Waits are ours: the buyer sees them, and can end them.
                const stream = await client.chat.completions.create(
                    { model, messages, stream: true },
                    { headers, signal, maxRetries: 0 },
                );
                for await (const chunk of stream) {
                    const text = chunk.choices[0]?.delta?.content;
                    if (!text) continue;
                    begun = true;
                    yield text;
                }
                return;
            } catch (error) {
                if (signal?.aborted) return;
                if (begun || tries >= this.#retries || !mayRetry(error, this.#OpenAI)) throw error;
                const seconds = pause(error, tries);
                waiting?.(seconds);
                await sleep(seconds * 1000, null, { signal }).catch(() => {});
                if (signal?.aborted) return;
            }
        }
    }

    #client({ key, instance }) {
        return new this.#OpenAI({
            baseURL: `${this.#url}/v1`,
            apiKey: key,
            defaultHeaders: instance ? { 'x-instance-id': instance } : {},
        });
    }

    #me(licence) {
        return this.#client(licence).get('/me', ONCE);
    }

    async #activate(key, name) {
        const body = { name };
        const answer = await this.#client({ key }).post(`${this.#url}/license/activate`, { ...ONCE, body });
        await this.#store.save({ key, instance: answer.instance_id }); // told once: keep it before anything else
        return answer.devices;
    }

    async #licence() {
        const licence = await this.#store.load();
        if (!licence) throw refusal(401, 'license_missing', 'Please enter your licence key.');
        return licence;
    }
}

/** As much of a key as is shown. */
const end = (key) => `…${key.slice(-5)}`;

/** A refusal made here looks like one of the gateway, so that explain() has one kind to know. */
function refusal(status, code, message) {
    return Object.assign(new Error(message), { status, error: { code, message } });
}

/** Whether the same request may succeed later. Without a status nothing answered. */
function mayRetry(error, { APIConnectionError }) {
    if (error?.headers?.get?.('x-should-retry') === 'false') return false;
    const status = error?.status;
    return status === undefined ? error instanceof APIConnectionError : status === 429 || status >= 500;
}

/** Seconds: as the gateway says, else a little longer each time. */
function pause(error, tries) {
    const stated = Number(error?.headers?.get?.('retry-after'));
    return stated > 0 ? Math.min(stated, 60) : 0.5 * 2 ** tries * (0.75 + Math.random() / 2);
}

// What the app can offer. The gateway's codes are a closed list.
const ACTIONS = {
    license_missing: 'enter-key',
    license_invalid: 'enter-key',
    license_wrong_product: 'enter-key',
    license_expired: 'buy',
    license_refunded: 'buy',
    license_disabled: 'contact',
    device_limit: 'activate',
    model_not_allowed: 'upgrade',
    prompt_required: 'upgrade',
    conversation_limited: 'wait',
    quota_exceeded: 'upgrade',
    rate_limited: 'wait',
    license_check_unavailable: 'retry',
    store_unavailable: 'retry',
    upstream_exhausted: 'retry',
    upstream_error: 'retry',
    upstream_timeout: 'retry',
    shutting_down: 'retry',
};

/**
 * What to show for an error of the methods above:
 *   message   a sentence for the buyer
 *   action    enter-key, buy, upgrade, activate, contact, wait, retry, or none
 *   url       where buying or upgrading helps, and the seller has such a page
 *   wait      seconds until another try makes sense
 *   resetsAt  a Date: when what was used up comes back
 */
export function explain(error) {
    const { code, message, upgrade_url: url, resets_at: resetsAt } = error?.error ?? {};
    const wait = Number(error?.headers?.get?.('retry-after'));
    return {
        message: typeof message === 'string' ? message : withoutWords(error?.status),
        action: ACTIONS[code] ?? (served(error?.status) ? 'none' : 'retry'),
        ...(url && { url }),
        ...(wait > 0 && { wait }),
        ...(resetsAt && { resetsAt: new Date(resetsAt) }),
    };
}

// Without a status nothing answered; without a code it was something in front of the gateway.
const served = (status) => status < 500 && status !== 429;

function withoutWords(status) {
    if (!status) return 'The service could not be reached. Check your internet connection and try again.';
    if (served(status)) return 'This request was refused.';
    return 'The service is not available just now. Please try again in a moment.';
}
