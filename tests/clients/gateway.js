// Starts the built gateway in front of the mock provider, and stops both.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createWriteStream } from 'node:fs';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import net from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';

import { MASTER_KEY, startProvider } from './provider.js';

const dialects = ['openai', 'anthropic', 'gemini'];

const root = fileURLToPath(new URL('../..', import.meta.url));
const binary =
    process.env.GATEKEEPER_BIN ??
    path.resolve(root, process.env.CARGO_TARGET_DIR ?? 'target', 'debug/gatekeeper');

/** `sources`, `plans` and `more` models are added to what is always there. */
export async function startGateway({ sources = [], plans = {}, more = {} } = {}) {
    const provider = await startProvider();

    // A fresh licence for each test that uses one up.
    const singles = Array.from({ length: 8 }, (_, n) => `ONE-MESSAGE-000${n}`);
    const models = ['answer', 'tool', 'endless', 'broken'];
    const config = {
        licenses: {
            buy_url: 'https://example.com/buy',
            sources: [
                {
                    static: {
                        keys: [
                            { key: 'FULL-0001', plan: 'full' },
                            ...singles.map((key) => ({ key, plan: 'one' })),
                        ],
                    },
                },
                ...sources,
            ],
        },
        plans: {
            full: { messages: '10000/month', tokens: '10000000/month', models },
            one: { messages: '1/month', models: ['answer'], max_input_tokens: 8000 },
            ...plans,
        },
        // A model is served by the target that speaks what the app speaks.
        providers: Object.fromEntries(
            dialects.map((dialect) => [
                dialect,
                {
                    base_url: provider.baseUrl,
                    dialect,
                    keys: [{ id: `${dialect}-1`, secret: 'env:MOCK_PROVIDER_KEY' }],
                },
            ]),
        ),
        models: {
            ...Object.fromEntries(
                [...models, 'not-in-the-plan'].map((name) => [name, dialects.map((dialect) => `${dialect}/${name}`)]),
            ),
            ...more,
        },
    };
    const running = await runGateway(config, { MOCK_PROVIDER_KEY: MASTER_KEY });
    const gateway = {
        ...running,
        provider,
        baseURL: `${running.url}/v1`,
        licence: 'FULL-0001',
        oneMessage: () => singles.pop(),

        /** What the gateway says to a bare request, to compare with what an SDK shows. */
        async says(licence, body) {
            const response = await fetch(`${gateway.baseURL}/chat/completions`, {
                method: 'POST',
                headers: { authorization: `Bearer ${licence}`, 'content-type': 'application/json' },
                body: JSON.stringify(body),
            });
            return { status: response.status, ...(await response.json()).error };
        },

        /** Requests that the gateway answered so far. */
        async answered() {
            await sleep(100); // a request is counted after its last byte is out
            const metrics = await (await fetch(`${gateway.admin}/metrics`)).text();
            return metrics
                .split('\n')
                .filter((line) => line.startsWith('gatekeeper_requests_total{'))
                .reduce((sum, line) => sum + Number(line.split(' ').at(-1)), 0);
        },

        async stop() {
            provider.stop();
            await running.stop();
        },
    };
    return gateway;
}

/**
 * Starts the gateway with `config`, which needs no addresses and no store, in a directory of its own.
 * After `end`, `start` begins it anew with the same addresses and store.
 */
export async function runGateway(config, env = {}) {
    const dir = await mkdtemp(path.join(tmpdir(), 'gatekeeper-clients-'));
    const [port, adminPort] = [await freePort(), await freePort()];
    const file = path.join(dir, 'gatekeeper.yaml');
    const write = (changed) => {
        const whole = {
            server: { listen: `127.0.0.1:${port}` },
            store: { kind: 'embedded', path: path.join(dir, 'gatekeeper.db') },
            ...changed,
            admin: { listen: `127.0.0.1:${adminPort}`, ...changed.admin },
        };
        return writeFile(file, JSON.stringify(whole, null, 2)); // JSON is YAML
    };
    await write(config);
    const logFile = path.join(dir, 'log');
    let end;
    let drain;

    const start = async () => {
        const log = createWriteStream(logFile, { flags: 'a' });
        await once(log, 'open');
        const child = spawn(binary, ['run', '-c', file], {
            env: { ...process.env, ...env },
            stdio: ['ignore', log, log],
        });
        const exited = new Promise((resolve) => child.once('exit', resolve).once('error', resolve));
        drain = () => child.kill('SIGTERM');
        end = async () => {
            child.kill('SIGTERM');
            const late = setTimeout(() => child.kill('SIGKILL'), 5000);
            await exited;
            clearTimeout(late);
        };
        for (let tries = 0; tries < 100; tries += 1) {
            const gone = await Promise.race([exited.then(() => true), sleep(100, false)]);
            if (gone) break;
            const ready = await fetch(`${gateway.admin}/readyz`).catch(() => null);
            if (ready?.ok) return;
        }
        const said = await readFile(logFile, 'utf8');
        await gateway.stop();
        throw new Error(`the gateway (${binary}) did not start:\n${said}`);
    };

    const gateway = {
        url: `http://127.0.0.1:${port}`,
        admin: `http://127.0.0.1:${adminPort}`,
        file,
        /** Saves another configuration. */
        write,
        start,
        /** Asks the process to end with its last answer. */
        drain: () => drain(),
        /** Ends the process alone. */
        end: () => end(),
        async stop() {
            await end();
            await rm(dir, { recursive: true, force: true });
        },
    };
    await start();
    return gateway;
}

/** `gatekeeper demo` as `make run` starts it, on other ports. */
export async function runDemo() {
    const [port, adminPort] = [await freePort(), await freePort()];
    const words = ['demo', '--listen', `127.0.0.1:${port}`, '--admin', `127.0.0.1:${adminPort}`];
    const child = spawn(binary, words, { stdio: ['ignore', 'pipe', 'inherit'] });
    const exited = once(child, 'exit');
    let said = '';
    for await (const part of child.stdout) if ((said += part).includes('Ctrl-C')) break;
    return {
        // The ports are others where these were taken meanwhile.
        url: /^Apps +(\S+)\/v1$/m.exec(said)[1],
        async stop() {
            child.kill('SIGTERM');
            await exited;
        },
    };
}

export async function freePort() {
    const server = net.createServer().listen(0, '127.0.0.1');
    await once(server, 'listening');
    const { port } = server.address();
    server.close();
    await once(server, 'close');
    return port;
}

/** Rejects when `promise` takes longer than a test should wait. */
export function soon(promise, what) {
    const late = sleep(5000, null, { ref: false }).then(() => {
        throw new Error(`still waiting for ${what}`);
    });
    return Promise.race([promise, late]);
}
