/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Jprobes: the kernel's own before v4.15, those of the module jprobe_compat since.
 *
 * v4.15, 590c84593045 ("kprobes: Disable the jprobes APIs"), left stubs in linux/kprobes.h that
 * answer ENOSYS; v4.19, 4de58696de07 ("kprobes: Remove jprobe stub API"), removed them with
 * struct jprobe.
 *
 * What jprobe_compat cannot do that the native jprobes could:
 *   - jprobe_return() returns.  It must be the last statement of the handler that is executed.
 *   - The handler gets the first 8 words of the arguments, where a word is a long, and no floating
 *     point.
 *   - The handler runs inside the probe, so that other probes that it meets are missed.
 *   - Only offset 0 of a symbol is known to be a function's entry.  A jprobe with an address is
 *     trusted to be at one.
 *   - It needs to know the architecture's calling convention, see kmodlab_argument(): elsewhere
 *     registering answers EOPNOTSUPP.
 */
#ifndef JPROBE_COMPAT_H
#define JPROBE_COMPAT_H

#include "kmodlab_compat.h"

#if kernel_before(4, 15)

#define NATIVE_JPROBES	1

#else

#define NATIVE_JPROBES	0

#if kernel_before(4, 19)
/* The stubs have the names. */
#define register_jprobe		jprobe_compat_register_jprobe
#define register_jprobes	jprobe_compat_register_jprobes
#define unregister_jprobe	jprobe_compat_unregister_jprobe
#define unregister_jprobes	jprobe_compat_unregister_jprobes
#define disable_jprobe		jprobe_compat_disable_jprobe
#define enable_jprobe		jprobe_compat_enable_jprobe
#define jprobe_return		jprobe_compat_jprobe_return
#else
struct jprobe {
	struct kprobe kp;
	void *entry;	/* the handler, with the parameters of the probed function */
};
#endif

int register_jprobe(struct jprobe *jp);
int register_jprobes(struct jprobe **jps, int num);
void unregister_jprobe(struct jprobe *jp);
void unregister_jprobes(struct jprobe **jps, int num);
int disable_jprobe(struct jprobe *jp);
int enable_jprobe(struct jprobe *jp);
void jprobe_return(void);

#endif

#endif
