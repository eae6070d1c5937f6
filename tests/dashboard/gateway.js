// The built gateway in front of a provider of two accounts, with licences to use up.
import { runGateway } from '../clients/gateway.js';
import { startProvider } from './provider.js';

export const LICENCE = 'DASHBOARD-0001';
/** A licence that is used in no other test. */
export const BUYER = 'BUYER-OF-THE-DASHBOARD-0002';
/** Markup that may be the name of a model. */
export const MARKUP = '<img/src=x/onerror=document.title=1>';

export const SECRETS = { FIRST: 'sk-first', SECOND: 'sk-second', THIRD: 'sk-third', OTHER: 'sk-other' };

export function configuration(provider, change = {}) {
    return {
        licenses: {
            sources: [{ static: { keys: [
                { key: LICENCE, plan: 'pro' },
                { key: BUYER, plan: 'small' },
            ] } }],
        },
        plans: {
            pro: { models: ['*'] },
            small: { messages: '3/month', tokens: '100000/month', models: ['fast'] },
        },
        providers: {
            main: {
                base_url: provider.baseUrl,
                keys: [
                    { id: 'first', secret: 'env:FIRST', group: 'org-a' },
                    { id: 'second', secret: 'env:SECOND', group: 'org-a' },
                    { id: 'third', secret: 'env:THIRD', group: 'org-b' },
                ],
            },
            other: { base_url: provider.baseUrl, keys: [{ id: 'spare', secret: 'env:OTHER' }] },
        },
        models: {
            fast: ['main/small', 'other/small'],
            [MARKUP]: ['main/small'],
        },
        prices: { 'main/small': { input: 50, output: 150 } },
        ...change,
    };
}

export async function startGateway(change, env = {}) {
    const provider = await startProvider();
    const running = await runGateway(configuration(provider, typeof change === 'function' ? change(provider) : change), { ...SECRETS, ...env });

    return {
        ...running,
        provider,

        /** One request, read to its end; its status. */
        async ask({ licence = LICENCE, model = 'fast', stream = false } = {}) {
            const response = await fetch(`${running.url}/v1/chat/completions`, {
                method: 'POST',
                headers: { authorization: `Bearer ${licence}`, 'content-type': 'application/json' },
                body: JSON.stringify({ model, stream, messages: [{ role: 'user', content: 'Where is my parcel?' }] }),
            });
            await response.text().catch(() => {});
            return response.status;
        },

        /** Requests by status, as Prometheus counts them. */
        async counted() {
            const text = await (await fetch(`${running.admin}/metrics`)).text();
            const counted = {};
            for (const [, status, value] of text.matchAll(/^gatekeeper_requests_total\{.*status="(\d+)".*\} (\d+)$/gm)) {
                counted[status] = (counted[status] ?? 0) + Number(value);
            }
            return counted;
        },

        async stop() {
            provider.stop();
            await running.stop();
        },
    };
}
