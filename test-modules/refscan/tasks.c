// SPDX-License-Identifier: GPL-2.0
/* refscan: tasks, their open files and mappings, and kernel threads. */
#include <linux/blkdev.h>
#include <linux/cdev.h>
#include <linux/debugfs.h>
#include <linux/fdtable.h>
#include <linux/file.h>
#include <linux/fs_struct.h>
#include <linux/kthread.h>
#include <linux/magic.h>
#include <linux/mm.h>
#include <linux/net.h>
#include <linux/rcupdate.h>
#include <linux/version.h>
#include <linux/vmalloc.h>
#include <net/sock.h>
/* v4.11 split linux/sched.h. */
#if LINUX_VERSION_CODE >= KERNEL_VERSION(4, 11, 0)
#include <linux/sched/mm.h>
#include <linux/sched/signal.h>
#include <linux/sched/task.h>
#else
#include <linux/sched.h>
#endif

#include "kmodlab_compat.h"
#include "refscan.h"

/* Where a file was found: a descriptor of a task, or a mapping. */
struct place {
	struct scan *scan;
	const char *kind;
	int pid, tid;
	char comm[TASK_COMM_LEN];
	unsigned int fd;
	const struct vm_area_struct *vma;
};

static void add_task(const struct place *place)
{
	seq_printf(place->scan->to, " pid=%d tid=%d", place->pid, place->tid);
	add_word(place->scan, "comm", place->comm);
}

/* The number of an open file, from 1, and whether it was shown before. */
static unsigned int file_number(struct scan *scan, struct file *file, bool *known)
{
	unsigned int at;

	for (at = 0; at < scan->files && scan->file[at] != file; at++)
		;
	*known = at < scan->files;
	if (!*known && scan->files < MAX_SHOWN)
		scan->file[scan->files++] = file;
	return at + 1;
}

static void show_file(const struct place *place, struct file *file, const struct sock *sk,
		      const char *via, unsigned int refs, unsigned int number)
{
	struct scan *scan = place->scan;

	if (!begin_holder(scan, place->kind, via, refs))
		return;
	add_task(place);
	if (place->vma)
		seq_printf(scan->to, " start=%lx end=%lx", place->vma->vm_start, place->vma->vm_end);
	else
		seq_printf(scan->to, " fd=%u", place->fd);
	seq_printf(scan->to, " file=%u path=", number);
	seq_file_path(scan->to, file, ESCAPED);
	if (sk) {
		seq_printf(scan->to, " family=%u", sk->sk_family);
		add_word(scan, "protocol", sk->sk_prot_creator->name);
	}
	end_holder(scan);
}

static struct socket *file_socket(struct file *file)
{
/* v5.11, dba4a9256bb4 ("net: Remove the err argument from sock_from_file") */
#if kernel_before(5, 11)
	int error;

	return sock_from_file(file, &error);
#else
	return sock_from_file(file);
#endif
}

/*
 * The owner of an open file of debugfs, whose own operations stand between: it takes a reference at
 * open and gives it back at release (fs/debugfs/file.c, full_proxy_open).  Without operations there
 * is no such file's data, and bit 0 of the pointer is set (v4.15, 7d39bc50c47b "debugfs: defer
 * debugfs_fsdata allocation to first usage").  debugfs_real_fops() is gone in 6.17 (d9bc88aa54d6);
 * kernels from 6.14 on have not been tried.
 */
static const struct module *debugfs_owner(struct file *file)
{
#if IS_ENABLED(CONFIG_DEBUG_FS) && !kernel_before(4, 15) && kernel_before(6, 14)
	struct inode *inode = file_inode(file);
	const void *data = READ_ONCE(file->f_path.dentry->d_fsdata);
	const struct file_operations *real;

	if (inode->i_sb->s_magic != DEBUGFS_MAGIC || !S_ISREG(inode->i_mode))
		return NULL;
	if (!data || (unsigned long)data & 1)
		return NULL;
	real = debugfs_real_fops(file);
	/* Those that debugfs does not stand before are the file's own. */
	return real && real != file->f_op ? real->owner : NULL;
#else
	return NULL;
#endif
}

/*
 * Shows an open file that belongs to the module, once for each way in which it does.  The caller
 * keeps the file from being closed, and may hold a spinlock.
 */
static void check_file(const struct place *place, struct file *file)
{
	struct scan *scan = place->scan;
	struct module *module = scan->module;
	struct inode *inode = file_inode(file);
	struct socket *socket = file_socket(file);
	const struct sock *sk = socket ? READ_ONCE(socket->sk) : NULL;
	const struct proto_ops *ops = socket ? READ_ONCE(socket->ops) : NULL;
	bool by_ops = file->f_op->owner == module;
	bool by_device = S_ISCHR(inode->i_mode) && inode->i_cdev && inode->i_cdev->owner == module;
	bool by_disk = S_ISBLK(inode->i_mode) && I_BDEV(file->f_mapping->host)->bd_disk &&
		       I_BDEV(file->f_mapping->host)->bd_disk->fops->owner == module;
	bool by_socket = ops && ops->owner == module;
	bool by_protocol = sk && sk->sk_prot_creator && sk->sk_prot_creator->owner == module;
	bool by_debugfs = debugfs_owner(file) == module;
	bool by_fs = inode->i_sb->s_type->owner == module;
	bool unowned = !by_ops && in_module(scan, file->f_op);
	unsigned int number, refs;
	bool known;

	if (!(by_ops || by_device || by_disk || by_socket || by_protocol || by_debugfs ||
	      by_fs || unowned))
		return;
	number = file_number(scan, file, &known);
	/* One open file has its references once, however many descriptors and mappings there are. */
	refs = known ? 0 : 1;
	if (by_ops)
		show_file(place, file, sk, "operations", refs, number);
	if (by_device)
		show_file(place, file, sk, "device", refs, number);
	if (by_disk)
		show_file(place, file, sk, "disk", refs, number);
	if (by_socket)
		show_file(place, file, sk, "socket", refs, number);
	if (by_protocol)
		show_file(place, file, sk, "protocol", refs, number);
	if (by_debugfs)
		show_file(place, file, sk, "debugfs", refs, number);
	/* The mount has the reference of a file system; operations without an owner have none. */
	if (by_fs)
		show_file(place, file, sk, "filesystem", 0, number);
	if (unowned)
		show_file(place, file, sk, "unowned", 0, number);
}

static int check_descriptor(const void *data, struct file *file, unsigned int fd)
{
	struct place place = *(const struct place *)data;

	place.fd = fd;
	check_file(&place, file);
	return 0;
}

/*
 * task_lock() keeps the table from going, iterate_fd() holds its lock, and so a file in it is not
 * closed meanwhile.
 */
static void check_descriptors(struct place *place, struct task_struct *task,
			      const struct files_struct **last)
{
	place->kind = "file";
	place->vma = NULL;
	task_lock(task);
	if (task->files && task->files != *last)
		iterate_fd(task->files, 0, check_descriptor, place);
	*last = task->files;
	task_unlock(task);
}

/* A working directory in a file system of the module keeps it mounted. */
static void check_directories(struct place *place, struct task_struct *task)
{
	struct scan *scan = place->scan;
	bool works = false, lives = false;

	task_lock(task);
	if (task->fs) {
		spin_lock(&task->fs->lock);
		works = task->fs->pwd.dentry->d_sb->s_type->owner == scan->module;
		lives = task->fs->root.dentry->d_sb->s_type->owner == scan->module;
		spin_unlock(&task->fs->lock);
	}
	task_unlock(task);
	if (works && begin_holder(scan, "cwd", "filesystem", 0)) {
		add_task(place);
		end_holder(scan);
	}
	if (lives && begin_holder(scan, "root", "filesystem", 0)) {
		add_task(place);
		end_holder(scan);
	}
}

static void check_mapping(struct place *place, const struct vm_area_struct *vma)
{
	struct scan *scan = place->scan;

	place->vma = vma;
	if (vma->vm_file)
		check_file(place, vma->vm_file);
	if (in_module(scan, vma->vm_ops) && begin_holder(scan, place->kind, "vm_ops", 0)) {
		add_task(place);
		seq_printf(scan->to, " start=%lx end=%lx", vma->vm_start, vma->vm_end);
		end_holder(scan);
	}
}

/* The lock may be slept for, so that the memory is held meanwhile. */
static void check_mappings(struct place *place, struct task_struct *task,
			   const struct mm_struct **last)
{
	struct mm_struct *mm = get_task_mm(task);
	struct vm_area_struct *vma;

	if (!mm)
		return;
	place->kind = "mapping";
/* v5.8, d8ed45c5dcd4 ("mmap locking API: use coccinelle to convert mmap_sem rwsem call sites") */
#if kernel_before(5, 8)
	down_read(&mm->mmap_sem);
#else
	mmap_read_lock(mm);
#endif
	if (mm != *last) {
/* v6.1, 763ecb035029 ("mm: remove the vma linked list") */
#if kernel_before(6, 1)
		for (vma = mm->mmap; vma; vma = vma->vm_next)
			check_mapping(place, vma);
#else
		VMA_ITERATOR(each, mm, 0);

		for_each_vma(each, vma)
			check_mapping(place, vma);
#endif
	}
#if kernel_before(5, 8)
	up_read(&mm->mmap_sem);
#else
	mmap_read_unlock(mm);
#endif
	*last = mm;
	mmput(mm);
}

/* v5.12, 596ff4a09b89 made it so: kthread_func() is exported to modules. */
#if kernel_before(5, 12)
#define KNOWS_THREADS	false
static inline void check_thread(struct place *place, struct task_struct *task) { }
#else
#define KNOWS_THREADS	true
static void check_thread(struct place *place, struct task_struct *task)
{
	void *function = kthread_func(task);

	/* One that ends has left its function, and whoever stopped it may go on before it is gone. */
	if (task->flags & PF_EXITING || !in_module(place->scan, function))
		return;
	if (!begin_holder(place->scan, "thread", "function", 0))
		return;
	add_task(place);
	seq_printf(place->scan->to, " function=%ps", function);
	end_holder(place->scan);
}
#endif

/* All tasks there are, held, threads of a process one after the other; the caller frees them. */
static struct task_struct **all_tasks(unsigned int *count)
{
	struct task_struct *process, *task, **tasks;
	unsigned int room = 0;

	rcu_read_lock();
	for_each_process_thread(process, task)
		room++;
	rcu_read_unlock();
	/* For those that come before the second look. */
	room += room / 4 + 64;
	tasks = vmalloc(room * sizeof(*tasks));
	*count = 0;
	if (!tasks)
		return NULL;
	rcu_read_lock();
	for_each_process_thread(process, task) {
		if (*count < room) {
			get_task_struct(task);
			tasks[(*count)++] = task;
		}
	}
	rcu_read_unlock();
	return tasks;
}

void scan_tasks(struct scan *scan)
{
	const struct files_struct *files = NULL;
	const struct mm_struct *mm = NULL;
	struct place place = { .scan = scan };
	unsigned int count, at;
	struct task_struct **tasks = all_tasks(&count);

	if (!tasks) {
		not_scanned(scan, "file", "memory");
		return;
	}
	if (!KNOWS_THREADS)
		not_scanned(scan, "thread", "kernel");
	for (at = 0; at < count; at++) {
		struct task_struct *task = tasks[at];

		/* What the threads of a process share is shown for the first. */
		if (task->tgid != place.pid) {
			files = NULL;
			mm = NULL;
		}
		place.pid = task->tgid;
		place.tid = task->pid;
		memcpy(place.comm, task->comm, sizeof(place.comm));
		place.comm[sizeof(place.comm) - 1] = 0;
		if (task->flags & PF_KTHREAD) {
			check_thread(&place, task);
		} else {
			check_descriptors(&place, task, &files);
			check_directories(&place, task);
			check_mappings(&place, task, &mm);
		}
		put_task_struct(task);
		cond_resched();
	}
	vfree(tasks);
}
