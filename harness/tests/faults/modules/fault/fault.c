// SPDX-License-Identifier: GPL-2.0
/*
 * fault: does one bad thing when it is loaded.
 *
 * kind=panic panics, kind=oops follows a NULL pointer, kind=warn warns and goes on, kind=spin never
 * returns, kind=spin-irqs-off neither, with interrupts off, kind=flood logs `count` lines of 900
 * characters, kind=garble logs terminal escapes and what is not UTF-8.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/bug.h>
#include <linux/delay.h>
#include <linux/init.h>
#include <linux/kernel.h>
#include <linux/module.h>
#include <linux/preempt.h>
#include <linux/string.h>

static char *kind = "none";
module_param(kind, charp, 0444);
MODULE_PARM_DESC(kind, "panic, oops, warn, spin, spin-irqs-off, flood or garble");

static unsigned int count;
module_param(count, uint, 0444);
MODULE_PARM_DESC(count, "lines of a flood");

static void spin(void)
{
	for (;;)
		cpu_relax();
}

/* Lets the log be read now and then: what comes faster is overwritten before it leaves the guest. */
static void flood(void)
{
	static char line[901];
	unsigned int i;

	memset(line, 'x', sizeof(line) - 1);
	for (i = 0; i < count; i++) {
		pr_info("%u %s\n", i, line);
		if (i % 32 == 31)
			msleep(1);
	}
}

static int __init fault_init(void)
{
	pr_info("loaded\n");
	if (!strcmp(kind, "panic")) {
		panic("fault: asked to");
	} else if (!strcmp(kind, "oops")) {
		int *volatile nowhere = NULL;

		*nowhere = 1;
	} else if (!strcmp(kind, "warn")) {
		WARN(1, "fault: asked to\n");
	} else if (!strcmp(kind, "spin")) {
		preempt_disable();
		spin();
	} else if (!strcmp(kind, "spin-irqs-off")) {
		local_irq_disable();
		spin();
	} else if (!strcmp(kind, "flood")) {
		flood();
	} else if (!strcmp(kind, "garble")) {
		pr_info("garble \x1b]0;title\x07\x1b[2J\xff\xfe end\n");
	}
	return 0;
}

static void __exit fault_exit(void)
{
}

module_init(fault_init);
module_exit(fault_exit);
MODULE_DESCRIPTION("does one bad thing when it is loaded");
MODULE_LICENSE("GPL");
