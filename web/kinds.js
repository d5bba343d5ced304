// What the body of an update is, as far as its first bytes, its type and its members tell: for a line in the list, a file's
// name, and how it is shown.

import { bytesText, oneLine, plural } from './text.js';

const NAME_MAX = 30;
const VALUE_MAX = 60;
const HEAD_CHARS = 64; // of base64: 48 bytes
const BYTES_START = '{"body_base64":"'; // as longline writes what is not text,
const TEXT_START = '{"body":"'; // and what is no JSON

const SIGNATURES = [
    ['\x89PNG\r\n\x1a\n', 0, 'PNG picture', 'png'],
    ['GIF8', 0, 'GIF picture', 'gif'],
    ['\xff\xd8\xff', 0, 'JPEG picture', 'jpg'],
    ['WEBP', 8, 'WebP picture', 'webp'],
    ['ftypavi', 4, 'AVIF picture', 'avif'],
    ['ftyphei', 4, 'HEIC picture', 'heic'],
    ['ftyphev', 4, 'HEIC picture', 'heic'],
    ['ftypmif1', 4, 'HEIF picture', 'heif'],
    ['ftypM4A', 4, 'Sound', 'm4a'],
    ['ftypqt', 4, 'Video', 'mov'],
    ['ftyp', 4, 'Video', 'mp4'],
    ['\x1aE\xdf\xa3', 0, 'Video', 'webm'],
    ['OggS', 0, 'Sound', 'ogg'],
    ['ID3', 0, 'Sound', 'mp3'],
    ['WAVE', 8, 'Sound', 'wav'],
    ['%PDF-', 0, 'PDF', 'pdf'],
    ['PK\x03\x04', 0, 'ZIP archive', 'zip'],
    ['\x1f\x8b', 0, 'gzip data', 'gz'],
    ['\x28\xb5\x2f\xfd', 0, 'zstd data', 'zst'],
    ['SQLite format 3\0', 0, 'SQLite file', 'sqlite'],
];
const TEXTS = [
    [/[/+]json$/, 'JSON', 'json'],
    [/^text\/html$|^application\/xhtml/, 'HTML', 'txt'], // which nobody opens as a page by accident
    [/^image\/svg/, 'SVG', 'txt'],
    [/[/+]xml$/, 'XML', 'xml'],
    [/^text\/csv$/, 'CSV', 'csv'],
    [/^text\/markdown$/, 'Markdown', 'md'],
    [/ya?ml$/, 'YAML', 'yaml'],
];

/** Whether the body is no text: then the update has it as base64. */
export function isBinary(entry) {
    return entry.text.startsWith(BYTES_START) && typeof entry.raw !== 'string'; // a sender may have a member of that name
}

/** Its content type, without parameters, in lower case; '' where it has none. */
export function typeOf({ headers }) {
    const type = headers && typeof headers === 'object' ? headers['content-type'] : undefined;
    return typeof type === 'string' ? type.split(';')[0].trim().toLowerCase() : '';
}

/** One line: what the body is, and what it says first. `body` is the update, where it is an object and not too large. */
export function kindText(entry, body) {
    if (isBinary(entry)) return `${kindOfBytes(entry)} · ${bytesText(sizeOfBytes(entry))}`;
    const isForm = /^(multipart\/form-data|application\/x-www-form-urlencoded)$/.test(typeOf(entry));
    const text = textOf(entry, body);
    if (text !== undefined) return textKind(entry, text);
    if (!body) return `${isForm ? 'Form' : 'JSON'} · ${bytesText(new Blob([entry.text]).size)}`;
    if (Array.isArray(body)) return `Array of ${body.length.toLocaleString()}`;
    const member = tellingMember(body);
    if (member) return isForm ? `Form · ${member}` : member;
    const count = Object.keys(body).length;
    return count ? `${isForm ? 'Form' : 'JSON'} · ${plural(count, 'member')}` : 'Empty';
}

/** What is seen of the body in a line. */
export function previewOf(entry, body, max) {
    if (isBinary(entry)) return oneLine(hexOf(headOf(entry)), max);
    return oneLine(textOf(entry, body) ?? entry.text, max);
}

/** How a file of the body is best called. */
export function extensionOf(entry) {
    if (isBinary(entry)) return signatureOf(headOf(entry))?.[3] ?? 'bin';
    const known = TEXTS.find(([pattern]) => pattern.test(typeOf(entry)));
    if (known) return known[2];
    return typeof entry.raw === 'string' && /^\s*[[{]/.test(entry.raw.slice(0, 100)) ? 'json' : 'txt';
}

export function hexOf(bytes) {
    return Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join(' ');
}

/** The text that longline has made the member `body`; undefined: the update is another, or has that member from its sender. */
function textOf({ text, raw }, body) {
    if (!text.startsWith(TEXT_START)) return undefined;
    if (typeof raw !== 'string') return typeof body?.body === 'string' ? body.body : undefined; // of another charset
    return /^\s*\{/.test(raw.slice(0, 100)) && raw !== body?.body ? undefined : raw;
}

function textKind(entry, text) {
    const type = typeOf(entry);
    const [, name] = TEXTS.find(([pattern]) => pattern.test(type)) ?? [];
    const root = name === 'XML' || (!name && /^\s*<\?xml/.test(text)) ? /<([A-Za-z_][\w:.-]*)/.exec(text.slice(0, 2000))?.[1] : undefined;
    const kind = name === 'JSON' ? 'Text' : (name ?? (root ? 'XML' : 'Text')); // it is none, or a text in quotes
    return [kind, root && oneLine(root, NAME_MAX), bytesText(new Blob([text]).size)].filter(Boolean).join(' · ');
}

/** The first member that is a text; else a number or the like, whose digits are all there. */
function tellingMember(body) {
    const members = Object.entries(body).slice(0, 50);
    const isOther = (value) => typeof value === 'boolean' || Number.isSafeInteger(value);
    const [name, value] = members.find(([, value]) => typeof value === 'string' && value.trim()) ?? members.find(([, value]) => isOther(value)) ?? [];
    return name === undefined ? '' : `${oneLine(name, NAME_MAX)}: ${oneLine(String(value), VALUE_MAX)}`;
}

function kindOfBytes(entry) {
    const signature = signatureOf(headOf(entry));
    if (signature) return signature[2];
    const coding = entry.headers?.['content-encoding'];
    if (typeof coding === 'string' && coding && !entry.coded) return `Compressed (${oneLine(coding, NAME_MAX)})`;
    const type = typeOf(entry);
    return type && type !== 'application/octet-stream' ? oneLine(type, VALUE_MAX) : 'Bytes';
}

function signatureOf(bytes) {
    const at = (text, start) => [...text].every((char, index) => bytes[start + index] === char.charCodeAt(0));
    return SIGNATURES.find(([text, start]) => at(text, start));
}

/** Its first bytes. Anybody may have written it. */
function headOf({ text }) {
    try {
        const [head] = text.slice(BYTES_START.length, BYTES_START.length + HEAD_CHARS).split('"');
        return Uint8Array.from(atob(head), (char) => char.charCodeAt(0));
    } catch {
        return new Uint8Array();
    }
}

function sizeOfBytes({ text }) {
    const end = text.indexOf('"', BYTES_START.length);
    const padding = text[end - 2] === '=' ? 2 : text[end - 1] === '=' ? 1 : 0;
    return ((end - BYTES_START.length) / 4) * 3 - padding;
}
