// SPDX-License-Identifier: GPL-2.0
/*
 * refdep_a: the module at the end of a chain of modules that use each other's symbols.
 *
 * Exports refdep_a_value(), which refdep_b uses.  No parameters.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/init.h>
#include <linux/module.h>

#include "refdep.h"

int refdep_a_value(void)
{
	return 1;
}
EXPORT_SYMBOL_GPL(refdep_a_value);

static int __init refdep_a_init(void)
{
	pr_info("loaded value=%d\n", refdep_a_value());
	return 0;
}

static void __exit refdep_a_exit(void)
{
	pr_info("unloaded\n");
}

module_init(refdep_a_init);
module_exit(refdep_a_exit);
MODULE_DESCRIPTION("end of a chain of modules: used by refdep_b");
MODULE_LICENSE("GPL");
