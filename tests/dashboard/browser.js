// Chromium without a screen, and pages in it that tell what went wrong in them.
import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';

import { chromium } from 'playwright-core';

const candidates = [process.env.CHROMIUM_BIN, '/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome'];
const executablePath = candidates.find((path) => path && existsSync(path));

export function startBrowser() {
    assert.ok(executablePath, 'there is no Chromium; CHROMIUM_BIN names one');
    return chromium.launch({
        executablePath,
        args: [
            '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run',
            '--disable-background-networking', '--disable-component-update', '--disable-sync',
        ],
    });
}

export const PHONE = { viewport: { width: 390, height: 844 }, hasTouch: true };

/** Milliseconds; the machine may be busy. */
const PATIENCE = 15_000;

/**
 * Opens the dashboard in a profile of its own, until the test `t` ends. `page.troubles` are errors in the
 * console, exceptions and requests to other hosts than `at`'s; `page.asked` all requests. Errors of the
 * network are troubles unless `mayFail`. Where it is not about looks, `plain` saves the machine the glass.
 */
export async function open(t, browser, url, { view = '', at = url, mayFail = false, plain = true, ...options } = {}) {
    const context = await browser.newContext({
        viewport: { width: 1440, height: 900 },
        colorScheme: 'dark',
        reducedMotion: plain ? 'reduce' : 'no-preference',
        ...options,
    });
    t.after(() => context.close());
    const page = await context.newPage();
    page.setDefaultTimeout(PATIENCE);
    if (plain) {
        const session = await context.newCDPSession(page);
        const features = [{ name: 'prefers-reduced-transparency', value: 'reduce' }];
        for (const [name, value] of [['prefers-color-scheme', options.colorScheme ?? 'dark'], ['prefers-reduced-motion', 'reduce']]) features.push({ name, value });
        await session.send('Emulation.setEmulatedMedia', { features });
    }
    page.troubles = [];
    page.asked = [];
    page.on('pageerror', (error) => page.troubles.push(`exception: ${error.message}`));
    page.on('console', (message) => {
        if (message.type() !== 'error') return;
        const isNetwork = message.text().startsWith('Failed to load resource');
        if (!(isNetwork && mayFail)) page.troubles.push(`console: ${message.text()}`);
    });
    page.on('request', (request) => {
        page.asked.push(request);
        const { protocol, origin } = new URL(request.url());
        if (!['data:', 'about:'].includes(protocol) && origin !== new URL(at).origin) page.troubles.push(`another host: ${request.url()}`);
    });
    await page.goto(url === at ? `${url}/${view && `#${view}`}` : url);
    return page;
}

/** At the end of a test that went well: nothing went wrong in the page either. */
export const isFine = (page) => assert.deepEqual(page.troubles, []);

/** Waits until `look()` is true; tells what it was else. */
export async function until(look, what) {
    const end = Date.now() + PATIENCE;
    let last;
    while (Date.now() < end) {
        last = await look();
        if (last === true) return;
        await new Promise((resolve) => setTimeout(resolve, 50));
    }
    assert.fail(`${what}: still ${JSON.stringify(last)}`);
}

/** The text of the first element that fits, its thin spaces as spaces. */
export const text = async (page, selector) => ((await page.locator(selector).first().textContent()) ?? '').replaceAll('\u202f', ' ').trim();

/** Waits until an element says something. */
export async function says(page, selector, wanted) {
    const fits = (said) => (wanted instanceof RegExp ? wanted.test(said) : said === wanted);
    await until(async () => {
        const said = await text(page, selector);
        return fits(said) || said;
    }, `${selector} to say ${wanted}`);
}
