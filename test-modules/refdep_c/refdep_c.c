// SPDX-License-Identifier: GPL-2.0
/*
 * refdep_c: the module at the head of a chain of modules that use each other's symbols.
 *
 * Uses refdep_b, which uses refdep_a.  No parameters.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/init.h>
#include <linux/module.h>

#include "refdep.h"

static int __init refdep_c_init(void)
{
	pr_info("loaded value=%d\n", refdep_b_value() + 1);
	return 0;
}

static void __exit refdep_c_exit(void)
{
	pr_info("unloaded\n");
}

module_init(refdep_c_init);
module_exit(refdep_c_exit);
MODULE_DESCRIPTION("head of a chain of modules: uses refdep_b");
MODULE_LICENSE("GPL");
