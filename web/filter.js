// What the filter's box says: conditions that the server checks (body.action:opened), and text that the page looks for.

// A value with spaces stands between quotes.
const CONDITION = /(?<!\S)(!?(?:(?:header|query|body)\.[^\s:]*:?|method:|path:))(?:"([^"]*)"|(\S*))(?!\S)/g;

/** {where: the conditions, whereText: as they were typed, text: the rest} */
export function readFilter(typed) {
    const where = [];
    const tokens = [];
    const rest = typed.replace(CONDITION, (token, field, quoted, plain) => {
        where.push(field + (quoted ?? plain));
        tokens.push(token);
        return ' ';
    });
    return { where, whereText: tokens.join(' '), text: (where.length ? rest.replace(/\s+/g, ' ') : rest).trim() };
}

/** What the server says against the conditions; undefined: nothing, or it does not answer. */
export async function complaintOf(address, where) {
    const bare = where.find((condition) => !condition.includes(':'));
    if (bare) return `${bare} needs a colon, and what it should be: ${bare}:TEXT`;
    const url = new URL(address);
    url.search = new URLSearchParams([['ts', 'now'], ['limit', '1'], ...where.map((condition) => ['where', condition])]);
    try {
        const response = await fetch(url);
        return response.status === 400 ? (await response.json()).error_description : undefined;
    } catch {}
}
