// SPDX-License-Identifier: GPL-2.0
/*
 * refdep_b: the module in the middle of a chain of modules that use each other's symbols.
 *
 * Uses refdep_a, and exports refdep_b_value(), which refdep_c uses.  No parameters.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/init.h>
#include <linux/module.h>

#include "refdep.h"

int refdep_b_value(void)
{
	return refdep_a_value() + 1;
}
EXPORT_SYMBOL_GPL(refdep_b_value);

static int __init refdep_b_init(void)
{
	pr_info("loaded value=%d\n", refdep_b_value());
	return 0;
}

static void __exit refdep_b_exit(void)
{
	pr_info("unloaded\n");
}

module_init(refdep_b_init);
module_exit(refdep_b_exit);
MODULE_DESCRIPTION("middle of a chain of modules: uses refdep_a, used by refdep_c");
MODULE_LICENSE("GPL");
