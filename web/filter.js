// What the filter's box says: conditions that the server checks (body.action:opened), a time to begin with (since:10m), and
// text that the page looks for.

const LOCAL_TIME = /^(\d{4}-\d\d-\d\d)(?:[T ](\d\d:\d\d(?::\d\d(?:\.\d+)?)?))?$/;

// A value with spaces stands between quotes.
const CONDITION = /(?<!\S)(!?(?:(?:header\.|query\.|body[.[])[^\s:]*:?|method:|path:|since:))(?:"([^"]*)"|(\S*))(?!\S)/g;

/**
 * {where: the conditions, since: the time, where there is one, whereText: both as they were typed, text: the rest}. Of two
 * times the last one counts.
 */
export function readFilter(typed) {
    const where = [];
    const tokens = [];
    let since;
    const rest = typed.replace(CONDITION, (token, field, quoted, plain) => {
        const value = quoted ?? plain;
        if (field === 'since:') since = sinceOf(value);
        else where.push(namesOf(field) + value);
        tokens.push(token);
        return ' ';
    });
    return { where, since, whereText: tokens.join(' '), text: (tokens.length ? rest.replace(/\s+/g, ' ') : rest).trim() };
}

/** The path of a member as the tree of an update gives it, body.items[3].name, as the server names it. */
function namesOf(field) {
    return /^!?body/.test(field) ? field.replace(/\[(\d+)\]/g, '.$1') : field;
}

/** The server takes a time without a zone as UTC; here it is the reader's own, as are all times that the page shows. */
function sinceOf(text) {
    const [, day, time = '00:00'] = LOCAL_TIME.exec(text) ?? [];
    const date = new Date(`${day}T${time}`);
    return Number.isNaN(date.getTime()) ? text : date.toISOString();
}

/** What the server says against the conditions; undefined: nothing, or it does not answer. */
export async function complaintOf(address, { where, since }) {
    const bare = where.find((condition) => !condition.includes(':'));
    if (bare) return `${bare} needs a colon, and what it should be: ${bare}:TEXT`;
    if (since === '') return 'since: needs a time, as since:10m or since:2026-11-29T10:00';
    const url = new URL(address);
    url.search = new URLSearchParams([since ? ['since', since] : ['ts', 'now'], ['limit', '1'], ...where.map((condition) => ['where', condition])]);
    try {
        const response = await fetch(url);
        return response.status === 400 ? (await response.json()).error_description : undefined;
    } catch {}
}
