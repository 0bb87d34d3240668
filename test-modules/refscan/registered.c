// SPDX-License-Identifier: GPL-2.0
/* refscan: what is registered with the kernel: file systems, network interfaces, dependents. */
#include <linux/blkdev.h>
#include <linux/device.h>
#include <linux/err.h>
#include <linux/kobject.h>
#include <linux/netdevice.h>
#include <linux/rcupdate.h>
#include <linux/slab.h>
#include <net/net_namespace.h>
#include <net/rtnetlink.h>
#include <net/sch_generic.h>

#include "kmodlab_compat.h"
#include "refscan.h"

#define MAX_TYPES	128

static void check_mount(struct super_block *sb, void *data)
{
	struct scan *scan = data;
	const char *vias[] = {
		sb->s_type->owner == scan->module ? "filesystem" : NULL,
		sb->s_bdev && sb->s_bdev->bd_disk &&
		sb->s_bdev->bd_disk->fops->owner == scan->module ? "disk" : NULL,
	};
	unsigned int at;

	for (at = 0; at < ARRAY_SIZE(vias); at++) {
		if (!vias[at] || !begin_holder(scan, "mount", vias[at], 1))
			continue;
		add_word(scan, "type", sb->s_type->name);
		add_word(scan, "source", sb->s_id);
		end_holder(scan);
	}
}

/*
 * The list of file systems has a lock of its own that modules cannot take.  It is a chain from the
 * first on, which is sysfs and always there; unregister_filesystem() waits for readers of RCU
 * before its module is freed.  To sleep, hold the modules' directories (see main.c).
 */
static unsigned int all_types(struct file_system_type **types, struct scan *scan)
{
	struct file_system_type *type = get_fs_type("sysfs");
	unsigned int count = 0;

	rcu_read_lock();
	for (; type; type = READ_ONCE(type->next)) {
		if (count == MAX_TYPES) {
			not_scanned(scan, "mount", "limit");
			break;
		}
		if (type->owner && !kobject_get_unless_zero(&type->owner->mkobj.kobj))
			continue;
		types[count++] = type;
	}
	rcu_read_unlock();
	return count;
}

void scan_mounts(struct scan *scan)
{
	struct file_system_type **types = kcalloc(MAX_TYPES, sizeof(*types), GFP_KERNEL);
	unsigned int count, at;

	if (!types) {
		not_scanned(scan, "mount", "memory");
		return;
	}
	count = all_types(types, scan);
	for (at = 0; at < count; at++) {
		struct module *owner = types[at]->owner;

		iterate_supers_type(types[at], check_mount, scan);
		if (owner)
			kobject_put(&owner->mkobj.kobj);
	}
	kfree(types);
}

static void show_interface(struct scan *scan, struct net_device *device, const char *via,
			   unsigned int refs)
{
	if (!begin_holder(scan, "interface", via, refs))
		return;
	add_word(scan, "name", device->name);
	end_holder(scan);
}

static void check_qdisc(struct scan *scan, struct net_device *device, const struct Qdisc *qdisc)
{
	if (qdisc && qdisc->ops->owner == scan->module)
		show_interface(scan, device, "qdisc", 1);
}

/* Called in an RCU section: an interface in the list keeps its parent, and that its driver. */
static void check_interface(struct scan *scan, struct net_device *device)
{
	const struct Qdisc *root = (const struct Qdisc __force *)READ_ONCE(device->qdisc);
	struct device *parent = device->dev.parent;
	struct device_driver *driver = parent ? READ_ONCE(parent->driver) : NULL;
	unsigned int at;

	if (driver && driver->owner == scan->module)
		show_interface(scan, device, "driver", 0);
	else if (in_module(scan, device->netdev_ops) || in_module(scan, device->rtnl_link_ops))
		show_interface(scan, device, "operations", 0);
	check_qdisc(scan, device, root);
	for (at = 0; at < device->real_num_tx_queues; at++) {
		const struct netdev_queue *queue = netdev_get_tx_queue(device, at);
		const struct Qdisc *qdisc = (const struct Qdisc __force *)READ_ONCE(queue->qdisc);

		if (qdisc != root)
			check_qdisc(scan, device, qdisc);
	}
}

void scan_interfaces(struct scan *scan)
{
	struct net_device *device;
	struct net *net;

	rcu_read_lock();
	for_each_net_rcu(net) {
		for_each_netdev_rcu(net, device)
			check_interface(scan, device);
	}
	rcu_read_unlock();
}

struct listing {
	struct dir_context context;
	struct scan *scan;
};

/* v6.1, 25885a35a720 ("Change calling conventions for filldir_t"): it was an int, 0 to go on. */
#if kernel_before(6, 1)
typedef int go_on;
#define GO_ON	0
#else
typedef bool go_on;
#define GO_ON	true
#endif

static go_on check_dependent(struct dir_context *context, const char *name, int length,
			     loff_t offset, u64 inode, unsigned int type)
{
	struct scan *scan = container_of(context, struct listing, context)->scan;
	char text[MODULE_NAME_LEN];

	if (name[0] == '.' || length >= sizeof(text))
		return GO_ON;
	memcpy(text, name, length);
	text[length] = 0;
	if (begin_holder(scan, "dependent", "symbols", 1)) {
		add_word(scan, "name", text);
		end_holder(scan);
	}
	return GO_ON;
}

/* The kernel's list of dependents is under module_mutex, out of modules' reach; sysfs has it too. */
void scan_dependents(struct scan *scan)
{
	struct listing listing = { .context.actor = check_dependent, .scan = scan };
	char *path = kasprintf(GFP_KERNEL, "/sys/module/%s/holders", scan->module->name);
	struct file *directory = path ? filp_open(path, O_RDONLY | O_DIRECTORY, 0) : ERR_PTR(-ENOMEM);

	kfree(path);
	if (IS_ERR(directory)) {
		not_scanned(scan, "dependent", "sysfs");
		return;
	}
	if (iterate_dir(directory, &listing.context))
		not_scanned(scan, "dependent", "sysfs");
	filp_close(directory, NULL);
}
