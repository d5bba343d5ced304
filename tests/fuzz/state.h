/* The state that passes from one program to the next: written as src/upgrade.c does it,
 * and taken over by that. */
#pragma once

void state_set_up(void);

/* Hands all connections over to a server that begins with them; not while a request is under way
 * that does not end. With FUZZ_STATES the state stays, in a file of that folder: as a seed for
 * fuzz_handover. */
void state_hand_over(void);
