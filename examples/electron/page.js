// The page: a form for the key, one for the message, and one button for what explain() offers.
const { gate } = window;
const at = (id) => document.getElementById(id);

const OFFERS = {
    buy: 'Buy',
    upgrade: 'Upgrade',
    activate: 'Use on this device',
    wait: 'Try again',
    retry: 'Try again',
};

/** Shows why something was refused, or clears that; `again` does it once more. */
function show(refused, again) {
    const { message = '', action, url, wait = 0 } = refused ?? {};
    const sells = action === 'buy' || action === 'upgrade';
    const help = at('help');
    at('refused').textContent = message;
    help.textContent = OFFERS[action] ?? '';
    help.hidden = !OFFERS[action] || (sells && !url);
    help.disabled = wait > 0;
    setTimeout(() => (help.disabled = false), wait * 1000);
    help.onclick = again;
    if (sells) help.onclick = () => gate.open(url);
    if (action === 'activate') help.onclick = activate;
}

function showAccount({ ok, refused }, again) {
    if (ok) {
        const left = ok.limits.messages ? `${ok.limits.messages.left} messages left` : 'unlimited';
        at('account').textContent = `${ok.plan}: ${left}`;
    }
    show(refused, again);
}

async function login() {
    showAccount(await gate.login(at('key').value), login);
}

async function activate() {
    show((await gate.activate()).refused, activate);
}

async function ask(message) {
    at('answer').textContent = '';
    const { refused } = await gate.chat(message, (text) => at('answer').append(text));
    if (refused) return show(refused, () => ask(message)); // the same messageId: counted once
    showAccount(await gate.account());
}

at('login').onsubmit = (event) => {
    event.preventDefault();
    login();
};
at('chat').onsubmit = (event) => {
    event.preventDefault();
    const messages = [{ role: 'user', content: at('question').value }];
    ask({ model: 'fast', messages, messageId: crypto.randomUUID() });
};
gate.account().then((account) => showAccount(account, login));
