// What the page may ask of the main process. Each call gives { ok } or { refused }.
const { contextBridge, ipcRenderer } = require('electron');

contextBridge.exposeInMainWorld('gate', {
    login: (key) => ipcRenderer.invoke('login', key),
    account: () => ipcRenderer.invoke('account'),
    logout: () => ipcRenderer.invoke('logout'),
    activate: () => ipcRenderer.invoke('activate'),
    deactivate: () => ipcRenderer.invoke('deactivate'),
    stop: (messageId) => ipcRenderer.send('stop', messageId),
    open: (link) => ipcRenderer.send('open', link),
    /** `tell({ ok } or { refused })` when a link logged in. */
    linked: (tell) => ipcRenderer.on('linked', (_, account) => tell(account)),
    /** `show(text)` for each piece; `waiting(seconds)` before another try. */
    async chat(message, show, waiting) {
        const listen = (_, messageId, text) => messageId === message.messageId && show(text);
        const wait = (_, messageId, seconds) => messageId === message.messageId && waiting?.(seconds);
        ipcRenderer.on('text', listen);
        ipcRenderer.on('waiting', wait);
        try {
            return await ipcRenderer.invoke('chat', message);
        } finally {
            ipcRenderer.off('text', listen);
            ipcRenderer.off('waiting', wait);
        }
    },
});
