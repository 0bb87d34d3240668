// SPDX-License-Identifier: GPL-2.0
/*
 * refscan: says what holds a module, from inside the kernel.
 *
 * Parameter:
 *   module  name of the module to look for
 *   loader  process that loaded it for one look and removes it after that; does nothing here, but tells
 *           others that it was left behind where that process is gone
 *
 * Reading /proc/refscan scans, and shows a line for each holder: see README.md beside this folder.
 * Only root can do either.
 *
 * The scan takes no reference to the module, so that the count it shows is what it would be without.
 * It holds the module's directory in sysfs instead: free_module() waits until that is let go of
 * (mod_kobject_put(), since v3.14, 942e443127e9, "module: Fix mod->mkobj.kobj potentially freed too
 * early"), before it frees anything.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/init.h>
#include <linux/kobject.h>
#include <linux/moduleparam.h>
#include <linux/proc_fs.h>
#include <linux/string.h>
#include <linux/vmalloc.h>

#include "kmodlab_compat.h"
#include "refscan.h"

static char module[MODULE_NAME_LEN];
module_param_string(module, module, sizeof(module), 0600);
MODULE_PARM_DESC(module, "name of the module to look for");

static int loader;
module_param(loader, int, 0400);
MODULE_PARM_DESC(loader, "process that loaded it for one look and removes it after that");

bool begin_holder(struct scan *scan, const char *kind, const char *via, unsigned int refs)
{
	if (scan->shown == MAX_SHOWN) {
		scan->cut++;
		return false;
	}
	scan->shown++;
	scan->refs += refs;
	seq_printf(scan->to, "holder kind=%s via=%s refs=%u", kind, via, refs);
	return true;
}

void end_holder(struct scan *scan)
{
	seq_putc(scan->to, '\n');
}

void add_word(struct scan *scan, const char *name, const char *value)
{
	seq_printf(scan->to, " %s=", name);
	seq_escape(scan->to, value, ESCAPED);
}

void not_scanned(struct scan *scan, const char *kind, const char *why)
{
	seq_printf(scan->to, "unknown kind=%s why=%s\n", kind, why);
}

static const char *state_name(enum module_state state)
{
	switch (state) {
	case MODULE_STATE_LIVE:
		return "live";
	case MODULE_STATE_COMING:
		return "loading";
	case MODULE_STATE_GOING:
		return "unloading";
	default:
		return "unformed";
	}
}

static int scan_show(struct seq_file *to, void *unused)
{
	char name[MODULE_NAME_LEN];
	struct kobject *directory;
	struct module *found = NULL;
	struct scan *scan;
	int error = 0;

	kernel_param_lock(THIS_MODULE);
	strscpy(name, module, sizeof(name));
	kernel_param_unlock(THIS_MODULE);

	scan = vzalloc(sizeof(*scan));
	if (!scan)
		return -ENOMEM;
	/* Modules cannot call find_module() since v5.12; their directories lead to them too. */
	directory = kset_find_obj(THIS_MODULE->mkobj.kobj.kset, strim(name));
	if (directory)
		found = container_of(directory, struct module_kobject, kobj)->mod;
	if (found) {
		scan->to = to;
		scan->module = found;
		seq_printf(to, "refscan 1 module=%s state=%s use=%d\n", found->name,
			   state_name(found->state), module_refcount(found));
		scan_tasks(scan);
		scan_mounts(scan);
		scan_interfaces(scan);
		scan_dependents(scan);
		seq_printf(to, "end shown=%u cut=%u refs=%u use=%d\n", scan->shown, scan->cut,
			   scan->refs, module_refcount(found));
	} else {
		error = -ENOENT;
	}
	kobject_put(directory);
	vfree(scan);
	return error;
}

static int scan_open(struct inode *inode, struct file *file)
{
	return single_open_size(file, scan_show, NULL, 32 * PAGE_SIZE);
}

static const struct proc_ops scan_ops = {
	.proc_open	= scan_open,
	.proc_read	= seq_read,
	.proc_lseek	= seq_lseek,
	.proc_release	= single_release,
};

static int __init refscan_init(void)
{
	return proc_create("refscan", 0400, NULL, &scan_ops) ? 0 : -ENOMEM;
}

static void __exit refscan_exit(void)
{
	remove_proc_entry("refscan", NULL);
}

module_init(refscan_init);
module_exit(refscan_exit);
MODULE_DESCRIPTION("says what holds a module");
MODULE_LICENSE("GPL");
