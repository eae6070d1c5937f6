// Measures the contrast of every visible text with what is really painted behind it: glass, glows and grid
// are no single colour that a stylesheet could tell.

/** Texts whose contrast is below WCAG AA at the worst pixel behind them. */
export async function faint(page) {
    const { texts, picture } = await still(page);
    const blank = await page.context().newPage();
    const found = await blank.evaluate(measure, { texts, picture: picture.toString('base64') });
    await blank.close();
    return found;
}

/** Texts and a picture without them, of a moment in which nothing moved between the two. */
async function still(page) {
    for (let tries = 0; ; tries += 1) {
        const texts = await page.evaluate(collect);
        await page.evaluate(hideText, true);
        const picture = await page.screenshot();
        await page.evaluate(hideText, false);
        const after = await page.evaluate(collect);
        if (JSON.stringify(places(texts)) === JSON.stringify(places(after))) return { texts, picture };
        if (tries === 20) throw new Error('the page does not come to rest');
    }
}

const places = (texts) => texts.map(({ left, top, width, height }) => [left, top, width, height]);

/** In the page: every run of text that can be seen, with its colour and where it stands. */
function collect() {
    const found = [];
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) {
        const node = walker.currentNode;
        const parent = node.parentElement;
        if (!node.data.trim() || !parent.checkVisibility({ checkOpacity: true, checkVisibilityCSS: true })) continue;
        const style = getComputedStyle(parent);
        const color = parent.namespaceURI.endsWith('svg') ? style.fill : style.color;
        const range = document.createRange();
        range.selectNodeContents(node);
        for (const { left, top, width, height } of range.getClientRects()) {
            // Whole, not cut off by what scrolls, and not under something.
            const isSeen = [top + 1, top + height - 1].every((y) => {
                const hit = document.elementFromPoint(left + width / 2, y);
                return hit && (hit === parent || parent.contains(hit) || hit.contains(parent)) && hit.closest('.scroll') === parent.closest('.scroll');
            });
            if (!isSeen || width < 3 || parent.closest('.unseen')) continue;
            const size = parseFloat(style.fontSize);
            const isLarge = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
            found.push({ text: node.data.trim().slice(0, 40), color, isLarge, left, top, width, height });
        }
    }
    return found;
}

function hideText(hidden) {
    globalThis.hiding ??= new CSSStyleSheet();
    globalThis.hiding.replaceSync(hidden ? '* { color: transparent !important; text-decoration-color: transparent !important; } text { fill: transparent !important; }' : '');
    if (!document.adoptedStyleSheets.includes(globalThis.hiding)) document.adoptedStyleSheets.push(globalThis.hiding);
}

/** In an empty page: the worst pixel behind each text. */
async function measure({ texts, picture }) {
    const image = new Image();
    image.src = `data:image/png;base64,${picture}`;
    await image.decode();
    const canvas = new OffscreenCanvas(image.width, image.height);
    const context = canvas.getContext('2d', { willReadFrequently: true });
    context.drawImage(image, 0, 0);
    const pixel = new OffscreenCanvas(1, 1).getContext('2d', { willReadFrequently: true });
    const linear = (value) => (value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4);
    const luminance = ([r, g, b]) => 0.2126 * linear(r / 255) + 0.7152 * linear(g / 255) + 0.0722 * linear(b / 255);
    const contrast = (a, b) => (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    const found = [];
    for (const { text, color, isLarge, left, top, width, height } of texts) {
        const [x, y] = [Math.max(0, Math.round(left)), Math.max(0, Math.round(top))];
        const [w, h] = [Math.min(Math.round(width), canvas.width - x), Math.min(Math.round(height), canvas.height - y)];
        if (w < 1 || h < 1) continue;
        const { data } = context.getImageData(x, y, w, h);
        pixel.clearRect(0, 0, 1, 1);
        pixel.fillStyle = color;
        pixel.fillRect(0, 0, 1, 1);
        const ink = luminance(pixel.getImageData(0, 0, 1, 1).data);
        let worst = 21;
        for (let at = 0; at < data.length; at += 4) worst = Math.min(worst, contrast(ink, luminance(data.subarray(at, at + 3))));
        if (worst < (isLarge ? 3 : 4.5)) found.push(`${text}: ${worst.toFixed(2)}`);
    }
    return found;
}
