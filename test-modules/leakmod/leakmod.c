// SPDX-License-Identifier: GPL-2.0
/*
 * leakmod: takes references to modules and forgets them.
 *
 * Each parameter names a module and acts when it is written, at load or later:
 *   get  takes a reference with try_module_get(), which nothing will give back
 *   put  gives one back with module_put(), whether or not one was taken
 *
 * It prints the use count after that, which includes the loading's own reference while a module
 * loads.
 *
 * leakmod's own name is allowed: its use count is then above 0 with nothing that uses it.  A put
 * at use count 0 makes the count -1, the next one makes the kernel warn, and removing a module in
 * that state makes it BUG().  A module that is not there, or is going, is ENOENT.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/init.h>
#include <linux/kobject.h>
#include <linux/module.h>
#include <linux/slab.h>
#include <linux/string.h>

/*
 * Calls act() with the module that a written value names.  find_module() is of no use here, modules
 * cannot call it since v5.12: the modules' directory in sysfs leads there too.
 */
static int with_module(const char *value, int (*act)(struct module *module))
{
	struct kobject *directory = NULL;
	struct module *module = NULL;
	char *copy = kstrdup(value, GFP_KERNEL);
	int error;

	if (!copy)
		return -ENOMEM;
	/* Its own directory is not there yet when parameters are set at load. */
	if (!strcmp(strim(copy), THIS_MODULE->name))
		module = THIS_MODULE;
	else
		directory = kset_find_obj(THIS_MODULE->mkobj.kobj.kset, strim(copy));
	kfree(copy);
	if (directory)
		module = container_of(directory, struct module_kobject, kobj)->mod;
	error = module ? act(module) : -ENOENT;
	kobject_put(directory);
	return error;
}

static int leakmod_get(struct module *module)
{
	if (!try_module_get(module))
		return -ENOENT;
	pr_info("get module=%s use=%d\n", module->name, module_refcount(module));
	return 0;
}

static int leakmod_put(struct module *module)
{
	module_put(module);
	pr_info("put module=%s use=%d\n", module->name, module_refcount(module));
	return 0;
}

static int set_get(const char *value, const struct kernel_param *param)
{
	return with_module(value, leakmod_get);
}

static int set_put(const char *value, const struct kernel_param *param)
{
	return with_module(value, leakmod_put);
}

static const struct kernel_param_ops get_ops = { .set = set_get };
module_param_cb(get, &get_ops, NULL, 0200);
MODULE_PARM_DESC(get, "module to take a reference to (write only)");

static const struct kernel_param_ops put_ops = { .set = set_put };
module_param_cb(put, &put_ops, NULL, 0200);
MODULE_PARM_DESC(put, "module to give a reference back to (write only)");

static int __init leakmod_init(void)
{
	pr_info("loaded\n");
	return 0;
}

static void __exit leakmod_exit(void)
{
	pr_info("unloaded\n");
}

module_init(leakmod_init);
module_exit(leakmod_exit);
MODULE_DESCRIPTION("takes references to modules and forgets them");
MODULE_LICENSE("GPL");
