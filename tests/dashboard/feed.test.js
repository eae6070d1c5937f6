// What the feed keeps, and what it says of an attempt, without a page.
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { test } from 'node:test';

// As the browser gets them: modules, whatever an older Node takes files named .js for.
const module = (text) => `data:text/javascript,${encodeURIComponent(text)}`;
const source = (name) => readFile(new URL(`../../dashboard/${name}`, import.meta.url), 'utf8');
const [element, format] = [module(await source('element.js')), module(await source('format.js'))];
const feed = (await source('feed.js')).replace("'./element.js'", JSON.stringify(element)).replace("'./format.js'", JSON.stringify(format));
const { Feed } = await import(module(feed));

const KEPT = 400;

/** A feed that knows so many requests, without a page to show them on. */
function holding(count) {
    const known = new Map();
    const kept = Object.assign(Object.create(Feed.prototype), { known, held: null });
    kept.come = (from, to) => {
        for (let n = from; n < to; n += 1) known.set(n, {});
        kept.trim();
    };
    kept.come(0, count);
    return kept;
}

test('the oldest make way', () => {
    const { known } = holding(KEPT + 20);
    assert.equal(known.size, KEPT);
    assert.equal(known.keys().next().value, 20);
});

test('held ones stay however long, and those that come meanwhile are bounded', () => {
    const paused = holding(300);
    paused.held = { names: new Set(paused.known.keys()) };
    for (let from = 300; from < 20_000; from += 50) {
        paused.come(from, from + 50);
        assert.ok(paused.known.size <= KEPT + 300);
    }
    const left = [...paused.known.keys()];
    assert.deepEqual(left.slice(0, 300), [...paused.held.names]);
    assert.deepEqual([left[300], left.at(-1)], [20_000 - KEPT, 19_999]);
    paused.held = null;
    paused.trim();
    assert.deepEqual([...paused.known.keys()], left.slice(300));
});

test('every word that the gateway has for an attempt has words here, and no other has', async () => {
    const rust = async (name) => readFile(new URL(`../../src/upstream/${name}`, import.meta.url), 'utf8');
    const names = /fn name\(self\)[^]*?\n    }\n/.exec(await rust('classify.rs'))[0];
    const account = /fn account\(&self\)[^]*?\n    }\n/.exec(await rust('attempt_error.rs'))[0];
    const words = ['ok', ...[...(names + account).matchAll(/"([a-z_]+)"/g)].map(([, word]) => word)];
    assert.ok(words.length >= 15, words.join());
    const said = await source('format.js');
    for (const word of words) assert.ok(said.includes(`    ${word}: '`), word);
    const named = /const NO_FAULT = new Set\(\[(.*)\]\)/.exec(feed)[1];
    for (const [, word] of named.matchAll(/'([a-z_]+)'/g)) assert.ok(words.includes(word), word);
});
