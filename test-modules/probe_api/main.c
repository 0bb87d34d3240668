// SPDX-License-Identifier: GPL-2.0
/*
 * probe_api: every call of the kprobe and kretprobe interface, used well and badly, as KTAP in the
 * kernel log.
 *
 * Parameter:
 *   run  written once the module is loaded: "all", or names of tests separated by commas; runs
 *        them and prints one KTAP document.  "all" leaves out the tests that make the kernel
 *        warn, which are to be named: kprobe_twice_by_address.  EINVAL for an unknown name,
 *        otherwise the write succeeds whatever the results.
 *
 * An error that was not always the same is expected by kernel version, with the commit that
 * changed it beside it.  A test that the kernel or the architecture has no place for is a SKIP
 * with the reason.
 */
#include <linux/init.h>
#include <linux/module.h>
#include <linux/slab.h>
#include <linux/string.h>

#include "probe_api.h"

static const struct test *current_test;
static const char *skip_reason;		/* of the current test, or NULL */
static int failures;			/* of the current test */

void expect(const char *what, long got, long expected)
{
	if (got == expected)
		return;
	failures++;
	pr_info("# %s: %s is %ld, not %ld\n", current_test->name, what, got, expected);
}

void skip(const char *reason)
{
	skip_reason = reason;
}

static const struct suite {
	const struct test *tests;
	bool supported;
} suites[] = {
	{ kprobe_tests, IS_ENABLED(CONFIG_KPROBES) },
	{ kretprobe_tests, IS_ENABLED(CONFIG_KRETPROBES) },
};

#define for_each_test(suite, test)							\
	for (suite = suites; suite < suites + ARRAY_SIZE(suites); suite++)		\
		for (test = suite->tests; test->name; test++)

/* Of a list of names that are separated by commas. */
#define for_each_name(name, length, names)						\
	for (name = names; length = strcspn(name, ","), *name;				\
	     name += length + (name[length] == ','))

static bool selects(const char *name, size_t length, const struct test *test)
{
	if (length == strlen("all") && !strncmp(name, "all", length))
		return !test->warns;
	return length == strlen(test->name) && !strncmp(name, test->name, length);
}

static bool is_selected(const struct test *test, const char *names)
{
	const char *name;
	size_t length;

	for_each_name(name, length, names)
		if (selects(name, length, test))
			return true;
	return false;
}

static bool is_known(const char *name, size_t length)
{
	const struct suite *suite;
	const struct test *test;

	for_each_test(suite, test)
		if (selects(name, length, test))
			return true;
	return false;
}

static void run_test(const struct suite *suite, const struct test *test, int number)
{
	current_test = test;
	skip_reason = NULL;
	failures = 0;
	if (suite->supported)
		test->run();
	else
		skip("not configured");
	if (failures)
		pr_info("not ok %d %s\n", number, test->name);
	else if (skip_reason)
		pr_info("ok %d %s # SKIP %s\n", number, test->name, skip_reason);
	else
		pr_info("ok %d %s\n", number, test->name);
}

static void run_tests(const char *names)
{
	const struct suite *suite;
	const struct test *test;
	int count = 0, number = 0;

	for_each_test(suite, test)
		count += is_selected(test, names);
	pr_info("KTAP version 1\n");
	pr_info("1..%d\n", count);
	for_each_test(suite, test)
		if (is_selected(test, names))
			run_test(suite, test, ++number);
}

static bool loaded;

static int set_run(const char *value, const struct kernel_param *param)
{
	char *copy = kstrdup(value, GFP_KERNEL);
	const char *name, *names;
	size_t length;
	int error;

	if (!copy)
		return -ENOMEM;
	names = strim(copy);
	error = loaded && *names ? 0 : -EINVAL;
	for_each_name(name, length, names)
		if (!is_known(name, length))
			error = -EINVAL;
	if (!error)
		run_tests(names);
	kfree(copy);
	return error;
}

static const struct kernel_param_ops run_ops = { .set = set_run };
module_param_cb(run, &run_ops, NULL, 0200);
MODULE_PARM_DESC(run, "tests to run, or all (write only, not at load)");

static int __init probe_api_init(void)
{
	probe_init_code();
	loaded = true;
	return 0;
}

static void __exit probe_api_exit(void)
{
	unprobe_init_code();
}

module_init(probe_api_init);
module_exit(probe_api_exit);
MODULE_DESCRIPTION("every call of the kprobe and kretprobe interface, used well and badly");
MODULE_LICENSE("GPL");
