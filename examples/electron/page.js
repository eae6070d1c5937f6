// The page: a form for the key, one for the message, and one button for what explain() offers.
const { gate } = window;
const conversationId = crypto.randomUUID();
const at = (id) => document.getElementById(id);

const OFFERS = {
    'enter-key': 'Buy',
    buy: 'Buy',
    upgrade: 'Upgrade',
    activate: 'Use on this device',
    wait: 'Try again',
    retry: 'Try again',
};

/** Shows why something was refused, or clears that; `again` does it once more. */
function show(refused, again) {
    const { message = '', action, url, wait = 0 } = refused ?? {};
    // A key that is not known is entered anew in its own field; who has none can buy one.
    const sells = ['enter-key', 'buy', 'upgrade'].includes(action);
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

// A link of the page with the key logged in.
gate.linked?.((account) => showAccount(account, login));

let countdown;

/** "Trying again in 20 s", counted down; 0 clears it. */
function wait(seconds) {
    clearInterval(countdown);
    const until = Date.now() + seconds * 1000;
    const tell = () => {
        const left = Math.ceil((until - Date.now()) / 1000);
        at('waiting').textContent = left > 0 ? `The service is busy. Trying again in ${left} s.` : '';
        if (left <= 0) clearInterval(countdown);
    };
    tell();
    if (seconds > 0) countdown = setInterval(tell, 250);
}

async function ask(message) {
    at('answer').textContent = '';
    at('stop').hidden = false;
    at('stop').onclick = () => gate.stop(message.messageId);
    const heard = (text) => {
        wait(0);
        at('answer').append(text);
    };
    const { refused } = await gate.chat(message, heard, wait);
    wait(0);
    at('stop').hidden = true;
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
    // The gateway's prompt says which model answers, how, and how long.
    ask({ prompt: 'reply', variables: { shop: 'the demo shop' }, messages, messageId: crypto.randomUUID(), conversationId });
};
gate.account().then((account) => showAccount(account, login));
