// Writes ../samples.jsonl: texts of each kind and how many tokens gpt-tokenizer cuts them into.
// Usage: node samples.mjs ../samples ../samples.jsonl
import fs from 'node:fs';
import { udhr, count, rng, shuffle } from './lib.mjs';
const [, , folder, out] = process.argv;
const random = rng(20261130);
const any = (list) => list[Math.floor(random() * list.length)];
const lines = [];
const write = (name, kind, text) =>
  lines.push(
    JSON.stringify({ name, kind, text, o200k: count('o200k', text), cl100k: count('cl100k', text) }),
  );

const texts = new Map();
for (const file of fs.readdirSync(folder).sort())
  texts.set(file.replace('.txt', ''), fs.readFileSync(`${folder}/${file}`, 'utf8'));
// The last third of the declarations: what fit.mjs does not look at.
const declarations = udhr();
const languages = {
  lao: 'lao',
  amharic: 'amh',
  tibetan: 'bod',
  burmese: 'mya',
  georgian: 'kat',
  sinhala: 'sin',
  cherokee: 'chr_cased',
  cherokee_capitals: 'chr_uppercase',
  yi: 'iii',
  vai: 'vai',
  inuktitut: 'ike',
  hebrew: 'heb',
  arabic_law: 'arb',
  persian: 'pes_1',
  urdu: 'urd',
  hindi_law: 'hin',
  bengali: 'ben',
  tamil: 'tam',
  telugu: 'tel',
  thai_law: 'tha',
  khmer: 'khm',
  greek: 'ell_monotonic',
  armenian: 'hye',
  russian_law: 'rus',
  ukrainian: 'ukr',
  bulgarian: 'bul',
  english_law: 'eng',
  german: 'deu_1996',
  french: 'fra',
  spanish: 'spa',
  italian: 'ita',
  portuguese: 'por_BR',
  polish: 'pol',
  turkish: 'tur',
  vietnamese: 'vie',
  finnish: 'fin',
  hungarian: 'hun',
  indonesian: 'ind',
  chinese_law: 'cmn_hans',
  chinese_traditional: 'cmn_hant',
  japanese_law: 'jpn',
  korean_law: 'kor',
  tigrinya: 'tir',
  dzongkha: 'dzo',
  dhivehi: 'div',
  yiddish: 'ydd',
};
for (const [name, code] of Object.entries(languages)) {
  const letters = [...declarations[code]];
  const from = Math.floor(letters.length * 0.8);
  texts.set(name, letters.slice(from, from + 700).join(''));
}
const english = texts.get('english_law');
const from = (a, b, n = 400) =>
  Array.from({ length: n }, () => String.fromCodePoint(a + Math.floor(random() * (b - a + 1)))).join('');
const noise = {
  yi: [0xa000, 0xa48c],
  vai: [0xa500, 0xa62b],
  syllabics: [0x1401, 0x166c],
  private_use: [0xe000, 0xf8ff],
  private_use_15: [0xf0000, 0xf0fff],
  arrows: [0x2190, 0x21ff],
  ethiopic: [0x1200, 0x1248],
  tibetan: [0xf40, 0xf6c],
  box_drawing: [0x2500, 0x257f],
  combining_marks: [0x300, 0x36f],
  lao: [0xe99, 0xe9f],
  burmese: [0x1000, 0x1021],
  georgian: [0x10d0, 0x10f0],
  sinhala: [0xd9a, 0xdb1],
  cherokee: [0x13a0, 0x13f4],
  ideographs: [0x4e00, 0x9fff],
  hangul: [0xac00, 0xd7a3],
  emoji: [0x1f600, 0x1f64f],
  pictographs: [0x1f300, 0x1f5ff],
  mathematics: [0x2200, 0x22ff],
  braille: [0x2800, 0x28ff],
  gothic: [0x10330, 0x1034a],
  ideographs_b: [0x20000, 0x2a6d6],
  cyrillic: [0x430, 0x44f],
  arabic: [0x628, 0x63a],
  hebrew: [0x5d0, 0x5ea],
  devanagari: [0x915, 0x939],
  thai: [0xe01, 0xe2e],
  kana: [0x3041, 0x3093],
  full_width: [0xff01, 0xff5e],
  small_letters: [97, 122],
  capitals: [65, 90],
  printable: [33, 126],
  digits: [48, 57],
};
for (const [name, [a, b]] of Object.entries(noise)) texts.set(`noise_${name}`, from(a, b));
texts.set('spaced_letters', [...english.slice(0, 400)].filter((c) => c !== ' ').join(' '));
texts.set('spaced_cyrillic', [...texts.get('russian_law')].slice(0, 300).join(' '));
texts.set('letters_on_lines', [...english.slice(0, 300)].join('\n'));
texts.set('marks_on_letters', [...english.slice(0, 300)].map((c) => c + '\u0301').join(''));
texts.set('zero_width', [...english.slice(0, 300)].join('\u200b'));
texts.set('shouting', english.toUpperCase());
texts.set('leet', english.replace(/e/g, '3').replace(/a/g, '4').replace(/o/g, '0'));
texts.set('hexadecimal', Array.from({ length: 600 }, () => any([...'0123456789abcdef'])).join(''));
texts.set(
  'mixed',
  'Bitte übersetze „good morning“ ins 日本語 (おはよう) und на русский: доброе утро! 😀 → `let x = 5;`\n'.repeat(
    4,
  ),
);
texts.set(
  'table',
  '┌──────┬──────┐\n│ Name │ Wert │\n├──────┼──────┤\n│ a    │ 1    │\n└──────┴──────┘\n'.repeat(4),
);
for (const [name, text] of texts)
  write(name, 'plain', text.slice(0, name === 'data_url' || name === 'base64' ? undefined : 1500));

// What becomes of a text whose writer wants it to weigh little.
const mutations = {
  sparse: (t) =>
    [...t].map((c, i, all) => (random() < 0.1 ? any([c + any(all), '', any(all), c + c]) : c)).join(''),
  words: (t) => shuffle2(t.split(' ')).join(' '),
  letters: (t) => shuffle(t, random),
  capitals: (t) => [...t].map((c) => (random() < 0.3 ? c.toUpperCase() : c)).join(''),
  spaced: (t) => [...t].map((c) => (random() < 0.3 ? c + ' ' : c)).join(''),
  spliced: (t) => {
    const o = [...any([...texts.values()])];
    return [...t].flatMap((c, i) => (i % 12 < 6 ? [c] : [o[i % o.length]])).join('');
  },
};
const shuffle2 = (list) => {
  const a = [...list];
  for (let i = a.length - 1; i > 0; i--) {
    const j = Math.floor(random() * (i + 1));
    [a[i], a[j]] = [a[j], a[i]];
  }
  return a;
};
for (const [name, text] of texts)
  for (const [kind, mutate] of Object.entries(mutations))
    write(name, kind, mutate([...text].slice(0, 160).join('')).toWellFormed());
fs.writeFileSync(out, lines.join('\n') + '\n');
