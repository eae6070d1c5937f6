// What axe finds on a page as it stands, and whether it fits its window.
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { createRequire } from 'node:module';

const axe = await readFile(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');

/** Serious violations. */
export async function violations(page) {
    if (!(await page.evaluate(() => 'axe' in globalThis))) await page.evaluate(axe);
    const found = await page.evaluate(() => globalThis.axe.run(document, { resultTypes: ['violations'] }));
    const bad = found.violations.filter(({ impact }) => ['serious', 'critical'].includes(impact));
    return bad.map(({ id, nodes }) => [id, nodes[0].html, nodes[0].failureSummary]);
}

/** By how many pixels it is too wide. */
export const overflow = (page) => page.evaluate(() => document.documentElement.scrollWidth - innerWidth);

/** A state of the page is accessible and fits. */
export async function isSound(page, state) {
    assert.deepEqual(await violations(page), [], state);
    assert.ok((await overflow(page)) <= 0, `${state}: ${await overflow(page)} px too wide`);
}
