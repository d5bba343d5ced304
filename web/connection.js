// The line in a page's head that says how the page is connected, and the button beside it.

/** Returns the function that a Feed tells its state to. `retry` is called when the reader does not want to wait. */
export function connectionLine(retry) {
    const line = document.getElementById('state');
    const button = document.getElementById('retry');
    const texts = { connecting: () => 'Connecting…', live: () => 'Live', paused: () => 'Paused: updates wait on the server', stopped: (text) => text };
    let timer;
    button.addEventListener('click', retry);
    return (state, text = '', waitMs = 0) => {
        clearInterval(timer);
        const say = (words) => {
            line.dataset.state = state;
            line.firstElementChild.textContent = words;
        };
        button.hidden = state !== 'waiting' && state !== 'stopped';
        if (state !== 'waiting') {
            say(texts[state](text));
            return;
        }
        const until = performance.now() + waitMs;
        const count = () => say(`${text}. Next try in ${Math.max(0, Math.ceil((until - performance.now()) / 1000))} s`);
        count();
        timer = setInterval(count, 1000);
    };
}
