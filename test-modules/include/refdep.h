/* SPDX-License-Identifier: GPL-2.0 */
/* What the modules of the chain refdep_c -> refdep_b -> refdep_a export to the next. */
#ifndef REFDEP_H
#define REFDEP_H

int refdep_a_value(void);
int refdep_b_value(void);

#endif
