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

/**
 * Opens the dashboard in a profile of its own. `page.troubles` are errors in the console, exceptions and
 * requests to other hosts; `page.asked` all requests. Errors of the network are troubles unless `mayFail`.
 */
export async function open(browser, url, { view = '', mayFail = false, ...options } = {}) {
    const context = await browser.newContext({ viewport: { width: 1440, height: 900 }, colorScheme: 'dark', ...options });
    const page = await context.newPage();
    page.setDefaultTimeout(8000);
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
        if (protocol !== 'data:' && origin !== new URL(url).origin) page.troubles.push(`another host: ${request.url()}`);
    });
    await page.goto(`${url}/${view && `#${view}`}`);
    return page;
}

export async function close(page) {
    await page.context().close();
    assert.deepEqual(page.troubles, []);
}

/** Waits until `look()` is true; tells what it was else. */
export async function until(look, what, patience = 8000) {
    const end = Date.now() + patience;
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
