// SPDX-License-Identifier: GPL-2.0
/* Kretprobes, used well and badly. */
#include <linux/kprobes.h>

#include "kmodlab_compat.h"
#include "probe_api.h"

/* A kretprobe that counts, and keeps what its entry handler saw with the instance. */
struct counted_return {
	struct kretprobe rp;
	int entries;
	int returns;
	long value;		/* of the last return */
	bool disordered;	/* an instance's data was not what its entry handler wrote */
	bool refuse;		/* the entry handler asks for no return handler */
};

static int count_entry(struct kretprobe_instance *instance, struct pt_regs *regs)
{
	struct counted_return *counted = container_of(get_kretprobe(instance),
						      struct counted_return, rp);

	counted->entries++;
	*(int *)instance->data = counted->entries;
	return counted->refuse;
}

static int count_return(struct kretprobe_instance *instance, struct pt_regs *regs)
{
	struct counted_return *counted = container_of(get_kretprobe(instance),
						      struct counted_return, rp);

	/* Calls end in the opposite order: the last to enter is the first to return. */
	if (*(int *)instance->data != counted->entries - counted->returns)
		counted->disordered = true;
	counted->returns++;
	counted->value = regs_return_value(regs);
	return 0;
}

#define COUNTED_RETURN(symbol)								\
	{ .rp = { .kp.symbol_name = symbol, .entry_handler = count_entry,		\
		  .handler = count_return, .data_size = sizeof(int) } }

static int try_kretprobe(struct counted_return *counted)
{
	int error = register_kretprobe(&counted->rp);

	if (!error)
		unregister_kretprobe(&counted->rp);
	return error;
}

static void kretprobe_by_symbol(void)
{
	struct counted_return probe = COUNTED_RETURN("probe_api_target");

	EXPECT(register_kretprobe(&probe.rp), 0);
	EXPECT(probe.rp.maxactive > 0, true);
	EXPECT(probe_api_target(41), 42);
	unregister_kretprobe(&probe.rp);
	EXPECT(probe_api_target(1), 2);
	EXPECT(probe.entries, 1);
	EXPECT(probe.returns, 1);
	EXPECT(probe.value, 42);
	EXPECT(probe.disordered, false);
	EXPECT(probe.rp.nmissed, 0);
}

static void kretprobe_by_address(void)
{
	struct counted_return probe = COUNTED_RETURN(NULL);

	probe.rp.kp.addr = (kprobe_opcode_t *)kmodlab_text_address(probe_api_target);
	EXPECT(register_kretprobe(&probe.rp), 0);
	EXPECT(probe_api_target(1), 2);
	unregister_kretprobe(&probe.rp);
	EXPECT(probe.returns, 1);
}

static void kretprobe_entry_handler_refuses(void)
{
	struct counted_return probe = COUNTED_RETURN("probe_api_target");

	probe.refuse = true;
	EXPECT(register_kretprobe(&probe.rp), 0);
	EXPECT(probe_api_target(1), 2);
	unregister_kretprobe(&probe.rp);
	EXPECT(probe.entries, 1);
	EXPECT(probe.returns, 0);
	EXPECT(probe.rp.nmissed, 0);
}

static void kretprobe_recursion(void)
{
	struct counted_return probe = COUNTED_RETURN("probe_api_recurse");

	probe.rp.maxactive = 4;
	EXPECT(register_kretprobe(&probe.rp), 0);
	EXPECT(probe_api_recurse(3), 3);
	unregister_kretprobe(&probe.rp);
	EXPECT(probe.entries, 4);
	EXPECT(probe.returns, 4);
	EXPECT(probe.value, 3);
	EXPECT(probe.disordered, false);
	EXPECT(probe.rp.nmissed, 0);
}

static void kretprobe_maxactive_too_small(void)
{
	struct counted_return probe = COUNTED_RETURN("probe_api_recurse");

	probe.rp.maxactive = 1;
	EXPECT(register_kretprobe(&probe.rp), 0);
	EXPECT(probe_api_recurse(3), 3);
	unregister_kretprobe(&probe.rp);
	EXPECT(probe.entries, 1);
	EXPECT(probe.returns, 1);
	EXPECT(probe.rp.nmissed, 3);
}

static void kretprobe_disable_and_enable(void)
{
	struct counted_return probe = COUNTED_RETURN("probe_api_target");

	EXPECT(register_kretprobe(&probe.rp), 0);
	EXPECT(disable_kretprobe(&probe.rp), 0);
	EXPECT(probe_api_target(1), 2);
	EXPECT(probe.returns, 0);
	EXPECT(enable_kretprobe(&probe.rp), 0);
	EXPECT(probe_api_target(1), 2);
	unregister_kretprobe(&probe.rp);
	EXPECT(probe.returns, 1);
}

static void kretprobe_beside_kprobe(void)
{
	struct counted_return at_return = COUNTED_RETURN("probe_api_target");
	struct counted at_entry = COUNTED("probe_api_target");

	EXPECT(register_kprobe(&at_entry.kp), 0);
	EXPECT(register_kretprobe(&at_return.rp), 0);
	EXPECT(probe_api_target(1), 2);
	unregister_kprobe(&at_entry.kp);
	EXPECT(probe_api_target(1), 2);
	unregister_kretprobe(&at_return.rp);
	EXPECT(at_entry.pre, 1);
	EXPECT(at_return.returns, 2);
}

/*
 * ENOENT, but EINVAL from v4.12 ("kretprobes: Ensure probe location is at function entry") to v5.11,
 * 97c753e62e6c ("tracing/kprobe: Fix to support kretprobe events on unloaded modules"), which stable
 * kernels took too.
 */
static void kretprobe_no_such_symbol(void)
{
	struct counted_return probe = COUNTED_RETURN("probe_api_no_such_symbol");
	int error = try_kretprobe(&probe);

	if (!kernel_before(4, 12) && kernel_before(5, 11) && error == -EINVAL)
		return;
	EXPECT(error, -ENOENT);
}

static void kretprobe_symbol_and_address(void)
{
	struct counted_return probe = COUNTED_RETURN("probe_api_target");

	probe.rp.kp.addr = (kprobe_opcode_t *)kmodlab_text_address(probe_api_target);
	EXPECT(try_kretprobe(&probe), -EINVAL);
}

static void kretprobe_blacklisted(void)
{
	struct counted_return probe = COUNTED_RETURN("get_kprobe");

	EXPECT(try_kretprobe(&probe), -EINVAL);
}

static void kretprobe_not_at_entry(void)
{
	struct counted_return probe = COUNTED_RETURN("probe_api_inner");

	if (kernel_before(4, 12)) {
		skip("not checked before v4.12");
		return;
	}
	probe.rp.kp.offset = probe_api_inner_offset;
	EXPECT(try_kretprobe(&probe), -EINVAL);
}

/* v5.16 ("kprobes: Limit max data_size of the kretprobe instances"), and in stable kernels. */
static void kretprobe_too_much_data(void)
{
#ifdef KRETPROBE_MAX_DATA_SIZE
	struct counted_return probe = COUNTED_RETURN("probe_api_target");

	probe.rp.data_size = KRETPROBE_MAX_DATA_SIZE;
	EXPECT(try_kretprobe(&probe), 0);
	probe.rp.kp.addr = NULL;
	probe.rp.data_size = KRETPROBE_MAX_DATA_SIZE + 1;
	EXPECT(try_kretprobe(&probe), -E2BIG);
#else
	skip("no limit before v5.16");
#endif
}

static void kretprobe_disable_or_enable_unregistered(void)
{
	struct counted_return probe = COUNTED_RETURN(NULL);

	probe.rp.kp.addr = (kprobe_opcode_t *)kmodlab_text_address(probe_api_target);
	EXPECT(disable_kretprobe(&probe.rp), -EINVAL);
	EXPECT(enable_kretprobe(&probe.rp), -EINVAL);
}

static void kretprobe_unregister_unregistered(void)
{
	struct counted_return probe = COUNTED_RETURN(NULL);

	if (!kernel_before(5, 11)) {
		skip("the kernel follows a null pointer since v5.11, d741bf41d7c7");
		return;
	}
	probe.rp.kp.addr = (kprobe_opcode_t *)kmodlab_text_address(probe_api_target);
	unregister_kretprobe(&probe.rp);
	EXPECT(!probe.rp.kp.addr, true);
}

static void kretprobes_array(void)
{
	struct counted_return a = COUNTED_RETURN("probe_api_target");
	struct counted_return b = COUNTED_RETURN("probe_api_other");
	struct kretprobe *both[] = { &a.rp, &b.rp };

	EXPECT(register_kretprobes(both, 2), 0);
	EXPECT(probe_api_target(1), 2);
	EXPECT(probe_api_other(1), 3);
	unregister_kretprobes(both, 2);
	EXPECT(probe_api_other(1), 3);
	EXPECT(a.value, 2);
	EXPECT(b.value, 3);
	EXPECT(b.returns, 1);
}

static void kretprobes_array_last_fails(void)
{
	struct counted_return a = COUNTED_RETURN("probe_api_target");
	struct counted_return b = COUNTED_RETURN("get_kprobe");
	struct kretprobe *both[] = { &a.rp, &b.rp };

	EXPECT(register_kretprobes(both, 2), -EINVAL);
	EXPECT(probe_api_target(1), 2);
	EXPECT(a.entries, 0);
	EXPECT(disable_kretprobe(&a.rp), -EINVAL);
}

static void kretprobes_array_empty(void)
{
	struct counted_return probe = COUNTED_RETURN("probe_api_target");
	struct kretprobe *one[] = { &probe.rp };

	EXPECT(register_kretprobes(one, 0), -EINVAL);
	EXPECT(register_kretprobes(one, -1), -EINVAL);
	EXPECT(register_kretprobes(one, 1), 0);
	unregister_kretprobes(one, 0);
	unregister_kretprobes(one, -1);
	EXPECT(probe_api_target(1), 2);
	unregister_kretprobes(one, 1);
	EXPECT(probe.returns, 1);
}

const struct test kretprobe_tests[] = {
	TEST(kretprobe_by_symbol),
	TEST(kretprobe_by_address),
	TEST(kretprobe_entry_handler_refuses),
	TEST(kretprobe_recursion),
	TEST(kretprobe_maxactive_too_small),
	TEST(kretprobe_disable_and_enable),
	TEST(kretprobe_beside_kprobe),
	TEST(kretprobe_no_such_symbol),
	TEST(kretprobe_symbol_and_address),
	TEST(kretprobe_blacklisted),
	TEST(kretprobe_not_at_entry),
	TEST(kretprobe_too_much_data),
	TEST(kretprobe_disable_or_enable_unregistered),
	TEST(kretprobe_unregister_unregistered),
	TEST(kretprobes_array),
	TEST(kretprobes_array_last_fails),
	TEST(kretprobes_array_empty),
	{ }
};
