// SPDX-License-Identifier: GPL-2.0
/*
 * hello: a character device that greets whoever reads it.
 *
 * /dev/hello, mode 0444, reads "hello, NAME" and a newline.  The parameter name is "world" unless it is
 * given; it must be neither empty nor longer than 32 bytes.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/fs.h>
#include <linux/init.h>
#include <linux/kernel.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/string.h>

#define LONGEST 32

static char *name = "world";
module_param(name, charp, 0444);
MODULE_PARM_DESC(name, "who is greeted");

static char greeting[sizeof("hello, \n") + LONGEST];

static ssize_t hello_read(struct file *file, char __user *to, size_t count, loff_t *position)
{
	return simple_read_from_buffer(to, count, position, greeting, strlen(greeting));
}

static const struct file_operations hello_ops = {
	.owner	= THIS_MODULE,
	.read	= hello_read,
};

static struct miscdevice hello_device = {
	.minor	= MISC_DYNAMIC_MINOR,
	.name	= "hello",
	.fops	= &hello_ops,
	.mode	= 0444,
};

static int __init hello_init(void)
{
	if (!*name || strlen(name) > LONGEST) {
		pr_err("name must have 1 to %d bytes\n", LONGEST);
		return -EINVAL;
	}
	snprintf(greeting, sizeof(greeting), "hello, %s\n", name);
	return misc_register(&hello_device);
}

static void __exit hello_exit(void)
{
	misc_deregister(&hello_device);
}

module_init(hello_init);
module_exit(hello_exit);

MODULE_DESCRIPTION("Greets whoever reads its device");
MODULE_LICENSE("GPL");
