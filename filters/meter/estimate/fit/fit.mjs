// Writes ../weights.bin: how likely a token begins at a character, in both families, for ../../estimate.rs.
// Usage: node fit.mjs ../weights.bin   (README.md beside weights.bin says what has to be there)
import fs from 'node:fs';
import { corpus } from './corpus.mjs';
import { starts, count, rng, shuffle, enc } from './lib.mjs';
const SW = 0.2,
  F_ASCII = +(process.env.FA ?? 1.16),
  F_PAIR = +(process.env.FP ?? 1.09),
  F_CHAR = +(process.env.FC ?? 1.1),
  F_HANGUL = 1.16,
  UNIT = 0.02;
const { train } = corpus();
const VS = ['o200k', 'cl100k'];
const r = rng(1);
const START = 1,
  LATIN = 2,
  LETTER = 3,
  OTHER = 4,
  UNKNOWN = 5; // rows of control characters
const cp = (c) => c.codePointAt(0);
const letterRe = /[\p{L}\p{M}]/u;
const rowOf = (c) => {
  const x = cp(c);
  if (x < 128) return x < 32 && x != 10 && x != 9 && x != 13 ? 10 : x;
  if (x < 0x250 || (x >= 0x1e00 && x < 0x1f00) || (x >= 0x300 && x < 0x370)) return LATIN;
  return (x >= 0x2000 && x < 0x2c00) ||
    (x >= 0x3000 && x < 0x3040) ||
    (x >= 0xe000 && x < 0xf900) ||
    (x >= 0xfe00 && x < 0xfe10) ||
    (x >= 0xff00 && x < 0xff10) ||
    x >= 0x1f000
    ? OTHER
    : LETTER;
};
const lo = (x) => x >= 97 && x <= 122;
// class of prev2 for trigrams, 0..31
const cls = (x) =>
  x < 0
    ? 31
    : lo(x)
      ? x - 97
      : x >= 65 && x <= 90
        ? 26
        : x == 32
          ? 27
          : x >= 48 && x <= 57
            ? 28
            : x == 10 || x == 9 || x == 13 || x == START
              ? 29
              : x < 32
                ? 31
                : 30;
const model = {};
for (const V of VS) {
  const B = new Map(),
    T = new Map(),
    Pg = new Map(),
    C = new Map(),
    U = new Map();
  const add = (M, k, w, s) => {
    let e = M.get(k);
    if (!e) M.set(k, (e = [0, 0]));
    e[0] += w;
    e[1] += w * s;
  };
  const learn = (t, w) => {
    const [c, s] = starts(V, t);
    let p2 = -1,
      p = '\n';
    for (let i = 0; i < c.length; i++) {
      const ch = c[i],
        x = cp(ch);
      if (x < 128) {
        const row = i == 0 ? START : rowOf(p);
        add(B, row * 128 + x, w, s[i]);
        add(U, x, w, s[i]);
        if (lo(row) && lo(x)) {
          add(T, cls(p2) * 1024 + (row - 97) * 32 + (x - 97), w, s[i]);
        }
        p2 = row;
      } else {
        const same = cp(p) >> 7 == x >> 7;
        if (same) add(Pg, p + ch, w, s[i]);
        else add(C, ch, w, s[i]);
        add(U, x, w, s[i]);
        p2 = rowOf(p);
      }
      p = ch;
    }
  };
  for (const [n, t, w] of train) {
    const W = /eng|p:en|c:en|c:docs/.test(n)
      ? w * 2
      : /hin$|d:hi/.test(n)
        ? w * 4
        : /rus|urd$|p:ru|d:ru/.test(n)
          ? w * 2
          : w;
    learn(t, W);
    learn(shuffle(t, r), w * (/hye|urd|pes/.test(n) ? 0.6 : /rus|kaz|uig|tat|kor/.test(n) ? 0.35 : 0.25));
    if (/^[up]:/.test(n) && w > 1) learn(t.replace(/ /g, ''), w * 0.12);
  }
  for (let p = 1; p < 1024; p++) {
    if ((p >= 0x3400 >> 7 && p < 0xa000 >> 7) || (p >= 0xac00 >> 7 && p < 0xe000 >> 7)) continue;
    const cs = [];
    for (let k = 0; k < 128; k++) {
      const x = p * 128 + k;
      const ch = String.fromCodePoint(x);
      if (/\p{Assigned}/u.test(ch) || (x >= 0xe000 && x < 0xf900)) cs.push(ch);
    }
    if (!cs.length) continue;
    let t = '';
    for (let i = 0; i < 400; i++) t += cs[Math.floor(r() * cs.length)];
    learn(t, 0.8);
  }
  {
    let t = '';
    for (let i = 0; i < 6000; i++) t += String.fromCharCode(97 + Math.floor(r() * 26));
    learn(t, 0.5);
    t = '';
    for (let i = 0; i < 6000; i++) t += String.fromCharCode(65 + Math.floor(r() * 26));
    learn(t, 2);
    t = '';
    for (let i = 0; i < 6000; i++) t += String.fromCharCode(33 + Math.floor(r() * 94));
    learn(t, 0.5);
  }
  model[V] = { B, T, Pg, C, U };
}
const alone = { o200k: new Map(), cl100k: new Map() };
const al = (V, ch) => {
  let a = alone[V].get(ch);
  if (a === undefined) {
    a = count(V, ch);
    alone[V].set(ch, a);
  }
  return a;
};
// ---- Pairs of ASCII characters, and small letters by what stands before both.
const q = (x) => Math.max(0, Math.min(255, Math.round(x / UNIT)));
const asc = [],
  tri = [];
for (let row = 0; row < 128; row++)
  for (let x = 0; x < 128; x++) {
    const w = VS.map((V) => {
      const { B, U } = model[V];
      const ch = String.fromCharCode(x);
      if (row == UNKNOWN || row == 0) {
        const e = U.get(x) || [0, 0];
        return (F_ASCII * (e[1] + 2 * 1)) / (e[0] + 2);
      }
      const e = B.get(row * 128 + x) || [0, 0];
      return (F_ASCII * (e[1] + 2 * 1)) / (e[0] + 2);
    });
    asc.push(w);
  }
for (let k = 0; k < 32; k++)
  for (let a = 0; a < 32; a++)
    for (let b = 0; b < 32; b++) {
      if (a > 25 || b > 25) {
        tri.push([0, 0]);
        continue;
      }
      tri.push(
        VS.map((V, i) => {
          const e = model[V].T.get(k * 1024 + a * 32 + b) || [0, 0];
          const prior = asc[(a + 97) * 128 + b + 97][i];
          return (F_ASCII * e[1] + 2 * prior) / (e[0] + 2);
        }),
      );
    }
for (let row = 0; row < 128; row++)
  for (let d = 48; d < 58; d++)
    asc[row * 128 + d] =
      row >= 48 && row < 58 ? [0.37, 0.37] : row == UNKNOWN || row == 0 ? [0.6, 0.6] : [0.97, 0.97];
// ---- Characters by themselves, in pages of 128.
const pages = [];
const index = new Array(1024).fill(0);
const seen = new Map();
const pageOf = (p) => {
  const out = [];
  // per (alone) mean of page for smoothing
  const mean = {};
  for (const V of VS) {
    mean[V] = {};
    for (let i = 0; i < 128; i++) {
      const x = p * 128 + i;
      if (x >= 0xd800 && x <= 0xdfff) continue;
      const ch = String.fromCodePoint(x);
      const u = model[V].U.get(x);
      if (u) {
        const a = al(V, ch);
        const m = (mean[V][a] ??= [0, 0]);
        m[0] += u[0];
        m[1] += u[1];
      }
    }
  }
  for (let i = 0; i < 128; i++) {
    const x = p * 128 + i;
    if (x >= 0xd800 && x <= 0xdfff) {
      out.push([3.2, 3.2]);
      continue;
    }
    const ch = String.fromCodePoint(x);
    out.push(
      VS.map((V) => {
        const a = al(V, ch);
        const { C, U } = model[V];
        const c = C.get(ch),
          u = U.get(x);
        const m = mean[V][a];
        const hasPairs = pairPages.has(p);
        let prior = m ? (m[1] + 30 * a) / (m[0] + 30) : a;
        if (u) prior = (u[1] + 4 * prior) / (u[0] + 4);
        let v = prior;
        if (hasPairs && c) v = (c[1] + 4 * a) / (c[0] + 4);
        return v * (hasPairs ? F_PAIR : x >= 0xac00 && x < 0xd7b0 ? F_HANGUL : F_CHAR);
      }),
    );
  }
  return out;
};
// ---- Scripts whose characters join: pairs of the 63 commonest of each page.
const pairPages = new Map();
{
  const tot = new Map();
  for (const V of ['o200k'])
    for (const [k, e] of model[V].Pg) {
      const [a, b] = [...k];
      const p = cp(b) >> 7;
      if (p >= 1024) continue;
      const t = tot.get(p) ?? { n: 0, s: 0, a: 0 };
      t.n += e[0];
      t.s += e[1];
      t.a += e[0] * al(V, b);
      tot.set(p, t);
    }
  const skip = (p) => (p >= 0x3400 >> 7 && p < 0xa000 >> 7) || (p >= 0xac00 >> 7 && p < 0xd800 >> 7);
  const list = [...tot]
    .filter(([p, t]) => !skip(p) && t.n > 400 && t.s / t.a < 0.92)
    .sort((x, y) => y[1].n - x[1].n);
  console.log(
    'pair pages',
    list.length,
    list
      .map(([p, t]) => (p * 128).toString(16) + ':' + Math.round(t.n) + ':' + (t.s / t.a).toFixed(2))
      .join(' '),
  );
  list.forEach(([p], i) => pairPages.set(p, i + 1));
}
const pairIndex = new Array(1024).fill(0),
  classes = [],
  pairTables = [];
for (const [p, i] of pairPages) {
  pairIndex[p] = i;
  const freq = [];
  for (let k = 0; k < 128; k++) {
    let n = 0;
    for (const V of VS) {
      const u = model[V].U.get(p * 128 + k);
      n += u ? u[0] : 0;
    }
    freq.push([n, k]);
  }
  freq.sort((a, b) => b[0] - a[0]);
  const cl = new Array(128).fill(0);
  const who = [null];
  freq.slice(0, 63).forEach(([n, k], j) => {
    if (n > 0) {
      cl[k] = j + 1;
      who[j + 1] = k;
    }
  });
  classes.push(cl);
  const tbl = [];
  for (let a = 0; a < 64; a++)
    for (let b = 0; b < 64; b++) {
      tbl.push(
        VS.map((V) => {
          const { Pg, U } = model[V];
          if (b == 0) {
            return null;
          }
          if (who[b] === undefined) return 0;
          const ch = String.fromCodePoint(p * 128 + who[b]);
          const pr = al(V, ch);
          let e;
          if (a == 0) {
            const u = U.get(p * 128 + who[b]);
            e = u || [0, 0];
          } else if (who[a] === undefined) return 0;
          else e = Pg.get(String.fromCodePoint(p * 128 + who[a]) + ch) || [0, 0];
          return (F_PAIR * (e[1] + 2 * pr)) / (e[0] + 2);
        }),
      );
    }
  pairTables.push(tbl);
}
for (let p = 1; p < 1024; p++) {
  const w = pageOf(p).map((x) => [q(x[0]), q(x[1])]);
  const key = w.flat().join();
  let i = seen.get(key);
  if (i === undefined) {
    i = pages.length;
    pages.push(w);
    seen.set(key, i);
  }
  index[p] = i;
}
console.log('unique pages', pages.length);
const far = VS.map((V) => {
  let m = 0;
  for (let x = 0x20000; x < 0x110000; x += 997) {
    m = Math.max(m, al(V, String.fromCodePoint(x)));
  }
  return m;
});
console.log('far', far);
// class 0 as current: marked by 255? use char weight
const out = [];
const u16 = (x) => {
  out.push(x & 255, x >> 8);
};
const pack = (w) => q(w[0]) | (q(w[1]) << 8);
asc.forEach((w) => u16(pack(w)));
tri.forEach((w) => u16(pack(w)));
index.forEach((i) => u16(i));
pairIndex.forEach((i) => u16(i));
classes.forEach((c) => c.forEach((x) => out.push(x)));
pairTables.forEach((t) => t.forEach((w) => u16(w[0] === null ? 0 : pack(w))));
pages.forEach((pg) => pg.forEach(([a, b]) => out.push(a, b)));
// Noise of capitals, and pairs that hardly ever stand together, came out a little low.
const CAPITALS = 1.05,
  RARE = 1.035;
const scripts = 32768 + 65536 + 2048 + 2048 + pairTables.length * 128,
  ends = scripts + pairTables.length * 8192;
const raise = (from, to, factor, least) => {
  for (let i = from; i < to; i++) if (out[i] >= least) out[i] = Math.min(255, Math.round(out[i] * factor));
};
raise(scripts, ends, RARE, 42);
for (let a = 65; a < 91; a++)
  for (let b = 65; b < 91; b++) raise(2 * (a * 128 + b), 2 * (a * 128 + b) + 2, CAPITALS, 15);
fs.writeFileSync(process.argv[2], Buffer.from(out));
console.log('bytes', out.length, { pairs: pairTables.length, pages: pages.length });
