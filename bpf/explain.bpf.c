//go:build ignore

// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* The datapath once more, for "portcullis explain": it looks at what the running one looks at, and changes nothing. */
#define DRY_RUN true
#include "firewall.bpf.c"
