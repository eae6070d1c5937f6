// A small Electron app around gatekeeper.js. The key and the requests stay in this process; the page
// sees text, the account, and what explain() says.
import { mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { app, BrowserWindow, dialog, ipcMain, safeStorage, shell } from 'electron';
import OpenAI from 'openai';

import { explain, Gatekeeper } from './gatekeeper.js';

const url = process.env.GATEKEEPER_URL ?? 'https://gate.example.com';
const here = import.meta.dirname;

// The licence in one file, encrypted by the system's key store. Where there is none (some Linux
// desktops) it is kept in memory, and the buyer enters it at each start.
const store = {
    kept: undefined,
    file: () => path.join(app.getPath('userData'), 'licence'),

    async load() {
        if (this.kept === undefined) this.kept = await this.read().catch(() => null);
        return this.kept;
    },
    async read() {
        const { result } = await safeStorage.decryptStringAsync(await readFile(this.file()));
        return JSON.parse(result);
    },
    async save(licence) {
        this.kept = licence;
        if (!licence) return rm(this.file(), { force: true });
        if (!(await safeStorage.isAsyncEncryptionAvailable())) return;
        await mkdir(path.dirname(this.file()), { recursive: true });
        await writeFile(this.file(), await safeStorage.encryptStringAsync(JSON.stringify(licence)), { mode: 0o600 });
    },
};

const gate = new Gatekeeper({ OpenAI, url, store });
const running = new Map(); // message id → what stops it

// Errors lose their members on the way to the page, so what to show is made here.
function handle(channel, work) {
    ipcMain.handle(channel, async (event, ...args) => {
        try {
            return { ok: await work(event, ...args) };
        } catch (error) {
            console.error(channel, error.requestID ?? '', error.message);
            return { refused: explain(error) };
        }
    });
}

handle('login', (_, key) => gate.login(String(key)));
handle('account', () => gate.account());

// "Open in the app" on the page with the key: `jstar://license?code=...`, the gateway's `deep_link`.
const SCHEME = 'jstar';
let window;
let pending = process.argv.find((word) => word.startsWith(`${SCHEME}://`));

/** Any web page may open a link of ours, with a licence that its author knows: the user decides. */
async function confirm({ licence, plan, replaces }) {
    const { response } = await dialog.showMessageBox(window, {
        type: 'question',
        buttons: ['Cancel', 'Use this licence'],
        defaultId: 0,
        cancelId: 0,
        message: replaces ? `Use licence ${licence} (${plan}) instead of ${replaces}?` : `Use licence ${licence} (${plan})?`,
        detail: 'Only if you have just chosen "open in the app" on the page of your own purchase.',
    });
    return response === 1;
}

async function openLink(link) {
    if (!window) return void (pending = link);
    window.focus();
    const loggingIn = gate.loginByLink(link, undefined, confirm);
    const loggedIn = await loggingIn.then((ok) => ({ ok }), (error) => ({ refused: explain(error) }));
    // Null: the user said no, and all is as it was.
    if (loggedIn.ok !== null) window.webContents.send('linked', loggedIn);
}

app.setAsDefaultProtocolClient(SCHEME);
// A second start hands its link to the first one (Windows, Linux); macOS sends an event.
if (!app.requestSingleInstanceLock()) app.quit();
app.on('second-instance', (_, words) => {
    const link = words.find((word) => word.startsWith(`${SCHEME}://`));
    if (link) openLink(link);
});
app.on('open-url', (event, link) => {
    event.preventDefault();
    openLink(link);
});

handle('logout', () => gate.logout());
handle('activate', () => gate.activate());
handle('deactivate', () => gate.deactivate());

handle('chat', async ({ sender }, { prompt, variables, model, messages, messageId, conversationId }) => {
    const stop = new AbortController();
    const leave = () => stop.abort(); // the window was closed
    running.set(messageId, stop);
    sender.once('destroyed', leave);
    try {
        const waiting = (seconds) => sender.send('waiting', messageId, seconds);
        const answer = gate.chat({
            prompt, variables, model, messages, messageId, conversationId, signal: stop.signal, waiting,
        });
        for await (const text of answer) sender.send('text', messageId, text);
    } finally {
        running.delete(messageId);
        sender.off('destroyed', leave);
    }
});
ipcMain.on('stop', (_, messageId) => running.get(messageId)?.abort());
ipcMain.on('open', (_, link) => {
    if (String(link).startsWith('https://')) shell.openExternal(link);
});

app.on('window-all-closed', () => app.quit());
// Not `await`: Electron gets ready only when this file has been run to its end.
app.whenReady().then(() => {
    window = new BrowserWindow({ webPreferences: { preload: path.join(here, 'preload.cjs') } });
    return window.loadFile(path.join(here, 'index.html')).then(() => pending && openLink(pending));
});
