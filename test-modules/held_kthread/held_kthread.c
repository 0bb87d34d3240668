// SPDX-License-Identifier: GPL-2.0
/*
 * held_kthread: a kernel thread that holds the module it runs in.
 *
 * The thread takes the reference when it starts, and gives it back when it is told to stop; it
 * sleeps in between.
 *
 * Parameters:
 *   name     the thread's name
 *   running  Y while the thread runs; written N, stops it, and returns when it has gone; written Y,
 *            starts it again
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/completion.h>
#include <linux/err.h>
#include <linux/init.h>
#include <linux/kthread.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/sched.h>

static char *name = "held_kthread";
module_param(name, charp, 0444);
MODULE_PARM_DESC(name, "name of the kernel thread (default: held_kthread)");

static struct task_struct *thread;
static bool running = true;
static bool loaded;
static DECLARE_COMPLETION(holding);
static DEFINE_MUTEX(lock);	/* of thread, running and loaded */

static int held_kthread(void *unused)
{
	/* Whoever starts the thread stays in this module's code, and so keeps it, until now. */
	__module_get(THIS_MODULE);
	pr_info("holding pid=%d\n", current->pid);
	complete(&holding);
	set_current_state(TASK_INTERRUPTIBLE);
	while (!kthread_should_stop()) {
		schedule();
		set_current_state(TASK_INTERRUPTIBLE);
	}
	__set_current_state(TASK_RUNNING);
	/* Whoever stops the thread waits until it has left this module's code. */
	module_put(THIS_MODULE);
	return 0;
}

static int start(void)
{
	struct task_struct *started = kthread_run(held_kthread, NULL, "%s", name);

	if (IS_ERR(started))
		return PTR_ERR(started);
	wait_for_completion(&holding);
	thread = started;
	return 0;
}

static void stop(void)
{
	kthread_stop(thread);
	thread = NULL;
	pr_info("released\n");
}

static int set_running(const char *value, const struct kernel_param *param)
{
	bool wanted;
	int error = kstrtobool(value, &wanted);

	if (error)
		return error;
	mutex_lock(&lock);
	if (loaded && wanted && !thread)
		error = start();
	else if (loaded && !wanted && thread)
		stop();
	if (!error)
		running = wanted;
	mutex_unlock(&lock);
	return error;
}

static const struct kernel_param_ops running_ops = {
	.set	= set_running,
	.get	= param_get_bool,
};
module_param_cb(running, &running_ops, &running, 0644);
MODULE_PARM_DESC(running, "whether the thread runs (default: Y); written, starts or stops it");

static int __init held_kthread_init(void)
{
	int error = 0;

	mutex_lock(&lock);
	loaded = true;
	if (running)
		error = start();
	mutex_unlock(&lock);
	return error;
}

static void __exit held_kthread_exit(void)
{
	/* Only a forced removal comes here with the thread running. */
	if (thread)
		stop();
	pr_info("unloaded\n");
}

module_init(held_kthread_init);
module_exit(held_kthread_exit);
MODULE_DESCRIPTION("a kernel thread that holds the module it runs in");
MODULE_LICENSE("GPL");
