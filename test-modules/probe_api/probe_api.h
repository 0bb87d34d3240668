/* SPDX-License-Identifier: GPL-2.0 */
/* What the parts of probe_api share. */
#ifndef PROBE_API_H
#define PROBE_API_H

#include <linux/kprobes.h>
#include <linux/types.h>

struct test {
	const char *name;
	void (*run)(void);
	bool warns;	/* makes the kernel warn: not part of "all" */
};

#define TEST(name)		{ #name, name, false }
#define WARNING_TEST(name)	{ #name, name, true }

/* Ends with a test without a name. */
extern const struct test kprobe_tests[];
extern const struct test kretprobe_tests[];

/* The current test fails, and says so, unless both are equal. */
#define EXPECT(what, expected)	expect(#what, (what), (expected))
void expect(const char *what, long got, long expected);

/* The current test is skipped, for a reason that is not copied. */
void skip(const char *reason);

/* While the module is being loaded, and when it goes: a kprobe on init code. */
void probe_init_code(void);
void unprobe_init_code(void);

/* A kprobe that counts. */
struct counted {
	struct kprobe kp;
	int pre;
	int post;
	bool disordered;	/* a post handler ran without the pre handler before it */
};

int count_pre(struct kprobe *kp, struct pt_regs *regs);
void count_post(struct kprobe *kp, struct pt_regs *regs, unsigned long flags);

#define COUNTED(symbol)									\
	{ .kp = { .symbol_name = symbol, .pre_handler = count_pre, .post_handler = count_post } }

/* As COUNTED, without the post handler: with one, the kernel treats a probe differently. */
#define COUNTED_PRE(symbol)								\
	{ .kp = { .symbol_name = symbol, .pre_handler = count_pre } }

/* Functions to probe: the argument plus 1, 2, 3, 4; the depth. */
int probe_api_target(int a);
int probe_api_other(int a);
int probe_api_notrace(int a);
int probe_api_nokprobe(int a);
int probe_api_recurse(int depth);

/* The argument plus 5, with an instruction inside it to probe. */
int probe_api_inner(int a);
extern const u32 probe_api_inner_offset;

#endif
