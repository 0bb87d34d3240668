// SPDX-License-Identifier: GPL-2.0
/*
 * leakmod: takes references to modules and forgets them.
 *
 * Each parameter names a module and acts when it is written, at load or later:
 *   get  takes a reference with try_module_get(), which nothing will give back
 *   put  gives one back with module_put(), whether or not one was taken
 *
 * It prints the use count after that, which includes the loading's own reference while a module
 * loads.  At load, get comes before put.
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

struct action {
	int (*act)(struct module *module);
	char *wanted;	/* the module to act on, given at load */
};

static bool loaded;

/*
 * Calls act() with the module of that name.  find_module() is of no use here, modules cannot call
 * it since v5.12: the modules' directory in sysfs leads there too.
 */
static int with_module(const char *name, int (*act)(struct module *module))
{
	struct kobject *directory = kset_find_obj(THIS_MODULE->mkobj.kobj.kset, name);
	struct module *module = NULL;
	int error;

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

static int set_action(const char *value, const struct kernel_param *param)
{
	struct action *action = param->arg;
	char *copy = kstrdup(value, GFP_KERNEL);
	char *name;
	int error;

	if (!copy)
		return -ENOMEM;
	name = strim(copy);
	if (loaded) {
		error = with_module(name, action->act);
	} else {
		/* This module has no place in sysfs yet, and so no way to the others: init acts. */
		kfree(action->wanted);
		action->wanted = kstrdup(name, GFP_KERNEL);
		error = action->wanted ? 0 : -ENOMEM;
	}
	kfree(copy);
	return error;
}

static const struct kernel_param_ops action_ops = { .set = set_action };

static struct action get_action = { .act = leakmod_get };
module_param_cb(get, &action_ops, &get_action, 0200);
MODULE_PARM_DESC(get, "module to take a reference to (write only)");

static struct action put_action = { .act = leakmod_put };
module_param_cb(put, &action_ops, &put_action, 0200);
MODULE_PARM_DESC(put, "module to give a reference back to (write only)");

static int act_at_load(struct action *action)
{
	int error = action->wanted ? with_module(action->wanted, action->act) : 0;

	kfree(action->wanted);
	action->wanted = NULL;
	return error;
}

static int __init leakmod_init(void)
{
	int get_error = act_at_load(&get_action);
	int put_error = act_at_load(&put_action);

	if (get_error || put_error)
		return get_error ? get_error : put_error;
	loaded = true;
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
