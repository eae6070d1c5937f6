// The live feed's connection: reconnects by itself, slower each time, and says since when it is lost.

const FIRST_WAIT_MS = 500;
const LONGEST_WAIT_MS = 15_000;
/** A connection that says nothing for so long may be dead without knowing: it is opened anew. */
const SILENCE_MS = 25_000;

export class Stream {
    /** `heard(event)`, `opened()`, `lost()`: the last is called for every try that fails. */
    constructor({ heard, opened, lost }) {
        this.tell = { heard, opened, lost };
        this.wait = FIRST_WAIT_MS;
        this.source = null;
    }

    start() {
        if (this.source || this.timer) return;
        this.open();
    }

    stop() {
        clearTimeout(this.timer);
        clearTimeout(this.silence);
        this.source?.close();
        this.source = this.timer = null;
    }

    /** Now, not when the wait is over. */
    retry() {
        this.stop();
        this.wait = FIRST_WAIT_MS;
        this.open();
    }

    open() {
        this.timer = null;
        const source = new EventSource('/feed');
        this.source = source;
        this.listen();
        source.onopen = () => {
            this.wait = FIRST_WAIT_MS;
            this.tell.opened();
        };
        source.onmessage = ({ data }) => {
            this.listen();
            let event;
            try {
                event = JSON.parse(data);
            } catch {
                return;
            }
            this.tell.heard(event);
        };
        source.onerror = () => this.fail();
    }

    listen() {
        clearTimeout(this.silence);
        this.silence = setTimeout(() => this.retry(), SILENCE_MS);
    }

    fail() {
        this.stop();
        this.timer = setTimeout(() => this.open(), this.wait);
        // Not all pages of all operators at the same moment.
        this.wait = Math.min(this.wait * 2, LONGEST_WAIT_MS) * (0.85 + Math.random() * 0.3);
        this.tell.lost();
    }
}
