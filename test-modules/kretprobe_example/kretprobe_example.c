// SPDX-License-Identifier: GPL-2.0
/*
 * kretprobe_example: one kretprobe, which reports each entry and each return in the kernel log.
 *
 * Each call that is probed gets a number at its entry, which its return repeats: it and the time of
 * entry are kept in the instance's own data.
 *
 * Parameters:
 *   symbol     the function to probe; by default the one behind fork()
 *   maxactive  how many calls can be probed at once; 0 leaves it to the kernel, and reads as the
 *              kernel chose it
 *   quiet      Y: only count the calls, without reporting each
 *   hits       read: how many returns were seen
 *   nmissed    read: how many calls were not probed because maxactive others were
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/atomic.h>
#include <linux/init.h>
#include <linux/kprobes.h>
#include <linux/ktime.h>
#include <linux/module.h>

#include "kmodlab_compat.h"

struct call {
	int number;
	u64 entered;	/* ns */
};

static int on_entry(struct kretprobe_instance *instance, struct pt_regs *regs);
static int on_return(struct kretprobe_instance *instance, struct pt_regs *regs);

static struct kretprobe probe = {
	.entry_handler	= on_entry,
	.handler	= on_return,
	.data_size	= sizeof(struct call),
};

static char *symbol = KMODLAB_FORK;
module_param(symbol, charp, 0444);
MODULE_PARM_DESC(symbol, "function to probe (default: " KMODLAB_FORK ")");

module_param_named(maxactive, probe.maxactive, int, 0444);
MODULE_PARM_DESC(maxactive, "calls that can be probed at once (default: the kernel's choice)");

static bool quiet;
module_param(quiet, bool, 0444);
MODULE_PARM_DESC(quiet, "only count the calls, without reporting each (default: N)");

static atomic_t hits = ATOMIC_INIT(0);
module_param_named(hits, hits.counter, int, 0444);
MODULE_PARM_DESC(hits, "returns seen (to be read)");

module_param_named(nmissed, probe.nmissed, int, 0444);
MODULE_PARM_DESC(nmissed, "calls not probed for want of an instance (to be read)");

static atomic_t calls = ATOMIC_INIT(0);

static int on_entry(struct kretprobe_instance *instance, struct pt_regs *regs)
{
	struct call *call = (struct call *)instance->data;

	call->number = atomic_inc_return(&calls);
	if (!quiet)
		pr_info("handler=entry call=%d at=%pS\n", call->number, probe.kp.addr);
	call->entered = ktime_get_ns();
	return 0;
}

static int on_return(struct kretprobe_instance *instance, struct pt_regs *regs)
{
	struct call *call = (struct call *)instance->data;
	u64 duration = ktime_get_ns() - call->entered;
	long value = regs_return_value(regs);

	atomic_inc(&hits);
	if (!quiet)
		pr_info("handler=return call=%d value=0x%lx int=%d duration_ns=%llu at=%pS\n",
			call->number, value, (int)value, duration, probe.kp.addr);
	return 0;
}

static int __init kretprobe_example_init(void)
{
	int error;

	probe.kp.symbol_name = symbol;
	error = register_kretprobe(&probe);
	if (error) {
		pr_err("register_kretprobe error=%d\n", error);
		return error;
	}
	pr_info("registered maxactive=%d addr=0x%lx at=%pS\n", probe.maxactive,
		(unsigned long)probe.kp.addr, probe.kp.addr);
	return 0;
}

static void __exit kretprobe_example_exit(void)
{
	unregister_kretprobe(&probe);
	pr_info("unregistered hits=%d nmissed=%d\n", atomic_read(&hits), probe.nmissed);
}

module_init(kretprobe_example_init);
module_exit(kretprobe_example_exit);
MODULE_DESCRIPTION("one kretprobe, which reports each entry and return in the kernel log");
MODULE_LICENSE("GPL");
