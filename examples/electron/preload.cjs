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
    async chat(message, show) {
        const listen = (_, messageId, text) => messageId === message.messageId && show(text);
        ipcRenderer.on('text', listen);
        try {
            return await ipcRenderer.invoke('chat', message);
        } finally {
            ipcRenderer.off('text', listen);
        }
    },
});
