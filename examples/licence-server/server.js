// A licence server for Gatekeeper's source `http`: Node alone, no packages.
//   LICENCES=licences.json TOKEN=... [WEBHOOK=https://gate.example.com/webhooks/http SECRET=...] node server.js
import { createHmac, timingSafeEqual, randomUUID } from "node:crypto";
import { readFileSync, watchFile } from "node:fs";
import { createServer } from "node:http";

const { LICENCES = "licences.json", TOKEN, PORT = 8090, WEBHOOK, SECRET } = process.env;
if (!TOKEN) throw new Error("TOKEN is missing");
const read = () => JSON.parse(readFileSync(LICENCES, "utf8"));
let licences = read();

const isOurs = (header = "") => {
  const [given, ours] = [header, `Bearer ${TOKEN}`].map((text) => createHmac("sha256", TOKEN).update(text).digest());
  return timingSafeEqual(given, ours);
};

createServer((request, response) => {
  const answer = (status, body) => response.writeHead(status, { "content-type": "application/json" }).end(JSON.stringify(body));
  if (request.method !== "POST" || !isOurs(request.headers.authorization)) return answer(401, {});
  let text = "";
  request.on("data", (chunk) => (text += chunk)).on("end", () => {
    try {
      const { key } = JSON.parse(text);
      answer(200, licences[key.trim().toUpperCase()] ?? { verdict: "invalid" });
    } catch {
      answer(400, {});
    }
  });
}).listen(PORT, "127.0.0.1");

// What changed in the file is told to the gateway, which asks again before the next request.
watchFile(LICENCES, { interval: 500 }, async () => {
  const before = licences;
  licences = read();
  const keys = Object.keys({ ...before, ...licences }).filter((key) => JSON.stringify(before[key]) !== JSON.stringify(licences[key]));
  if (!WEBHOOK || keys.length === 0) return;
  const [id, at, body] = [randomUUID(), Math.floor(Date.now() / 1000), JSON.stringify({ keys })];
  const signature = `v1,${createHmac("sha256", SECRET).update(`${id}.${at}.${body}`).digest("base64")}`;
  await fetch(WEBHOOK, { method: "POST", body, headers: { "webhook-id": id, "webhook-timestamp": `${at}`, "webhook-signature": signature } });
});
