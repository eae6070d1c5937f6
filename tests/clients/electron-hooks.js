// Resolves what examples/electron/main.js imports: Electron's stand-in, and the `openai` of these tests.
const clients = new URL('./', import.meta.url);

export function resolve(specifier, context, next) {
    if (specifier === 'electron') return { url: new URL('electron-stub.js', clients).href, shortCircuit: true };
    if (specifier === 'openai') return next(specifier, { ...context, parentURL: new URL('main.js', clients).href });
    return next(specifier, context);
}
