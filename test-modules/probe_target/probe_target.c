// SPDX-License-Identifier: GPL-2.0
/*
 * probe_target: functions of known behaviour for probes to sit on, called through
 * /proc/probe_target.
 *
 * A command is one line written to the file; numbers are decimal, or hexadecimal with 0x:
 *
 *   sum A B C                 int probe_target_sum(int a, int b, int c): the sum
 *   long A B                  long probe_target_long(long a, long b): a - b
 *   u64 A B                   u64 probe_target_u64(u64 a, u32 b): a + b
 *   pointer P                 void *probe_target_pointer(void *p): p, which is never followed
 *   string TEXT               int probe_target_string(const char *text): its length
 *   eight A B C D E F G H     long probe_target_eight(8 times long): a + 2*b + 3*c ... + 8*h
 *   mixed A B C D E TEXT      long probe_target_mixed(u8 a, s16 b, int c, u64 d, long e,
 *                             const char *text): the sum of the numbers and of the text's length
 *   recurse DEPTH             int probe_target_recurse(int depth): calls itself down to depth 0;
 *                             depth.  At most 50, which makes 51 calls
 *   slow US                   int probe_target_slow(int us): sleeps at least that long; us.  At
 *                             most 2000000
 *   fail ERRNO                int probe_target_fail(int number): -number, which the result shows
 *   inner A                   int probe_target_inner(int a): a + 1.  An instruction inside it, a
 *                             nop, is at inner_offset from its start
 *   many THREADS TIMES [US]   int probe_target_many(int us): from each of several kernel threads at
 *                             once, so many times each.  A call sleeps at least US microseconds;
 *                             the result is the number of calls.  At most 64 threads, 100000 times
 *
 * A write answers EINVAL where the line is not such a command, or breaks a limit.  Several writers'
 * commands run concurrently.
 *
 * int probe_target_init(int a), a + 1, is called with 41 once, while the module is being loaded.
 * Its code is gone afterwards, but on ppc64, which keeps it (module_init_section() in
 * arch/powerpc/kernel/module_64.c).
 *
 * The file, mode 0600, reads as key=value lines: command, the last one done; result, in decimal,
 * and result_hex; inner_offset; addr_COMMAND, for each command, the address of its function's first
 * instruction that every call executes; addr_init, the same.  No parameters.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/completion.h>
#include <linux/delay.h>
#include <linux/err.h>
#include <linux/init.h>
#include <linux/kthread.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/proc_fs.h>
#include <linux/sched.h>
#include <linux/seq_file.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <linux/uaccess.h>

#include "kmodlab_compat.h"
#include "kmodlab_target.h"

#define MAX_LINE	256
#define MAX_NUMBERS	8
#define MAX_DEPTH	50
#define MAX_US		2000000
#define MAX_THREADS	64
#define MAX_TIMES	100000

static TARGET int probe_target_sum(int a, int b, int c)
{
	int result = a + b + c;

	OPAQUE(result);
	return result;
}

static TARGET long probe_target_long(long a, long b)
{
	long result = a - b;

	OPAQUE(result);
	return result;
}

static TARGET u64 probe_target_u64(u64 a, u32 b)
{
	u64 result = a + b;

	OPAQUE(result);
	return result;
}

static TARGET void *probe_target_pointer(void *p)
{
	OPAQUE(p);
	return p;
}

static TARGET int probe_target_string(const char *text)
{
	int result = strlen(text);

	OPAQUE(result);
	return result;
}

static TARGET long probe_target_eight(long a, long b, long c, long d, long e, long f, long g,
				      long h)
{
	long result = a + 2 * b + 3 * c + 4 * d + 5 * e + 6 * f + 7 * g + 8 * h;

	OPAQUE(result);
	return result;
}

static TARGET long probe_target_mixed(u8 a, s16 b, int c, u64 d, long e, const char *text)
{
	long result = a + b + c + (long)d + e + (long)strlen(text);

	OPAQUE(result);
	return result;
}

static TARGET int probe_target_recurse(int depth)
{
	int result = 0;

	if (depth > 0)
		result = probe_target_recurse(depth - 1) + 1;
	OPAQUE(result);
	return result;
}

static TARGET int probe_target_slow(int us)
{
	usleep_range(us, us + us / 8 + 1);
	OPAQUE(us);
	return us;
}

static TARGET int probe_target_fail(int number)
{
	int result = -number;

	OPAQUE(result);
	return result;
}

extern const u32 probe_target_inner_offset;

static CALLED int probe_target_inner(int a)
{
	INNER_INSTRUCTION(probe_target_inner, probe_target_inner_offset, a);
	return a + 1;
}

static TARGET int probe_target_many(int us)
{
	if (us)
		usleep_range(us, us + us / 8 + 1);
	OPAQUE(us);
	return us;
}

static TARGET int __init probe_target_init(int a)
{
	OPAQUE(a);
	return a + 1;
}

/* The threads of one `many`. */
struct crowd {
	struct task_struct *threads[MAX_THREADS];
	struct completion start;
	struct completion done;		/* completed once by each thread */
	int times;
	int us;
};

static int crowd_thread(void *data)
{
	struct crowd *crowd = data;
	int i;

	wait_for_completion(&crowd->start);
	for (i = 0; i < crowd->times && !kthread_should_stop(); i++) {
		probe_target_many(crowd->us);
		cond_resched();
	}
	complete(&crowd->done);

	/* Stay until stopped: the stopping waits until this thread has left the module's code. */
	set_current_state(TASK_INTERRUPTIBLE);
	while (!kthread_should_stop()) {
		schedule();
		set_current_state(TASK_INTERRUPTIBLE);
	}
	__set_current_state(TASK_RUNNING);
	return 0;
}

static int crowd_run(struct crowd *crowd, int threads)
{
	int created, i, error = 0;

	for (created = 0; created < threads; created++) {
		struct task_struct *thread;

		thread = kthread_run(crowd_thread, crowd, "probe_target/%d", created);
		if (IS_ERR(thread)) {
			error = PTR_ERR(thread);
			crowd->times = 0;
			break;
		}
		crowd->threads[created] = thread;
	}
	complete_all(&crowd->start);
	for (i = 0; i < created && !error; i++)
		error = wait_for_completion_interruptible(&crowd->done);
	for (i = 0; i < created; i++)
		kthread_stop(crowd->threads[i]);
	return error;
}

static int run_sum(const s64 *v, const char *text, s64 *result)
{
	*result = probe_target_sum(v[0], v[1], v[2]);
	return 0;
}

static int run_long(const s64 *v, const char *text, s64 *result)
{
	*result = probe_target_long(v[0], v[1]);
	return 0;
}

static int run_u64(const s64 *v, const char *text, s64 *result)
{
	*result = probe_target_u64(v[0], v[1]);
	return 0;
}

static int run_pointer(const s64 *v, const char *text, s64 *result)
{
	*result = (unsigned long)probe_target_pointer((void *)(unsigned long)v[0]);
	return 0;
}

static int run_string(const s64 *v, const char *text, s64 *result)
{
	*result = probe_target_string(text);
	return 0;
}

static int run_eight(const s64 *v, const char *text, s64 *result)
{
	*result = probe_target_eight(v[0], v[1], v[2], v[3], v[4], v[5], v[6], v[7]);
	return 0;
}

static int run_mixed(const s64 *v, const char *text, s64 *result)
{
	*result = probe_target_mixed(v[0], v[1], v[2], v[3], v[4], text);
	return 0;
}

static int run_recurse(const s64 *v, const char *text, s64 *result)
{
	if (v[0] < 0 || v[0] > MAX_DEPTH)
		return -EINVAL;
	*result = probe_target_recurse(v[0]);
	return 0;
}

static int run_slow(const s64 *v, const char *text, s64 *result)
{
	if (v[0] < 0 || v[0] > MAX_US)
		return -EINVAL;
	*result = probe_target_slow(v[0]);
	return 0;
}

static int run_fail(const s64 *v, const char *text, s64 *result)
{
	if (v[0] < 0 || v[0] > MAX_ERRNO)
		return -EINVAL;
	*result = probe_target_fail(v[0]);
	return 0;
}

static int run_inner(const s64 *v, const char *text, s64 *result)
{
	*result = probe_target_inner(v[0]);
	return 0;
}

static int run_many(const s64 *v, const char *text, s64 *result)
{
	struct crowd *crowd;
	int error;

	if (v[0] < 1 || v[0] > MAX_THREADS || v[1] < 1 || v[1] > MAX_TIMES ||
	    v[2] < 0 || v[2] > MAX_US)
		return -EINVAL;
	crowd = kzalloc(sizeof(*crowd), GFP_KERNEL);
	if (!crowd)
		return -ENOMEM;
	init_completion(&crowd->start);
	init_completion(&crowd->done);
	crowd->times = v[1];
	crowd->us = v[2];
	error = crowd_run(crowd, v[0]);
	kfree(crowd);
	*result = v[0] * v[1];
	return error;
}

static const struct command {
	const char *name;
	void *function;
	int (*run)(const s64 *v, const char *text, s64 *result);
	int least;	/* numbers */
	int most;
	bool text;	/* a word after the numbers */
} commands[] = {
	{ "sum", probe_target_sum, run_sum, 3, 3, false },
	{ "long", probe_target_long, run_long, 2, 2, false },
	{ "u64", probe_target_u64, run_u64, 2, 2, false },
	{ "pointer", probe_target_pointer, run_pointer, 1, 1, false },
	{ "string", probe_target_string, run_string, 0, 0, true },
	{ "eight", probe_target_eight, run_eight, 8, 8, false },
	{ "mixed", probe_target_mixed, run_mixed, 5, 5, true },
	{ "recurse", probe_target_recurse, run_recurse, 1, 1, false },
	{ "slow", probe_target_slow, run_slow, 1, 1, false },
	{ "fail", probe_target_fail, run_fail, 1, 1, false },
	{ "inner", probe_target_inner, run_inner, 1, 1, false },
	{ "many", probe_target_many, run_many, 2, 3, false },
};

/* The last command that was done. */
static char last_line[MAX_LINE];
static s64 last_result;
static DEFINE_MUTEX(last_lock);

static unsigned long init_address;

static int parse_number(const char *word, s64 *number)
{
	return word[0] == '-' ? kstrtoll(word, 0, number) : kstrtoull(word, 0, (u64 *)number);
}

static int run_words(int count, char **words, s64 *result)
{
	const struct command *command = commands;
	const struct command *end = commands + ARRAY_SIZE(commands);
	s64 numbers[MAX_NUMBERS] = { 0 };
	int i, given;

	while (command < end && (!count || strcmp(command->name, words[0])))
		command++;
	if (command == end)
		return -EINVAL;
	given = count - 1 - command->text;
	if (given < command->least || given > command->most)
		return -EINVAL;
	for (i = 0; i < given; i++)
		if (parse_number(words[1 + i], &numbers[i]))
			return -EINVAL;
	return command->run(numbers, words[count - 1], result);
}

static int run_line(const char *line)
{
	int count, error;
	s64 result = 0;
	char **words = argv_split(GFP_KERNEL, line, &count);

	if (!words)
		return -ENOMEM;
	error = run_words(count, words, &result);
	argv_free(words);
	if (error)
		return error;
	mutex_lock(&last_lock);
	strscpy(last_line, line, sizeof(last_line));
	last_result = result;
	mutex_unlock(&last_lock);
	return 0;
}

static ssize_t probe_target_write(struct file *file, const char __user *from, size_t count,
				  loff_t *position)
{
	char *line;
	int error;

	if (count >= MAX_LINE)
		return -EINVAL;
	line = memdup_user_nul(from, count);
	if (IS_ERR(line))
		return PTR_ERR(line);
	error = run_line(strim(line));
	kfree(line);
	return error ? error : count;
}

static int probe_target_show(struct seq_file *file, void *unused)
{
	const struct command *command;

	mutex_lock(&last_lock);
	seq_printf(file, "command=%s\nresult=%lld\nresult_hex=0x%llx\n", last_line, last_result,
		   last_result);
	mutex_unlock(&last_lock);
	seq_printf(file, "inner_offset=%u\n", probe_target_inner_offset);
	for (command = commands; command < commands + ARRAY_SIZE(commands); command++)
		seq_printf(file, "addr_%s=0x%lx\n", command->name,
			   kmodlab_text_address(command->function));
	seq_printf(file, "addr_init=0x%lx\n", init_address);
	return 0;
}

static int probe_target_open(struct inode *inode, struct file *file)
{
	return single_open(file, probe_target_show, NULL);
}

static const struct proc_ops probe_target_ops = {
	.proc_open	= probe_target_open,
	.proc_read	= seq_read,
	.proc_lseek	= seq_lseek,
	.proc_write	= probe_target_write,
	.proc_release	= single_release,
};

static int __init probe_target_module_init(void)
{
	init_address = kmodlab_text_address(probe_target_init);
	if (!proc_create("probe_target", 0600, NULL, &probe_target_ops))
		return -ENOMEM;
	pr_info("loaded init=%d\n", probe_target_init(41));
	return 0;
}

static void __exit probe_target_module_exit(void)
{
	remove_proc_entry("probe_target", NULL);
	pr_info("unloaded\n");
}

module_init(probe_target_module_init);
module_exit(probe_target_module_exit);
MODULE_DESCRIPTION("functions of known behaviour for probes to sit on");
MODULE_LICENSE("GPL");
