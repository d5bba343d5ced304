// A worker that makes one request, to an address that the reader has typed. It runs under a policy of its own, which lets it
// connect to anywhere; that of the pages does not. It knows nothing but what it is told, and has no page to read.

const TIME_MS = 30_000;
const TEXT_MAX = 64 << 10; // bytes of an answer that are read
const SHOWN_MAX = 2000; // characters of it that are told

addEventListener('message', async ({ data: { url, method, headers, body, isBlind } }) => {
    const began = performance.now();
    try {
        const init = { method, headers, body, mode: isBlind ? 'no-cors' : 'cors', credentials: 'omit', cache: 'no-store', referrerPolicy: 'no-referrer', signal: AbortSignal.timeout(TIME_MS) };
        const response = await fetch(url, init);
        const ms = Math.round(performance.now() - began);
        if (isBlind) return postMessage({ isSent: true });
        const { status, statusText } = response;
        postMessage({ status, statusText, ms, text: await beginningOf(response).catch(() => '') });
    } catch (error) {
        postMessage({ isLate: error.name === 'TimeoutError' });
    }
});

async function beginningOf(response) {
    const reader = response.body?.getReader();
    const decoder = new TextDecoder();
    let text = '';
    let bytes = 0;
    for (let chunk; reader && bytes < TEXT_MAX && text.length <= SHOWN_MAX && !(chunk = await reader.read()).done; ) {
        bytes += chunk.value.length;
        text += decoder.decode(chunk.value, { stream: true });
    }
    reader?.cancel().catch(() => {});
    return text.length > SHOWN_MAX ? `${text.slice(0, SHOWN_MAX)}…` : text;
}
