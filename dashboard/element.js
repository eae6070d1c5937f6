// Elements without innerHTML: whatever a text holds, it stays a text.

const SVG = 'http://www.w3.org/2000/svg';

/**
 * `make('p', { class: 'note', onclick }, 'text', child)`. Members that begin with `on` listen, null
 * and false leave an attribute out, and children that are null are left out too.
 */
export function make(tag, attributes = {}, ...children) {
    return fill(document.createElement(tag), attributes, children);
}

export function draw(tag, attributes = {}, ...children) {
    return fill(document.createElementNS(SVG, tag), attributes, children);
}

function fill(element, attributes, children) {
    for (const [name, value] of Object.entries(attributes)) {
        if (value === null || value === undefined || value === false) continue;
        if (name.startsWith('on')) element.addEventListener(name.slice(2), value);
        else element.setAttribute(name, value === true ? '' : value);
    }
    element.append(...children.flat().filter((child) => child !== null && child !== undefined));
    return element;
}

export const at = (id) => document.getElementById(id);

/** Writes only what changed, so that selections and the reader's place survive. */
export function say(element, text) {
    const next = String(text);
    if (element.textContent !== next) element.textContent = next;
}

/** Shows or hides, and says whether it is shown. */
export function show(element, shown) {
    if (element.hidden === Boolean(shown)) element.hidden = !shown;
    return shown;
}

/**
 * Keeps the children of `parent` as `items`, in order, made once each and changed in place: what has
 * the focus keeps it.
 */
export function list(parent, items, { key, create, update }) {
    const old = new Map([...parent.children].map((child) => [child.dataset.key, child]));
    let place = parent.firstElementChild;
    for (const item of items) {
        const name = String(key(item));
        let child = old.get(name);
        if (child) {
            old.delete(name);
        } else {
            child = create(item);
            child.dataset.key = name;
        }
        update?.(child, item);
        if (child === place) place = place.nextElementSibling;
        else parent.insertBefore(child, place);
    }
    for (const child of old.values()) child.remove();
}

/** A `dl` of [term, value, title]; entries without a value are left out. A title is reachable by keyboard. */
export function terms(dl, entries) {
    list(dl, entries.filter(([, value]) => value !== null && value !== undefined && value !== ''), {
        key: ([term]) => term,
        create: ([term]) => make('div', {}, make('dt', {}, term), make('dd', {})),
        update: (row, [, value, title]) => {
            say(row.lastChild, value);
            if (!title) return;
            row.lastChild.title = title;
            row.lastChild.tabIndex = 0;
        },
    });
}
