"""Unwinds stacks of kernels where gdb alone finds no more than a frame or two: it has no debugging information of them."""

import gdb
import gdb.unwinder

WORD = 8
# The register save area at the beginning of a frame (s390x ELF ABI, "The Stack Frame").
SAVED = 160
# ORC_REG_* of arch/x86/include/asm/orc_types.h.
PREV_SP, BP, SP = 1, 4, 5
# Where struct pt_regs has its registers (arch/x86/include/asm/ptrace.h).
PT_BP, PT_IP, PT_CS, PT_SP = 32, 128, 136, 152


class FrameId:
    def __init__(self, sp, pc):
        self.sp, self.pc = sp, pc


def read(address, size, order="little", signed=False):
    memory = gdb.selected_inferior().read_memory(address, size)
    return int.from_bytes(bytes(memory), order, signed=signed)


def register(frame, name):
    return int(frame.read_register(name)) & (1 << 64) - 1


def caller(frame, place, **saved):
    """What gdb is told of the frame's caller. One without a program counter is the last.

    `place` tells the frame from others; it is no less than those of the frames that it has called.
    """
    info = frame.create_unwind_info(FrameId(gdb.Value(place), frame.read_register("pc")))
    for name, value in saved.items():
        info.add_saved_register(name, gdb.Value(value).cast(frame.read_register(name).type))
    return info


class BackChain(gdb.unwinder.Unwinder):
    """Each frame has the address of its caller's frame, `caller` bytes from where the register `name` points.

    The address to return to is `back` bytes from there, or, with `in_caller`, from the caller's frame.
    """

    def __init__(self, order, name, caller, back, in_caller):
        super().__init__("back chain")
        self.order, self.name = order, name
        self.caller, self.back, self.in_caller = caller, back, in_caller

    def __call__(self, frame):
        # The innermost function may have no frame yet; that gdb sees from its code.
        if frame.level() == 0:
            return None
        size = frame.read_register("sp").type.sizeof
        here = register(frame, self.name)
        outer = read(here + self.caller, size, self.order)
        saved = {self.name: outer}
        # Stacks grow downwards; that of user space is another.
        if outer > here:
            saved["pc"] = read((outer if self.in_caller else here) + self.back, size, self.order)
        # What tells frames apart, where the chain is the frame pointer's.
        if not self.in_caller:
            saved["sp"] = here + max(0, self.back + size)
        # gdb itself, for the innermost frame, takes the place where the caller's begins, on s390 with what is saved there.
        place = outer + SAVED if self.in_caller else register(frame, "sp")
        return caller(frame, place, **saved)


class Orc(gdb.unwinder.Unwinder):
    """The tables of an x86 kernel (Documentation/arch/x86/orc-unwinder.rst), which keeps no frame pointers.

    `places` and `entries` are the addresses of the kernel's tables, which have `count` entries.

    `call` and `regs` are the kinds of entries behind a call and behind an interrupt, and `kinds` the mask of the kind.
    """

    def __init__(self, places, entries, count, call, regs, kinds):
        super().__init__("orc")
        self.places, self.entries, self.count = places, entries, count
        self.call, self.regs, self.kinds = call, regs, kinds

    def place(self, index):
        address = self.places + 4 * index
        return address + read(address, 4, signed=True)

    def entry(self, pc):
        """The entry of the last place that is not behind `pc`: offsets of sp and bp, their registers, the kind."""
        low, high = 0, self.count
        while low < high:
            middle = (low + high) // 2
            if self.place(middle) <= pc:
                low = middle + 1
            else:
                high = middle
        # Behind the last place come the modules.
        if low in (0, self.count):
            return None
        address = self.entries + 6 * (low - 1)
        registers = read(address + 4, 2)
        return (
            read(address, 2, signed=True),
            read(address + 2, 2, signed=True),
            registers & 15,
            registers >> 4 & 15,
            registers >> 8 & self.kinds,
        )

    def __call__(self, frame):
        pc, sp, bp = (register(frame, name) for name in ("rip", "rsp", "rbp"))
        # Behind a call, the place is the call's.
        entry = self.entry(pc - 1 if frame.level() > 0 else pc)
        if entry is None:
            return None
        sp_offset, bp_offset, sp_register, bp_register, kind = entry
        if sp_register not in (SP, BP) or kind not in (self.call, self.regs):
            return None
        cfa = (sp if sp_register == SP else bp) + sp_offset
        if kind == self.regs:
            outer = {"rsp": read(cfa + PT_SP, WORD), "rbp": read(cfa + PT_BP, WORD)}
            if read(cfa + PT_CS, WORD) & 3:
                return caller(frame, sp, **outer)
            return caller(frame, sp, rip=read(cfa + PT_IP, WORD), **outer)
        if bp_register == PREV_SP:
            bp = read(cfa + bp_offset, WORD)
        elif bp_register == BP:
            bp = read(bp + bp_offset, WORD)
        return caller(frame, sp, rip=read(cfa - WORD, WORD), rsp=cfa, rbp=bp)
