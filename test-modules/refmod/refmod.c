// SPDX-License-Identifier: GPL-2.0
/*
 * refmod: a character device that keeps its module in use while somebody has it open.
 *
 * The kernel takes the reference at open, through the owner in the file operations, and gives it
 * back when the last user of the open file is gone: a descriptor, or a mapping that outlives the
 * descriptor.  /dev/refmod, mode 0644, reads "refmod" and a newline, and maps as one read-only page
 * that starts with the same text.  Shells have no mmap(2): a write, of whatever text, maps the page
 * into the memory of the task that writes, through a descriptor that is open for reading too.  The
 * file refmod in debugfs reads the same.  No parameters.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/debugfs.h>
#include <linux/err.h>
#include <linux/fs.h>
#include <linux/gfp.h>
#include <linux/init.h>
#include <linux/miscdevice.h>
#include <linux/mm.h>
#include <linux/mman.h>
#include <linux/module.h>
#include <linux/string.h>

static const char text[] = "refmod\n";
static char *page;
static struct dentry *in_debugfs;

static ssize_t refmod_read(struct file *file, char __user *to, size_t count, loff_t *position)
{
	return simple_read_from_buffer(to, count, position, page, strlen(text));
}

static ssize_t refmod_write(struct file *file, const char __user *from, size_t count,
			    loff_t *position)
{
	unsigned long address = vm_mmap(file, 0, PAGE_SIZE, PROT_READ, MAP_SHARED, 0);

	return IS_ERR_VALUE(address) ? (ssize_t)address : count;
}

static int refmod_mmap(struct file *file, struct vm_area_struct *vma)
{
	return vm_insert_page(vma, vma->vm_start, virt_to_page(page));
}

static const struct file_operations refmod_ops = {
	.owner	= THIS_MODULE,
	.read	= refmod_read,
	.write	= refmod_write,
	.mmap	= refmod_mmap,
};

static struct miscdevice refmod_device = {
	.minor	= MISC_DYNAMIC_MINOR,
	.name	= "refmod",
	.fops	= &refmod_ops,
	.mode	= 0644,
};

static int __init refmod_init(void)
{
	int error;

	page = (char *)get_zeroed_page(GFP_KERNEL);
	if (!page)
		return -ENOMEM;
	memcpy(page, text, sizeof(text));
	error = misc_register(&refmod_device);
	if (error) {
		free_page((unsigned long)page);
		return error;
	}
	in_debugfs = debugfs_create_file("refmod", 0444, NULL, NULL, &refmod_ops);
	pr_info("loaded\n");
	return 0;
}

static void __exit refmod_exit(void)
{
	debugfs_remove(in_debugfs);
	misc_deregister(&refmod_device);
	free_page((unsigned long)page);
	pr_info("unloaded\n");
}

module_init(refmod_init);
module_exit(refmod_exit);
MODULE_DESCRIPTION("a character device that keeps its module in use while it is open");
MODULE_LICENSE("GPL");
