// What differs between two updates: members by their path, lines, bytes, headers. Bounded, whatever was sent.

import { headersOf } from './describe.js';
import { isContainer, members, pathTo, rootOf } from './json_text.js';
import { isBinary } from './kinds.js';
import { bytesText } from './text.js';

export const CHARS_MAX = 4 << 20; // of both bodies
export const FOUND_MAX = 500; // differences of a part
const WORK_MAX = 24 << 20; // characters looked at, each once a level
const PAIRS_MAX = 1_000_000; // lines or items of the one times those of the other; with more, only what is around is told apart

/**
 * What was different in `before` than in `after`: parts {title, found: [{path, before, after}], problem}. A text that is
 * missing is undefined; `problem` says that not all is found.
 */
export function differenceOf(before, after) {
    const request = ({ method = '', path = '', from = '' }) => Object.entries({ method, path, from });
    const query = ({ query = '' }) => [...new URLSearchParams(query)];
    const headers = (entry) => Object.entries(headersOf(entry)).map(([name, value]) => [name, String(value)]);
    return [
        { title: 'Body', ...inBody(before, after) },
        ...Object.entries({ Query: query, Request: request, Headers: headers }).map(([title, of]) => ({ title, found: inPairs(of(before), of(after)) })),
    ].filter(({ found, problem }) => found.length || problem);
}

/** Collects differences until there are too many, or finding them is too much work. */
class Found {
    list = [];
    #work = 0;

    add(path, before, after) {
        if (this.list.length >= FOUND_MAX) throw new TooMuch(`Only the first ${FOUND_MAX} differences are shown.`);
        this.list.push({ path, before, after });
    }

    work(chars) {
        this.#work += chars;
        if (this.#work > WORK_MAX) throw new TooMuch('It is nested too deep to be compared to its end.');
    }
}

class TooMuch extends Error {}

function inBody(before, after) {
    if (before.text === after.text) return { found: [] };
    if (before.text.length + after.text.length > CHARS_MAX) return { found: [], problem: `They are too large to be compared here: more than ${bytesText(CHARS_MAX)} together. Download both.` };
    if (isBinary(before) && isBinary(after)) return { found: inBytes(before.raw, after.raw) };
    const found = new Found();
    try {
        if (isText(before) && isText(after)) inLines(before.update.body.split('\n'), after.update.body.split('\n'), found);
        else inValues({ text: before.text, ...rootOf(before.text) }, { text: after.text, ...rootOf(after.text) }, () => 'body', found);
    } catch (error) {
        if (!(error instanceof TooMuch)) throw error;
        return { found: found.list, problem: error.message };
    }
    return { found: found.list };
}

function isText({ text, update }) {
    return text.startsWith('{"body":"') && typeof update?.body === 'string' && Object.keys(update).length === 1;
}

/** Where the first byte is that differs. */
function inBytes(before, after) {
    if (typeof before !== 'object' || typeof after !== 'object') return [];
    const size = Math.min(before.length, after.length);
    let at = 0;
    while (at < size && before[at] === after[at]) at++;
    const said = (bytes) => `${bytesText(bytes.length)}; ${at < bytes.length ? `${bytes[at].toString(16).padStart(2, '0')} there` : 'it ends there'}`;
    return [{ path: `from byte ${at.toString(16).padStart(6, '0')} on`, before: said(before), after: said(after) }];
}

/** By name; of the same name all values together. The order does not matter. */
function inPairs(before, after) {
    const grouped = (pairs) => {
        const groups = new Map();
        for (const [name, value] of pairs) groups.set(name, [...(groups.get(name) ?? []), value]);
        return groups;
    };
    const [old, young] = [grouped(before), grouped(after)];
    const textOf = (values) => values?.join(', ');
    return [...new Set([...old.keys(), ...young.keys()])]
        .map((name) => ({ path: name, before: textOf(old.get(name)) || undefined, after: textOf(young.get(name)) || undefined }))
        .filter(({ before, after }) => before !== after)
        .slice(0, FOUND_MAX);
}

function inLines(before, after, found) {
    for (const { old, young } of changesOf(before, after)) {
        for (let i = 0; i < Math.max(old.length, young.length); i++) found.add(`line ${(i < young.length ? young.at : old.at) + i + 1}`, before.slice(old.at, old.at + old.length)[i], after.slice(young.at, young.at + young.length)[i]);
    }
}

/** Values are {text, start, end}: where they stand in which text. */
const sourceOf = ({ text, start, end }) => text.slice(start, end);
const bracketOf = ({ text, start }) => (isContainer(text, start) ? text[start] : '');

function inValues(before, after, path, found) {
    const [old, young] = [sourceOf(before), sourceOf(after)];
    if (old === young) return;
    const bracket = bracketOf(before);
    if (bracket !== bracketOf(after) || !bracket) {
        if (bracket || !isSameText(old, young)) found.add(path(), old, young);
        return;
    }
    found.work(old.length + young.length);
    const partsOf = ({ text, start }) => Array.from(members(text, start), (part) => ({ ...part, text }));
    if (bracket === '[') inItems(partsOf(before), partsOf(after), path, found);
    else inMembers(partsOf(before), partsOf(after), path, found);
}

/** The same letters can be written in several ways. */
function isSameText(old, young) {
    return old[0] === '"' && young[0] === '"' && JSON.parse(old) === JSON.parse(young);
}

function inMembers(before, after, path, found) {
    const byName = (parts) => new Map(parts.map((part) => [JSON.parse(part.name), part]));
    const [old, young] = [byName(before), byName(after)];
    for (const [name, part] of old) {
        const to = () => pathTo(path(), part.name);
        if (young.has(name)) inValues(part, young.get(name), to, found);
        else found.add(to(), sourceOf(part), undefined);
    }
    for (const [name, part] of young) if (!old.has(name)) found.add(pathTo(path(), part.name), undefined, sourceOf(part));
}

function inItems(before, after, path, found) {
    for (const { old, young } of changesOf(before.map(sourceOf), after.map(sourceOf))) {
        for (let i = 0; i < Math.max(old.length, young.length); i++) {
            const to = () => pathTo(path(), (i < young.length ? young.at : old.at) + i);
            if (i < old.length && i < young.length) inValues(before[old.at + i], after[young.at + i], to, found);
            else if (i < old.length) found.add(to(), sourceOf(before[old.at + i]), undefined);
            else found.add(to(), undefined, sourceOf(after[young.at + i]));
        }
    }
}

/** Where two lists of texts differ, with as much alike as can be: [{old: {at, length}, young: {at, length}}]. */
function changesOf(before, after) {
    let start = 0;
    let [oldEnd, youngEnd] = [before.length, after.length];
    while (start < oldEnd && start < youngEnd && before[start] === after[start]) start++;
    while (oldEnd > start && youngEnd > start && before[oldEnd - 1] === after[youngEnd - 1]) [oldEnd, youngEnd] = [oldEnd - 1, youngEnd - 1];
    const [rows, columns] = [oldEnd - start, youngEnd - start];
    const changes = [];
    const add = (oldAt, youngAt, oldTo, youngTo) => (oldTo > oldAt || youngTo > youngAt) && changes.push({ old: { at: oldAt, length: oldTo - oldAt }, young: { at: youngAt, length: youngTo - youngAt } });
    let [i, j] = [0, 0];
    let [oldAt, youngAt] = [start, start];
    if (rows * columns <= PAIRS_MAX) {
        // common[i][j]: how many are alike at best from there on
        const width = columns + 1;
        const common = new Uint32Array((rows + 1) * width);
        for (let i = rows - 1; i >= 0; i--) {
            for (let j = columns - 1; j >= 0; j--) {
                common[i * width + j] = before[start + i] === after[start + j] ? common[(i + 1) * width + j + 1] + 1 : Math.max(common[(i + 1) * width + j], common[i * width + j + 1]);
            }
        }
        while (i < rows && j < columns) {
            if (before[start + i] === after[start + j]) {
                add(oldAt, youngAt, start + i, start + j);
                [oldAt, youngAt] = [start + ++i, start + ++j];
            } else if (common[(i + 1) * width + j] >= common[i * width + j + 1]) i++;
            else j++;
        }
    }
    add(oldAt, youngAt, oldEnd, youngEnd);
    return changes;
}
