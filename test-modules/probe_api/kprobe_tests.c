// SPDX-License-Identifier: GPL-2.0
/* Kprobes, used well and badly. */
#include <linux/init.h>
#include <linux/kprobes.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#include "kmodlab_compat.h"
#include "kmodlab_target.h"
#include "probe_api.h"

int count_pre(struct kprobe *kp, struct pt_regs *regs)
{
	container_of(kp, struct counted, kp)->pre++;
	return 0;
}

void count_post(struct kprobe *kp, struct pt_regs *regs, unsigned long flags)
{
	struct counted *counted = container_of(kp, struct counted, kp);

	counted->post++;
	if (counted->post != counted->pre)
		counted->disordered = true;
}

/* Registers a probe for which an error is expected, and does not leave it behind. */
static int try_kprobe(struct counted *counted)
{
	int error = register_kprobe(&counted->kp);

	if (!error)
		unregister_kprobe(&counted->kp);
	return error;
}

static void kprobe_by_symbol(void)
{
	struct counted probe = COUNTED("probe_api_target");

	EXPECT(register_kprobe(&probe.kp), 0);
	EXPECT(probe_api_target(1), 2);
	EXPECT(probe_api_target(1), 2);
	unregister_kprobe(&probe.kp);
	EXPECT(probe_api_target(1), 2);
	EXPECT(probe.pre, 2);
	EXPECT(probe.post, 2);
	EXPECT(probe.disordered, false);
}

static void kprobe_by_symbol_and_offset(void)
{
	struct counted probe = COUNTED("probe_api_inner");

	probe.kp.offset = probe_api_inner_offset;
	EXPECT(register_kprobe(&probe.kp), 0);
	EXPECT(probe_api_inner(1), 6);
	unregister_kprobe(&probe.kp);
	EXPECT(probe.pre, 1);
	EXPECT(probe.post, 1);
}

static void kprobe_by_address(void)
{
	struct counted probe = COUNTED(NULL);

	probe.kp.addr = (kprobe_opcode_t *)kmodlab_text_address(probe_api_target);
	EXPECT(register_kprobe(&probe.kp), 0);
	EXPECT(probe_api_target(1), 2);
	unregister_kprobe(&probe.kp);
	EXPECT(probe.pre, 1);
	EXPECT(probe.post, 1);
}

static void kprobe_pre_handler_only(void)
{
	struct counted probe = COUNTED_PRE("probe_api_target");

	EXPECT(register_kprobe(&probe.kp), 0);
	EXPECT(probe_api_target(1), 2);
	unregister_kprobe(&probe.kp);
	EXPECT(probe.pre, 1);
}

static void kprobe_post_handler_only(void)
{
	struct counted probe = COUNTED("probe_api_target");

	probe.kp.pre_handler = NULL;
	EXPECT(register_kprobe(&probe.kp), 0);
	EXPECT(probe_api_target(1), 2);
	unregister_kprobe(&probe.kp);
	EXPECT(probe.post, 1);
}

static void kprobe_several_on_one_address(void)
{
	struct counted a = COUNTED("probe_api_target");
	struct counted b = COUNTED_PRE("probe_api_target");
	struct counted c = COUNTED("probe_api_target");

	EXPECT(register_kprobe(&a.kp), 0);
	EXPECT(register_kprobe(&b.kp), 0);
	EXPECT(register_kprobe(&c.kp), 0);
	EXPECT(probe_api_target(1), 2);
	unregister_kprobe(&a.kp);
	EXPECT(probe_api_target(1), 2);
	unregister_kprobe(&c.kp);
	unregister_kprobe(&b.kp);
	EXPECT(probe_api_target(1), 2);
	EXPECT(a.pre, 1);
	EXPECT(a.post, 1);
	EXPECT(b.pre, 2);
	EXPECT(c.pre, 2);
	EXPECT(c.post, 2);
}

static void kprobe_registered_disabled(void)
{
	struct counted probe = COUNTED("probe_api_target");

	probe.kp.flags = KPROBE_FLAG_DISABLED;
	EXPECT(register_kprobe(&probe.kp), 0);
	EXPECT(probe_api_target(1), 2);
	EXPECT(probe.pre, 0);
	EXPECT(enable_kprobe(&probe.kp), 0);
	EXPECT(probe_api_target(1), 2);
	unregister_kprobe(&probe.kp);
	EXPECT(probe.pre, 1);
}

static void kprobe_disable_and_enable(void)
{
	struct counted probe = COUNTED("probe_api_target");

	EXPECT(register_kprobe(&probe.kp), 0);
	EXPECT(disable_kprobe(&probe.kp), 0);
	EXPECT(disable_kprobe(&probe.kp), 0);
	EXPECT(probe_api_target(1), 2);
	EXPECT(probe.pre, 0);
	EXPECT(enable_kprobe(&probe.kp), 0);
	EXPECT(enable_kprobe(&probe.kp), 0);
	EXPECT(probe_api_target(1), 2);
	unregister_kprobe(&probe.kp);
	EXPECT(probe.pre, 1);
	EXPECT(probe.post, 1);
}

static void kprobe_disable_one_of_several(void)
{
	struct counted a = COUNTED_PRE("probe_api_target");
	struct counted b = COUNTED_PRE("probe_api_target");

	EXPECT(register_kprobe(&a.kp), 0);
	EXPECT(register_kprobe(&b.kp), 0);
	EXPECT(disable_kprobe(&a.kp), 0);
	EXPECT(probe_api_target(1), 2);
	EXPECT(a.pre, 0);
	EXPECT(b.pre, 1);
	EXPECT(disable_kprobe(&b.kp), 0);
	EXPECT(probe_api_target(1), 2);
	EXPECT(b.pre, 1);
	EXPECT(enable_kprobe(&a.kp), 0);
	EXPECT(probe_api_target(1), 2);
	EXPECT(a.pre, 1);
	EXPECT(b.pre, 1);
	unregister_kprobe(&a.kp);
	unregister_kprobe(&b.kp);
}

/* Notrace keeps the function tracer out, not a kprobe. */
static void kprobe_on_notrace_function(void)
{
	struct counted probe = COUNTED("probe_api_notrace");

	EXPECT(register_kprobe(&probe.kp), 0);
	EXPECT(probe_api_notrace(1), 4);
	unregister_kprobe(&probe.kp);
	EXPECT(probe.pre, 1);
}

static void kprobe_no_such_symbol(void)
{
	struct counted probe = COUNTED("probe_api_no_such_symbol");

	EXPECT(try_kprobe(&probe), -ENOENT);
}

static void kprobe_symbol_and_address(void)
{
	struct counted probe = COUNTED("probe_api_target");

	probe.kp.addr = (kprobe_opcode_t *)kmodlab_text_address(probe_api_target);
	EXPECT(try_kprobe(&probe), -EINVAL);
}

static void kprobe_no_symbol_no_address(void)
{
	struct counted probe = COUNTED(NULL);

	EXPECT(try_kprobe(&probe), -EINVAL);
}

static void kprobe_blacklisted(void)
{
	struct counted probe = COUNTED("get_kprobe");

	EXPECT(try_kprobe(&probe), -EINVAL);
}

/* v5.8, 16db6264c93d ("kprobes: Support NOKPROBE_SYMBOL() in modules") */
static void kprobe_blacklisted_in_module(void)
{
	struct counted probe = COUNTED("probe_api_nokprobe");

	if (KMODLAB_HAS_DESCRIPTORS) {
		skip("add_module_kprobes() lists the addresses of descriptors, not of code");
		return;
	}
	EXPECT(probe_api_nokprobe(1), 5);
	EXPECT(try_kprobe(&probe), kernel_before(5, 8) ? 0 : -EINVAL);
}

static void kprobe_inside_an_instruction(void)
{
	struct counted probe = COUNTED("probe_api_target");

	probe.kp.offset = 1;
	EXPECT(try_kprobe(&probe), -KMODLAB_ERRNO_INSIDE_INSTRUCTION);
}

/* v5.18, cc66bb914578 ("x86/ibt,kprobes: Cure sym+0 equals fentry woes"): looks for a symbol. */
static void kprobe_outside_text(void)
{
	struct counted probe = COUNTED(NULL);

	probe.kp.addr = kzalloc(64, GFP_KERNEL);
	if (!probe.kp.addr) {
		skip("no memory");
		return;
	}
	EXPECT(register_kprobe(&probe.kp), kernel_before(5, 18) ? -EINVAL : -ENOENT);
	kfree(probe.kp.addr);
}

/* The first registration fills in the address, which is one too many beside the symbol. */
static void kprobe_twice(void)
{
	struct counted probe = COUNTED("probe_api_target");

	EXPECT(register_kprobe(&probe.kp), 0);
	EXPECT(register_kprobe(&probe.kp), -EINVAL);
	EXPECT(probe_api_target(1), 2);
	unregister_kprobe(&probe.kp);
	EXPECT(probe.pre, 1);
}

/* v5.12, 33b1d1466885 ("kprobes: Warn if the kprobe is reregistered"): warns, once a boot. */
static void kprobe_twice_by_address(void)
{
	struct counted probe = COUNTED(NULL);

	probe.kp.addr = (kprobe_opcode_t *)kmodlab_text_address(probe_api_target);
	EXPECT(register_kprobe(&probe.kp), 0);
	EXPECT(register_kprobe(&probe.kp), -EINVAL);
	EXPECT(probe_api_target(1), 2);
	unregister_kprobe(&probe.kp);
	EXPECT(probe.pre, 1);
}

/* Unregistering answers nothing: it clears the address of a probe that is not registered. */
static void kprobe_unregister_unregistered(void)
{
	struct counted probe = COUNTED(NULL);

	probe.kp.addr = (kprobe_opcode_t *)kmodlab_text_address(probe_api_target);
	unregister_kprobe(&probe.kp);
	EXPECT(!probe.kp.addr, true);
}

static void kprobe_unregister_twice(void)
{
	struct counted probe = COUNTED("probe_api_target");

	EXPECT(register_kprobe(&probe.kp), 0);
	unregister_kprobe(&probe.kp);
	EXPECT(!probe.kp.addr, false);
	unregister_kprobe(&probe.kp);
	EXPECT(!probe.kp.addr, true);
}

static void kprobe_disable_or_enable_unregistered(void)
{
	struct counted probe = COUNTED(NULL);

	probe.kp.addr = (kprobe_opcode_t *)kmodlab_text_address(probe_api_target);
	EXPECT(disable_kprobe(&probe.kp), -EINVAL);
	EXPECT(enable_kprobe(&probe.kp), -EINVAL);
}

static TARGET int __init probe_api_init_target(int a)
{
	OPAQUE(a);
	return a + 6;
}

/* Registered while the module was being loaded, on a function that went with the end of that. */
static struct counted init_probe = COUNTED_PRE("probe_api_init_target");
static int init_probe_error;

void __init probe_init_code(void)
{
	init_probe_error = register_kprobe(&init_probe.kp);
	probe_api_init_target(1);
}

void unprobe_init_code(void)
{
	if (!init_probe_error)
		unregister_kprobe(&init_probe.kp);
}

static void kprobe_gone_with_its_code(void)
{
	EXPECT(init_probe_error, 0);
	EXPECT(init_probe.pre, 1);
	if (KMODLAB_KEEPS_INIT) {
		skip("the architecture keeps a module's init code");
		return;
	}
	EXPECT(!!(init_probe.kp.flags & KPROBE_FLAG_GONE), true);
	EXPECT(disable_kprobe(&init_probe.kp), 0);
	EXPECT(enable_kprobe(&init_probe.kp), -EINVAL);
}

static void kprobe_on_init_code_after_load(void)
{
	struct counted probe = COUNTED_PRE("probe_api_init_target");

	EXPECT(try_kprobe(&probe), KMODLAB_KEEPS_INIT ? 0 : -ENOENT);
}

#ifdef KMODLAB_HAS_FAULT_HANDLER
static int faults;

static int faulting_pre(struct kprobe *kp, struct pt_regs *regs)
{
	char byte;

	/* Nothing is mapped in the first page. */
	pagefault_disable();
	EXPECT(__copy_from_user_inatomic(&byte, (const void __user *)8, 1), 1);
	pagefault_enable();
	return 0;
}

static int count_fault(struct kprobe *kp, struct pt_regs *regs, int trap)
{
	faults++;
	return 0;	/* not handled: the kernel's own fix-up is to do that */
}

static void kprobe_with_fault_handler(void)
{
	struct kprobe probe = {
		.symbol_name = "probe_api_target", .pre_handler = faulting_pre,
		.fault_handler = count_fault,
	};

	faults = 0;
	EXPECT(register_kprobe(&probe), 0);
	EXPECT(probe_api_target(1), 2);
	unregister_kprobe(&probe);
	EXPECT(faults > 0, true);	/* the copying tries again, a byte at a time */
}
#else
static void kprobe_with_fault_handler(void)
{
	skip("gone with v5.14, ec6aba3d2be1");
}
#endif

static void kprobes_array(void)
{
	struct counted a = COUNTED("probe_api_target");
	struct counted b = COUNTED("probe_api_other");
	struct kprobe *both[] = { &a.kp, &b.kp };

	EXPECT(register_kprobes(both, 2), 0);
	EXPECT(probe_api_target(1), 2);
	EXPECT(probe_api_other(1), 3);
	unregister_kprobes(both, 2);
	EXPECT(probe_api_target(1), 2);
	EXPECT(a.pre, 1);
	EXPECT(b.pre, 1);
}

static void kprobes_array_last_fails(void)
{
	struct counted a = COUNTED("probe_api_target");
	struct counted b = COUNTED("probe_api_other");
	struct counted c = COUNTED("probe_api_no_such_symbol");
	struct kprobe *all[] = { &a.kp, &b.kp, &c.kp };

	EXPECT(register_kprobes(all, 3), -ENOENT);
	EXPECT(probe_api_target(1), 2);
	EXPECT(a.pre, 0);
	EXPECT(disable_kprobe(&a.kp), -EINVAL);
	EXPECT(disable_kprobe(&b.kp), -EINVAL);
}

static void kprobes_array_empty(void)
{
	struct counted probe = COUNTED("probe_api_target");
	struct kprobe *one[] = { &probe.kp };

	EXPECT(register_kprobes(one, 0), -EINVAL);
	EXPECT(register_kprobes(one, -1), -EINVAL);
	EXPECT(register_kprobes(one, 1), 0);
	unregister_kprobes(one, 0);
	unregister_kprobes(one, -1);
	EXPECT(probe_api_target(1), 2);
	unregister_kprobes(one, 1);
	EXPECT(probe.pre, 1);
}

static void kprobes_array_with_null(void)
{
	skip("no kernel checks it: register_kprobes() would read through the null pointer");
}

const struct test kprobe_tests[] = {
	TEST(kprobe_by_symbol),
	TEST(kprobe_by_symbol_and_offset),
	TEST(kprobe_by_address),
	TEST(kprobe_pre_handler_only),
	TEST(kprobe_post_handler_only),
	TEST(kprobe_several_on_one_address),
	TEST(kprobe_registered_disabled),
	TEST(kprobe_disable_and_enable),
	TEST(kprobe_disable_one_of_several),
	TEST(kprobe_on_notrace_function),
	TEST(kprobe_no_such_symbol),
	TEST(kprobe_symbol_and_address),
	TEST(kprobe_no_symbol_no_address),
	TEST(kprobe_blacklisted),
	TEST(kprobe_blacklisted_in_module),
	TEST(kprobe_inside_an_instruction),
	TEST(kprobe_outside_text),
	TEST(kprobe_twice),
	WARNING_TEST(kprobe_twice_by_address),
	TEST(kprobe_unregister_unregistered),
	TEST(kprobe_unregister_twice),
	TEST(kprobe_disable_or_enable_unregistered),
	TEST(kprobe_gone_with_its_code),
	TEST(kprobe_on_init_code_after_load),
	TEST(kprobe_with_fault_handler),
	TEST(kprobes_array),
	TEST(kprobes_array_last_fails),
	TEST(kprobes_array_empty),
	TEST(kprobes_array_with_null),
	{ }
};
