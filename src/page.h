/* The page at `/`: what this server is and how to try it. */
#pragma once

#include "slice.h"

struct slice page_html(void);
