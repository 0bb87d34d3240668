// SPDX-License-Identifier: GPL-2.0
/*
 * jprobe_example: a jprobe that reports the arguments of each call of probe_target_mixed().
 *
 * Uses the kernel's jprobes before v4.15, and jprobe_compat since.  The module probe_target must be
 * loaded before it: the load answers ENOENT otherwise (EINVAL with native jprobes since v4.12).
 *
 * Parameters:
 *   second    Y: register a second jprobe on the same function with it, which fails the load
 *             (EEXIST)
 *   disabled  N or Y: written, disables or enables the jprobe
 *   hits      read: how often the handler ran
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/atomic.h>
#include <linux/init.h>
#include <linux/module.h>
#include <linux/mutex.h>

#include "jprobe_compat.h"

static bool second;
module_param(second, bool, 0444);
MODULE_PARM_DESC(second, "register a second jprobe on the function, which fails (default: N)");

static atomic_t hits = ATOMIC_INIT(0);
module_param_named(hits, hits.counter, int, 0444);
MODULE_PARM_DESC(hits, "times the handler ran (to be read)");

static bool disabled;
static bool registered;
static DEFINE_MUTEX(lock);	/* of disabled and registered */

/* As probe_target_mixed(). */
static long on_mixed(u8 a, s16 b, int c, u64 d, long e, const char *text)
{
	pr_info("hit=%d a=%u b=%d c=%d d=%llu e=%ld text=%s\n", atomic_inc_return(&hits), a, b, c,
		d, e, text);
	jprobe_return();
	return 0;
}

static struct jprobe first_probe = {
	.kp	= { .symbol_name = "probe_target_mixed" },
	.entry	= on_mixed,
};

static struct jprobe second_probe = {
	.kp	= { .symbol_name = "probe_target_mixed" },
	.entry	= on_mixed,
};

static int set_disabled(const char *value, const struct kernel_param *param)
{
	bool wanted;
	int error = kstrtobool(value, &wanted);

	if (error)
		return error;
	mutex_lock(&lock);
	if (!registered)
		error = -EINVAL;
	else
		error = wanted ? disable_jprobe(&first_probe) : enable_jprobe(&first_probe);
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
MODULE_PARM_DESC(disabled, "written, disables or enables the jprobe; not at load");

static int __init jprobe_example_init(void)
{
	struct jprobe *both[] = { &first_probe, &second_probe };
	int error;

	mutex_lock(&lock);
	error = second ? register_jprobes(both, 2) : register_jprobe(&first_probe);
	registered = !error;
	mutex_unlock(&lock);
	if (error) {
		pr_err("register_jprobe error=%d\n", error);
		return error;
	}
	pr_info("registered addr=0x%lx at=%pS\n", (unsigned long)first_probe.kp.addr,
		first_probe.kp.addr);
	return 0;
}

static void __exit jprobe_example_exit(void)
{
	mutex_lock(&lock);
	unregister_jprobe(&first_probe);
	registered = false;
	mutex_unlock(&lock);
	pr_info("unregistered hits=%d\n", atomic_read(&hits));
}

module_init(jprobe_example_init);
module_exit(jprobe_example_exit);
MODULE_DESCRIPTION("a jprobe that reports the arguments of each call of a function");
MODULE_LICENSE("GPL");
