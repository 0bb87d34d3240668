// SPDX-License-Identifier: GPL-2.0
/* Functions to probe. */
#include <linux/kprobes.h>

#include "kmodlab_compat.h"
#include "kmodlab_target.h"
#include "probe_api.h"

TARGET int probe_api_target(int a)
{
	OPAQUE(a);
	return a + 1;
}

TARGET int probe_api_other(int a)
{
	OPAQUE(a);
	return a + 2;
}

/*
 * Long enough that no other function begins within 16 bytes: where the function tracer has a place
 * that near, ppc64le's kprobe_lookup_name() takes it for this function's, and the probe for that one.
 */
TARGET notrace int probe_api_notrace(int a)
{
	asm volatile("	.rept 4\n"
		     "	nop\n"
		     "	.endr\n"
		     : "+r" (a) : : "memory");
	return a + 3;
}

TARGET int probe_api_nokprobe(int a)
{
	OPAQUE(a);
	return a + 4;
}
NOKPROBE_SYMBOL(probe_api_nokprobe);

CALLED int probe_api_inner(int a)
{
	INNER_INSTRUCTION(probe_api_inner, probe_api_inner_offset, a);
	return a + 5;
}

TARGET int probe_api_recurse(int depth)
{
	int result = 0;

	if (depth > 0)
		result = probe_api_recurse(depth - 1) + 1;
	OPAQUE(result);
	return result;
}
