// Where the values of a JSON text stand in it. The text must be JSON; the client has checked it.

const SPACE = /[ \t\n\r]*/y;
const SCALAR = /[^,\]}\s]*/y;
const BRACKET_OR_STRING = /[[\]{}"]/g;
const PLAIN_NAME = /^[\p{L}_$][\p{L}\p{N}_$-]*$/u;

function skip(pattern, text, at) {
    pattern.lastIndex = at;
    pattern.test(text);
    return pattern.lastIndex;
}

/** {start, end} of the whole. */
export function rootOf(text) {
    return { start: skip(SPACE, text, 0), end: text.trimEnd().length };
}

/** Long strings would be too much for a pattern's stack. */
function endOfString(text, at) {
    for (at = text.indexOf('"', at + 1); ; at = text.indexOf('"', at + 1)) {
        let slashes = 0;
        while (text[at - 1 - slashes] === '\\') slashes++;
        if (slashes % 2 === 0) return at + 1;
    }
}

function endOf(text, at) {
    if (text[at] === '"') return endOfString(text, at);
    if (!isContainer(text, at)) return skip(SCALAR, text, at);
    for (let depth = 0; ; ) {
        BRACKET_OR_STRING.lastIndex = at;
        at = BRACKET_OR_STRING.exec(text).index;
        if (text[at] === '"') {
            at = endOfString(text, at);
            continue;
        }
        depth += text[at] === '{' || text[at] === '[' ? 1 : -1;
        at++;
        if (depth === 0) return at;
    }
}

export function isContainer(text, at) {
    return text[at] === '{' || text[at] === '[';
}

/** The members of the container that begins at `at`: {name, start, end}, one after the other; in an array the name is a number. */
export function* members(text, at) {
    const isObject = text[at] === '{';
    at = skip(SPACE, text, at + 1);
    for (let index = 0; text[at] !== '}' && text[at] !== ']'; index++) {
        let name = index;
        if (isObject) {
            const end = endOfString(text, at);
            name = text.slice(at, end);
            at = skip(SPACE, text, skip(SPACE, text, end) + 1); // the colon
        }
        const end = endOf(text, at);
        yield { name, start: at, end };
        at = skip(SPACE, text, end);
        if (text[at] === ',') at = skip(SPACE, text, at + 1);
    }
}

/** How the member of a value at `path` is called: body.items[3].name; the filter takes that. `name` as of members(). */
export function pathTo(path, name) {
    if (typeof name === 'number') return `${path}[${name}]`;
    const plain = JSON.parse(name);
    return PLAIN_NAME.test(plain) ? `${path}.${plain}` : `${path}[${JSON.stringify(plain)}]`;
}
