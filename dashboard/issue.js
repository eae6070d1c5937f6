// Issues one licence of the seller's own. Its key is shown here once, and nowhere else on the page.

import { at, make, say, show } from './element.js';
import { Refused, orderId, post } from './api.js';

export class Issue {
    constructor() {
        this.isAsking = false;
        /** The last order whose answer did not come: `{ said, id }`. */
        this.open = null;
        at('issue').addEventListener('submit', (event) => {
            event.preventDefault();
            this.order();
        });
        at('issued-copy').addEventListener('click', () => this.copy());
        at('issued-done').addEventListener('click', () => {
            this.forget();
            at('issue-plan').focus();
        });
        // The key must not stay visible on the screen.
        addEventListener('hashchange', () => this.forget());
        addEventListener('pagehide', () => this.forget());
    }

    update({ sources, config }) {
        const plans = (config.live?.plans ?? []).map(({ name }) => name);
        const issues = sources?.some(({ name }) => name === 'issued') && plans.length > 0;
        if (!show(at('issue-panel'), issues)) return;
        const list = at('issue-plan');
        const known = [...list.options].map(({ value }) => value);
        if (known.join('\n') === plans.join('\n')) return;
        const chosen = list.value;
        list.replaceChildren(...plans.map((name) => make('option', { value: name }, name)));
        if (plans.includes(chosen)) list.value = chosen;
    }

    async order() {
        if (this.isAsking) return;
        const order = { plan: at('issue-plan').value };
        const [until, note] = [at('issue-until').value, at('issue-note').value.trim()];
        if (until) order.until = until;
        if (note) order.note = note;
        // The same once more, after no answer came, keeps its name: the key that was made then is shown.
        const said = JSON.stringify(order);
        if (this.open?.said !== said) this.open = { said, id: orderId() };
        this.forget();
        this.busy(true);
        tell('One moment…');
        try {
            const { licenses } = await post('/api/licenses/issue', { ...order, id: this.open.id });
            this.open = null;
            this.shown(licenses[0]);
            at('issue-until').value = '';
            at('issue-note').value = '';
        } catch (error) {
            const isKnown = error instanceof Refused && error.status < 500;
            if (isKnown) this.open = null;
            tell(isKnown ? error.message : `${error.message} Whether it was issued is not known: issue the same again, and its key is shown.`, true);
        }
        this.busy(false);
    }

    shown({ key, plan, until }) {
        say(at('issued-key'), key);
        tell(`Issued: plan ${plan}, ${until ? `until ${until.slice(0, 10)}` : 'without an end'}. The key is shown this once.`);
        show(at('issued'), true);
        at('issued-copy').focus();
    }

    async copy() {
        try {
            await navigator.clipboard.writeText(at('issued-key').textContent);
            say(at('issued-copied'), 'Copied.');
        } catch {
            getSelection().selectAllChildren(at('issued-key'));
            say(at('issued-copied'), 'Selected: copy it with the keyboard.');
        }
    }

    forget() {
        show(at('issued'), false);
        say(at('issued-key'), '');
        say(at('issued-copied'), '');
        tell('');
    }

    busy(isAsking) {
        this.isAsking = isAsking;
        at('issue-panel').setAttribute('aria-busy', isAsking);
        at('issue-now').disabled = isAsking;
    }
}

function tell(words, isBad = false) {
    at('issue-said').classList.toggle('failed', isBad);
    say(at('issue-said'), words);
}
