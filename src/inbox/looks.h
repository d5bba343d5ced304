/*
 * Looking through updates with a filter: at once where that is quick, else by the worker.
 *
 * The inbox's own (parts.h).
 */
#pragma once

#include "inbox/inbox.h"
#include "inbox/views.h"

/* A poll with a filter has got a page, without regard to the filter: answers it with what it wants
 * of that, or lets it go on, as a poll that wants all would go on behind the page. */
void poll_look(struct inbox *inbox, struct channel *channel, struct poll *poll,
               const struct answer *page);

/* Lets the worker look at updates for the view's parked polls, unless that is quickly done: then
 * false. view_looked() follows; or, when the worker has no room now, view_retry(). */
bool look_for_view(struct inbox *inbox, struct view *view, struct update **updates, uint32_t count);

/* The poll, or the view, is gone. */
void look_abandon(struct look *look);
