// SPDX-License-Identifier: GPL-2.0
/*
 * testmod: a module that says when it comes and goes, and has a file in /proc.
 *
 * Prints "sample init" and "sample exit", as they stand, at alert level.  /proc/testmod-sample,
 * mode 0444, reads "This is testmod." and a newline.  A failing proc_create() makes the load fail
 * with ENOMEM.
 *
 * Parameters:
 *   name  the file's name in /proc.  One that exists already, "version" for instance, makes
 *         proc_create() fail; the kernel then also warns with a call trace:
 *         "proc_dir_entry '/proc/version' already registered"
 */
#include <linux/init.h>
#include <linux/module.h>
#include <linux/proc_fs.h>
#include <linux/seq_file.h>

#include "kmodlab_compat.h"

static char *name = "testmod-sample";
module_param(name, charp, 0444);
MODULE_PARM_DESC(name, "name of the file in /proc (default: testmod-sample)");

static int testmod_show(struct seq_file *file, void *unused)
{
	seq_puts(file, "This is testmod.\n");
	return 0;
}

static int testmod_open(struct inode *inode, struct file *file)
{
	return single_open(file, testmod_show, NULL);
}

static const struct proc_ops testmod_ops = {
	.proc_open	= testmod_open,
	.proc_read	= seq_read,
	.proc_lseek	= seq_lseek,
	.proc_release	= single_release,
};

static int __init testmod_init(void)
{
	pr_alert("sample init\n");
	if (!proc_create(name, 0444, NULL, &testmod_ops))
		return -ENOMEM;
	return 0;
}

static void __exit testmod_exit(void)
{
	remove_proc_entry(name, NULL);
	pr_alert("sample exit\n");
}

module_init(testmod_init);
module_exit(testmod_exit);
MODULE_DESCRIPTION("a module that says when it comes and goes, and has a file in /proc");
MODULE_LICENSE("GPL");
