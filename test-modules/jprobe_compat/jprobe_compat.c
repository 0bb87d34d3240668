// SPDX-License-Identifier: GPL-2.0
/*
 * jprobe_compat: jprobes for kernels that have none, built on kprobes.
 *
 * Exports register_jprobe(), register_jprobes(), unregister_jprobe(), unregister_jprobes(),
 * disable_jprobe(), enable_jprobe() and jprobe_return(), with the meaning and the errors that the
 * kernel's own had: EINVAL for a probe that is not at a function's entry, for an empty or negative
 * number, for disabling or enabling what is not registered; EEXIST for a second jprobe on a
 * function.  include/jprobe_compat.h says what cannot be done.  On a kernel with jprobes of its
 * own the module is empty.  No parameters.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/init.h>
#include <linux/kprobes.h>
#include <linux/list.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/slab.h>

#include "jprobe_compat.h"

#if !NATIVE_JPROBES

struct registered {
	struct list_head list;
	struct jprobe *jprobe;
};

static LIST_HEAD(all_registered);
static DEFINE_MUTEX(lock);	/* of all_registered */

/*
 * Calls the handler with the words that the probed function got, in the places where it got them.
 * Its type is not the one it was written with: control-flow integrity would not let the call pass.
 */
static int __nocfi call_handler(struct kprobe *kp, struct pt_regs *regs)
{
	void (*handler)(unsigned long a, unsigned long b, unsigned long c, unsigned long d,
			unsigned long e, unsigned long f, unsigned long g, unsigned long h);

	handler = container_of(kp, struct jprobe, kp)->entry;
	handler(kmodlab_argument(regs, 0), kmodlab_argument(regs, 1),
		kmodlab_argument(regs, 2), kmodlab_argument(regs, 3),
		kmodlab_argument(regs, 4), kmodlab_argument(regs, 5),
		kmodlab_argument(regs, 6), kmodlab_argument(regs, 7));
	return 0;
}

static bool is_taken(const kprobe_opcode_t *address)
{
	struct registered *entry;

	list_for_each_entry(entry, &all_registered, list)
		if (entry->jprobe->kp.addr == address)
			return true;
	return false;
}

/* Registers disabled first: only then is the address known by which another jprobe is found. */
static int register_locked(struct jprobe *jp, struct registered *entry)
{
	u32 flags = jp->kp.flags;
	int error;

	jp->kp.pre_handler = call_handler;
	jp->kp.flags |= KPROBE_FLAG_DISABLED;
	error = register_kprobe(&jp->kp);
	if (error)
		return error;
	if (is_taken(jp->kp.addr))
		error = -EEXIST;
	else if (!(flags & KPROBE_FLAG_DISABLED))
		error = enable_kprobe(&jp->kp);
	if (error) {
		unregister_kprobe(&jp->kp);
		return error;
	}
	entry->jprobe = jp;
	list_add(&entry->list, &all_registered);
	return 0;
}

int register_jprobe(struct jprobe *jp)
{
	struct registered *entry;
	int error;

	if (!KMODLAB_HAS_ARGUMENTS)
		return -EOPNOTSUPP;
	if (!jp->entry || jp->kp.offset)
		return -EINVAL;
	entry = kmalloc(sizeof(*entry), GFP_KERNEL);
	if (!entry)
		return -ENOMEM;
	mutex_lock(&lock);
	error = register_locked(jp, entry);
	mutex_unlock(&lock);
	if (error)
		kfree(entry);
	return error;
}
EXPORT_SYMBOL_GPL(register_jprobe);

int register_jprobes(struct jprobe **jps, int num)
{
	int error, i;

	if (num <= 0)
		return -EINVAL;
	for (i = 0; i < num; i++) {
		error = register_jprobe(jps[i]);
		if (error) {
			unregister_jprobes(jps, i);
			return error;
		}
	}
	return 0;
}
EXPORT_SYMBOL_GPL(register_jprobes);

void unregister_jprobe(struct jprobe *jp)
{
	struct registered *entry, *next;

	mutex_lock(&lock);
	list_for_each_entry_safe(entry, next, &all_registered, list) {
		if (entry->jprobe == jp) {
			list_del(&entry->list);
			kfree(entry);
		}
	}
	unregister_kprobe(&jp->kp);
	mutex_unlock(&lock);
}
EXPORT_SYMBOL_GPL(unregister_jprobe);

void unregister_jprobes(struct jprobe **jps, int num)
{
	int i;

	for (i = 0; i < num; i++)
		unregister_jprobe(jps[i]);
}
EXPORT_SYMBOL_GPL(unregister_jprobes);

int disable_jprobe(struct jprobe *jp)
{
	return disable_kprobe(&jp->kp);
}
EXPORT_SYMBOL_GPL(disable_jprobe);

int enable_jprobe(struct jprobe *jp)
{
	return enable_kprobe(&jp->kp);
}
EXPORT_SYMBOL_GPL(enable_jprobe);

void jprobe_return(void)
{
}
EXPORT_SYMBOL_GPL(jprobe_return);

#endif

static int __init jprobe_compat_init(void)
{
	pr_info("loaded native=%d\n", NATIVE_JPROBES);
	return 0;
}

static void __exit jprobe_compat_exit(void)
{
	pr_info("unloaded\n");
}

module_init(jprobe_compat_init);
module_exit(jprobe_compat_exit);
MODULE_DESCRIPTION("jprobes for kernels that have none, built on kprobes");
MODULE_LICENSE("GPL");
