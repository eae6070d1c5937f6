// Stands in for Electron: what its main process registers can be called, and what it does is written down.
import { EventEmitter } from 'node:events';

/** By channel: what the page may ask, and what it may only say. */
export const handlers = new Map();
export const ipcMain = Object.assign(new EventEmitter(), { handle: (channel, work) => handlers.set(channel, work) });

export const did = { schemes: [], opened: [], asked: [], sent: [], quit: 0 };
/** Which button the user presses, and where the app keeps its data. */
export const user = { button: 0, folder: undefined };

export const app = Object.assign(new EventEmitter(), {
    getPath: () => user.folder,
    setAsDefaultProtocolClient: (scheme) => did.schemes.push(scheme),
    requestSingleInstanceLock: () => true,
    whenReady: async () => {},
    quit: () => (did.quit += 1),
});
export const dialog = {
    showMessageBox: async (_, about) => (did.asked.push(about), { response: user.button }),
};
export const shell = { openExternal: (link) => did.opened.push(link) };

const turned = (bytes) => Buffer.from(bytes.map((byte) => byte ^ 0x5a));
export const safeStorage = {
    isAsyncEncryptionAvailable: async () => true,
    encryptStringAsync: async (text) => turned(Buffer.from(text)),
    decryptStringAsync: async (bytes) => ({ result: turned(bytes).toString() }),
};

/** A page, as the main process sees it. */
export class Page extends EventEmitter {
    send(...words) {
        did.sent.push(words);
        this.emit('sent', ...words);
    }
}
export const windows = [];
export class BrowserWindow {
    webContents = new Page();
    constructor(options) {
        windows.push(Object.assign(this, { options }));
    }
    loadFile = async (file) => (this.file = file);
    focus() {}
}
