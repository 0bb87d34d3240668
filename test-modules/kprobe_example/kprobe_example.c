// SPDX-License-Identifier: GPL-2.0
/*
 * kprobe_example: one kprobe, whose two handlers report each hit in the kernel log.
 *
 * Parameters:
 *   symbol    the function to probe; by default the one behind fork(), unless addr is given
 *   offset    bytes from the symbol, or from addr, to the instruction
 *   addr      the address to probe; with symbol given too, the kernel refuses the probe
 *   post      N: do without the post handler.  A probe that has one is never optimized
 *   quiet     Y: only count the hits, without reporting each
 *   disabled  N or Y: at load, register the probe disabled; written later, disable or enable this
 *             probe alone
 *   hits      read: how often the pre handler ran
 *   nmissed   read: how often the probe was hit while another kprobe's handler ran
 *
 * On a kernel with KPROBES_ON_FTRACE, a probe with a post handler must not join one without on
 * the same function: the kernel then cannot disarm the two (ENOENT, and a warning).
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/atomic.h>
#include <linux/init.h>
#include <linux/kprobes.h>
#include <linux/module.h>
#include <linux/mutex.h>

#include "kmodlab_compat.h"

static int pre_handler(struct kprobe *p, struct pt_regs *regs);

static struct kprobe probe = {
	.pre_handler	= pre_handler,
};

static char *symbol;
module_param(symbol, charp, 0444);
MODULE_PARM_DESC(symbol, "function to probe (default: " KMODLAB_FORK ", unless addr is given)");

module_param_named(offset, probe.offset, uint, 0444);
MODULE_PARM_DESC(offset, "bytes from the symbol or address to the instruction to probe");

static unsigned long addr;
module_param(addr, ulong, 0444);
MODULE_PARM_DESC(addr, "address to probe, instead of a symbol");

static bool post = true;
module_param(post, bool, 0444);
MODULE_PARM_DESC(post, "have a post handler (default: Y)");

static bool quiet;
module_param(quiet, bool, 0444);
MODULE_PARM_DESC(quiet, "only count the hits, without reporting each (default: N)");

static atomic_t hits = ATOMIC_INIT(0);
module_param_named(hits, hits.counter, int, 0444);
MODULE_PARM_DESC(hits, "times the pre handler ran (to be read)");

module_param_named(nmissed, probe.nmissed, ulong, 0444);
MODULE_PARM_DESC(nmissed, "times the probe was hit inside another kprobe's handler (to be read)");

static bool disabled;
static bool registered;
static DEFINE_MUTEX(lock);	/* of disabled and registered */

static int pre_handler(struct kprobe *p, struct pt_regs *regs)
{
	int hit = atomic_inc_return(&hits);

	if (!quiet)
		pr_info("handler=pre hit=%d ip=0x%lx at=%pS\n", hit, instruction_pointer(regs),
			p->addr);
	return 0;
}

static void post_handler(struct kprobe *p, struct pt_regs *regs, unsigned long flags)
{
	if (!quiet)
		pr_info("handler=post hit=%d ip=0x%lx at=%pS\n", atomic_read(&hits),
			instruction_pointer(regs), p->addr);
}

static int set_disabled(const char *value, const struct kernel_param *param)
{
	bool wanted;
	int error = kstrtobool(value, &wanted);

	if (error)
		return error;
	mutex_lock(&lock);
	if (registered)
		error = wanted ? disable_kprobe(&probe) : enable_kprobe(&probe);
	if (!error)
		disabled = wanted;
	mutex_unlock(&lock);
	return error;
}

static const struct kernel_param_ops disabled_ops = {
	.set	= set_disabled,
	.get	= param_get_bool,
};
module_param_cb(disabled, &disabled_ops, &disabled, 0644);
MODULE_PARM_DESC(disabled, "register the probe disabled; written later, disable or enable it");

static int __init kprobe_example_init(void)
{
	int error;

	if (!symbol && !addr)
		symbol = KMODLAB_FORK;
	probe.symbol_name = symbol;
	probe.addr = (kprobe_opcode_t *)addr;
	if (post)
		probe.post_handler = post_handler;
	mutex_lock(&lock);
	if (disabled)
		probe.flags = KPROBE_FLAG_DISABLED;
	error = register_kprobe(&probe);
	registered = !error;
	mutex_unlock(&lock);
	if (error) {
		pr_err("register_kprobe error=%d\n", error);
		return error;
	}
	pr_info("registered addr=0x%lx at=%pS\n", (unsigned long)probe.addr, probe.addr);
	return 0;
}

static void __exit kprobe_example_exit(void)
{
	mutex_lock(&lock);
	unregister_kprobe(&probe);
	registered = false;
	mutex_unlock(&lock);
	pr_info("unregistered hits=%d nmissed=%lu\n", atomic_read(&hits), probe.nmissed);
}

module_init(kprobe_example_init);
module_exit(kprobe_example_exit);
MODULE_DESCRIPTION("one kprobe, whose handlers report each hit in the kernel log");
MODULE_LICENSE("GPL");
