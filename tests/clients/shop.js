// A small Lemon Squeezy: the three calls of its licence API. The key says what it answers.
import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import http from 'node:http';

export const STORE = 58213;
export const PRODUCT = 588102;
export const PRO = 912744;
export const SEATS = 912745;

/** How many devices a key may activate. */
export const LIMIT = 2;

export const KEYS = {
    pro: '3F2A9C1E-7B4D-4E8A-9D60-5C1B8E7F2A34',
    seats: '0B6E1D52-93AF-4C07-8E21-7D5A40C9F318',
    expired: '5E9D7C30-18B2-4F6A-A4D3-2C80E1967B5F',
    disabled: '8C41F0A7-6D2E-4B95-B7F8-E03A59D1C264',
    otherStore: 'A72D5B18-E4C0-4396-9F1B-68D07E35AC92',
    otherProduct: 'C90E3F64-2A7B-41D8-8C56-B1F4927D0E3A',
    testMode: 'D18A6C05-7F93-4E2B-A0D7-45C9E82B61F7',
    unknown: 'E54B0D97-C8A1-4732-B6E9-0F7D3A1C5E86',
    down: 'F6C3A821-05DE-4B7F-9A34-D92E7C10B854',
};

const LICENCES = {
    [KEYS.pro]: {},
    [KEYS.seats]: { variant_id: SEATS },
    [KEYS.expired]: { status: 'expired', expires_at: '2025-03-02T09:14:55.000000Z' },
    [KEYS.disabled]: { status: 'disabled' },
    [KEYS.otherStore]: { store_id: STORE + 1 },
    [KEYS.otherProduct]: { product_id: PRODUCT + 1 },
    [KEYS.testMode]: { test_mode: true },
};

export async function startShop() {
    const calls = []; // what arrived, in order: { path, form }
    const devices = Object.fromEntries(Object.keys(LICENCES).map((key) => [key, new Map()]));
    const shop = { calls, down: false };

    const server = http.createServer(async (req, res) => {
        let text = '';
        for await (const part of req) text += part;
        const form = Object.fromEntries(new URLSearchParams(text));
        calls.push({ path: req.url, form });
        const [status, body] = reply(req, form);
        const html = typeof body === 'string';
        res.writeHead(status, { 'content-type': html ? 'text/html' : 'application/json' });
        res.end(html ? body : JSON.stringify(body));
    });
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');

    function reply(req, form) {
        const act = acts[req.method === 'POST' ? req.url : ''];
        if (!act) return [404, '<h1>Not found</h1>'];
        if (shop.down || form.license_key === KEYS.down) return [503, '<h1>We will be right back</h1>'];
        const [done, answer] = act;
        const known = devices[form.license_key];
        if (!known) return [404, { [done]: false, error: 'license_key not found.' }];
        const { error, instance = null } = answer(known, form);
        const status = error?.endsWith('not found.') ? 404 : error ? 400 : 200;
        return [status, { [done]: !error, error: error ?? null, ...about(form.license_key), instance }];
    }

    function about(key) {
        const { status, expires_at = null, test_mode = false, ...ids } = LICENCES[key];
        const used = devices[key].size;
        return {
            license_key: {
                id: 1873402,
                status: status ?? (used ? 'active' : 'inactive'),
                key,
                activation_limit: LIMIT,
                activation_usage: used,
                created_at: '2026-03-02T09:14:55.000000Z',
                expires_at,
                test_mode,
            },
            meta: {
                store_id: STORE,
                order_id: 6120947,
                order_item_id: 6083311,
                product_id: PRODUCT,
                product_name: 'Inkwell Desktop',
                variant_id: PRO,
                variant_name: 'Pro',
                customer_id: 7240158,
                customer_name: 'Maren Okafor',
                customer_email: 'maren@example.com',
                ...ids,
            },
        };
    }

    return Object.assign(shop, {
        source: {
            lemonsqueezy: {
                store_id: STORE,
                products: { [PRODUCT]: { [PRO]: 'shop', [SEATS]: 'seats' } },
                base_url: `http://127.0.0.1:${server.address().port}`,
            },
        },
        /** How often the shop was asked about a key. */
        asked: (key) => calls.filter(({ form }) => form.license_key === key).length,
        stop() {
            server.close();
            server.closeAllConnections();
        },
    });
}

const created_at = '2026-11-24T09:20:11.000000Z';

// Path → the member that says whether it was done, and what else is answered.
const acts = {
    '/v1/licenses/validate': [
        'valid',
        (devices, { license_key, instance_id: id }) => {
            const { status } = LICENCES[license_key];
            if (status) return { error: `This license key is ${status}.` };
            if (!id) return {};
            if (!devices.has(id)) return { error: 'instance_id not found.' };
            return { instance: { id, name: devices.get(id), created_at } };
        },
    ],
    '/v1/licenses/activate': [
        'activated',
        (devices, { instance_name: name }) => {
            if (devices.size >= LIMIT) return { error: 'This license key has reached the activation limit.' };
            const id = randomUUID();
            devices.set(id, name);
            return { instance: { id, name, created_at } };
        },
    ],
    '/v1/licenses/deactivate': [
        'deactivated',
        (devices, { instance_id }) => (devices.delete(instance_id) ? {} : { error: 'instance_id not found.' }),
    ],
};
