/*
 * Connections on their way into the next program of this process (docs/upgrade.md): open, each with
 * the bytes that nobody has used up, and with the request that it has at the handler.
 *
 *   held       nothing is read, no request begins; what is under way goes on, until all is quiet:
 *              every exchange is answered, or waits for something that may take long
 *   taken out  those that wait are saved, and the handler has let go of them; what is unsent is
 *              still being sent
 *   saved      nothing is sent any more; exec(2) follows
 *
 * Those that wait for an update are saved last, so that the others can go on before them.
 *
 * A request that came in part is saved as bytes that bring a fresh parser to where it was, whatever
 * version of it that is. Replies are saved once, however many connections have yet to send them.
 */
#pragma once

#include "base/pack.h"
#include "http/conn.h"

void conn_hold_all(struct conn_shared *shared);
/* Nothing comes of it: everything goes on. */
void conn_release_all(struct conn_shared *shared);
bool conn_all_quiet(struct conn_shared *shared);

/* Only when all is quiet. Writes requests. */
void conn_take_out_all(struct conn_shared *shared, struct pack *out);
/* Writes the descriptors of all that were taken out and are still open, first of all their number,
 * and lets them pass exec(2). */
void conn_save_sockets(struct conn_shared *shared, struct pack *out);
/* Writes the rest: of the same, in the same order. */
void conn_save_all(struct conn_shared *shared, struct pack *out);

/*
 * Goes on with them: with some at once, with the others in the next turns of the loop, those that
 * wait for an update last. `file` begins where the first program began to write; `sockets` are what
 * conn_save_sockets() wrote, and `in` what conn_save_all() did. Calls done() with their number when
 * all are there, and the file is needed no more; `ok` if all of it made sense. A connection that
 * does not is closed.
 */
void conn_restore_all(struct conn_shared *shared, struct slice file, struct unpack sockets,
                      struct unpack in, void (*done)(uint32_t number, bool ok));
/* With all that are left. Harmless when there are none. */
void conn_restore_rest(void);

/* Closes the connections: their requests cannot be read. Returns how many there were. */
uint32_t conn_drop_all(struct unpack *sockets);
