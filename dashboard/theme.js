// Runs before the first paint, so that a chosen theme never flashes as the other one.
(() => {
    let chosen = null;
    try {
        chosen = localStorage.getItem('gatekeeper.theme');
    } catch {
        // Storage is off: the system's theme it is.
    }
    if (chosen === 'dark' || chosen === 'light') document.documentElement.dataset.theme = chosen;
})();
