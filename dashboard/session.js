// The login form, where the admin listener wants its token. The token is sent once, in a body; what
// comes back is a cookie that scripts can't read.

import { at, say, show } from './element.js';
import { Refused, post } from './api.js';
import { many } from './format.js';

/** Whether this browser has logged in, so that the page offers to log out. */
const MARK = 'gatekeeper.session';

export class Session {
    constructor({ entered, left }) {
        this.entered = entered;
        at('log-in').addEventListener('submit', (event) => {
            event.preventDefault();
            this.enter();
        });
        at('log-out').addEventListener('click', async () => {
            await post('/api/session/end', {}).catch(() => {});
            remember(null);
            left();
        });
    }

    /** The gateway answered 401. */
    demand() {
        remember(null);
        if (!at('login').hidden) return;
        document.body.dataset.state = 'login';
        document.title = 'Log in · Gatekeeper';
        show(at('login'), true);
        say(at('login-said'), '');
        at('token').focus();
    }

    inside() {
        show(at('login'), false);
        show(at('log-out'), remembered());
    }

    async enter() {
        const [field, button] = [at('token'), at('log-in-now')];
        if (!field.value) return;
        button.disabled = true;
        say(at('login-said'), '');
        try {
            await post('/api/session', { token: field.value });
            field.value = '';
            remember('1');
            this.entered();
        } catch (error) {
            field.select();
            if (error instanceof Refused && error.status === 429) return this.wait(error.retryAfter || 5);
            say(at('login-said'), error instanceof Refused && error.status === 401 ? 'This is not the token.' : error.message);
        }
        button.disabled = false;
    }

    /** Too many wrong ones. Said once, not every second: it is an alert. */
    wait(seconds) {
        say(at('login-said'), `Too many wrong ones. Again in ${many(seconds, 'second')}.`);
        setTimeout(() => {
            at('log-in-now').disabled = false;
            say(at('login-said'), 'Try again.');
        }, seconds * 1000);
    }
}

function remember(value) {
    try {
        if (value === null) localStorage.removeItem(MARK);
        else localStorage.setItem(MARK, value);
    } catch {
        // Storage is off: the button to log out is not there after a reload of the page.
    }
}

function remembered() {
    try {
        return localStorage.getItem(MARK) !== null;
    } catch {
        return false;
    }
}
