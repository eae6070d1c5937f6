// A stand-in for Stripe: the objects of purchases, as its API gives them to a key.
import http from 'node:http';
import { once } from 'node:events';

export const SECRETS = {
    STRIPE_RK: 'rk_test_0123456789',
    STRIPE_SECRET: 'whsec_0123456789abcdef',
    GATEKEEPER_TEST_KEK: Buffer.alloc(32, 7).toString('base64'),
};

/** The source that sells, and the vault that it needs. */
export const selling = (stripe, prices) => ({
    vault: { kek: 'env:GATEKEEPER_TEST_KEK' },
    source: {
        issued: {
            prefix: 'JSTAR',
            stripe: {
                api_key: 'env:STRIPE_RK', webhook_secret: 'env:STRIPE_SECRET', base_url: stripe.url,
                prices, deep_link: 'jstar://license',
            },
        },
    },
});

export async function startStripe() {
    const objects = new Map();
    const asked = [];
    const server = http.createServer((request, response) => {
        const { pathname } = new URL(request.url, 'http://stripe');
        asked.push(pathname);
        const isOurs = request.headers.authorization === `Bearer ${SECRETS.STRIPE_RK}`;
        const list = { object: 'list', data: [], has_more: false };
        const found = objects.get(pathname.replace('/v1/', '')) ?? (/^\/v1\/(events|disputes)$/.test(pathname) ? list : null);
        const status = !isOurs ? 401 : found ? 200 : 404;
        response.writeHead(status, { 'content-type': 'application/json' });
        response.end(JSON.stringify(status === 200 ? found : { error: { code: 'resource_missing' } }));
    });
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    return {
        url: `http://127.0.0.1:${server.address().port}`,
        asked,

        /** A checkout of one payment; its session's id. */
        sell(name, price = 'price_pro', paymentStatus = 'paid') {
            const [session, intent, charge] = [`cs_test_${name}`, `pi_${name}`, `ch_${name}`];
            objects.set(`charges/${charge}`, {
                id: charge, object: 'charge', created: Math.floor(Date.now() / 1000), livemode: false, refunded: false,
                disputed: false, payment_intent: intent, customer: null, invoice: null,
            });
            objects.set(`payment_intents/${intent}`, { id: intent, object: 'payment_intent', latest_charge: charge, livemode: false });
            objects.set(`checkout/sessions/${session}`, {
                id: session, object: 'checkout.session', livemode: false, mode: 'payment', status: 'complete',
                payment_status: paymentStatus, payment_intent: intent, subscription: null, customer: null,
                line_items: { object: 'list', data: [{ object: 'item', price: { id: price } }] },
            });
            return session;
        },

        change(path, members) {
            Object.assign(objects.get(path), members);
        },

        stop() {
            server.closeAllConnections();
            server.close();
        },
    };
}
