// SPDX-License-Identifier: MIT OR Apache-2.0
/* Reading requests and handing them on. */
#include "agent.h"

#include <fcntl.h>
#include <linux/random.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/utsname.h>
#include <time.h>

/* Since Linux 4.17; makes the generator use what was mixed in at once. */
#ifndef RNDRESEEDCRNG
#define RNDRESEEDCRNG _IO('R', 0x07)
#endif

/* What may be under way at once: requests with a thread of their own, and bytes of their payloads. */
#define MAX_JOBS 256
#define MAX_JOB_BYTES (8u << 20)

enum how {
	/* It never waits, so the reader handles it itself, in order. */
	AT_ONCE,
	/* In a thread of its own. */
	IN_THREAD,
	/* In one whose doings in the kernel are covered, where that is wanted. */
	COVERED,
};

static const struct {
	void (*handle)(struct job *job);
	enum how how;
} handlers[] = {
	[REQUEST_HELLO] = { handle_hello, AT_ONCE },
	[REQUEST_RUN] = { handle_run, IN_THREAD },
	[REQUEST_SIGNAL] = { handle_signal, AT_ONCE },
	[REQUEST_LOAD_MODULE] = { handle_load_module, COVERED },
	[REQUEST_UNLOAD_MODULE] = { handle_unload_module, COVERED },
	[REQUEST_READ_FILE] = { handle_read_file, COVERED },
	[REQUEST_WRITE_FILE] = { handle_write_file, COVERED },
	[REQUEST_MAKE_DIR] = { handle_make_dir, COVERED },
	[REQUEST_REMOVE] = { handle_remove, COVERED },
	[REQUEST_LIST] = { handle_list, COVERED },
	[REQUEST_STREAM] = { handle_stream, AT_ONCE },
	[REQUEST_STOP_STREAM] = { handle_stop_stream, AT_ONCE },
	[REQUEST_SYNC] = { handle_sync, IN_THREAD },
	[REQUEST_WAIT_FOR] = { handle_wait_for, COVERED },
	[REQUEST_POWER_OFF] = { handle_power_off, AT_ONCE },
	[REQUEST_START_COVER] = { handle_start_cover, AT_ONCE },
	[REQUEST_COVER] = { handle_cover, IN_THREAD },
};

static atomic_uint jobs, job_bytes;

static void *handle_in_thread(void *argument)
{
	struct job *job = argument;
	struct cover *cover = job->covered ? cover_thread() : NULL;

	job->handle(job);
	uncover_thread(cover);
	job_bytes -= (unsigned int)job->size;
	jobs--;
	free(job);
	return NULL;
}

/* Takes the job over. */
static void dispatch(struct job *job)
{
	unsigned int size = (unsigned int)job->size;

	if (jobs >= MAX_JOBS || job_bytes + size > MAX_JOB_BYTES) {
		reply_error(job->id, "too many requests under way");
		free(job);
		return;
	}
	jobs++;
	job_bytes += size;
	if (start_thread(handle_in_thread, job)) {
		reply_error(job->id, "cannot start a thread");
		jobs--;
		job_bytes -= size;
		free(job);
	}
}

/* Where the control port is a serial line, the host writes this, then a byte with LINE_FLIP turned over, for some bytes. */
#define LINE_ESCAPE 0x1b
#define LINE_FLIP 0x40

static bool on_line;

/* Takes what was read from a line: decodes it in place, and lets the host know in time. Returns how much is left. */
static size_t from_line(uint8_t *data, size_t size)
{
	static bool escaped;
	static uint32_t taken;
	size_t kept = 0;

	for (size_t i = 0; i < size; i++) {
		if (!escaped && data[i] == LINE_ESCAPE) {
			escaped = true;
			continue;
		}
		data[kept++] = escaped ? data[i] ^ LINE_FLIP : data[i];
		escaped = false;
	}
	taken += (uint32_t)size;
	if (taken >= LINE_WINDOW / 2) {
		reply_taken(taken);
		taken = 0;
	}
	return kept;
}

/* False at the end of the stream: the host has closed its end. */
static bool read_all(int fd, void *data, size_t size)
{
	uint8_t *at = data;

	while (size) {
		ssize_t got = read(fd, at, size);

		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			return false;
		if (on_line)
			got = (ssize_t)from_line(at, (size_t)got);
		at += got;
		size -= (size_t)got;
	}
	return true;
}

static bool skip(int fd, size_t size)
{
	uint8_t waste[4096];

	while (size) {
		size_t part = size < sizeof(waste) ? size : sizeof(waste);

		if (!read_all(fd, waste, part))
			return false;
		size -= part;
	}
	return true;
}

static uint32_t load_u32(const uint8_t *at)
{
	return at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

static bool refuse(int fd, uint32_t id, const char *why, size_t rest)
{
	reply_error(id, why);
	return skip(fd, rest);
}

/* Reads one frame and has it handled; false at the end of the stream. */
static bool serve_one(int fd)
{
	uint8_t head[FRAME_HEAD];
	size_t size;
	uint32_t id;
	struct job *job;

	if (!read_all(fd, head, 4))
		return false;
	size = load_u32(head);
	if (size < FRAME_HEAD - 4)
		return refuse(fd, 0, "frame too short", size);
	if (!read_all(fd, head + 4, FRAME_HEAD - 4))
		return false;
	id = load_u32(head + 5);
	size -= FRAME_HEAD - 4;
	if (size > FRAME_LIMIT - (FRAME_HEAD - 4))
		return refuse(fd, id, "frame too long", size);
	if (head[4] >= sizeof(handlers) / sizeof(*handlers) || !handlers[head[4]].handle)
		return refuse(fd, id, "unknown request", size);
	job = malloc(sizeof(*job) + size);
	if (!job)
		return refuse(fd, id, "out of memory", size);
	*job = (struct job){ .id = id, .handle = handlers[head[4]].handle, .size = size };
	job->covered = handlers[head[4]].how == COVERED;
	job->next = job->payload;
	job->end = job->payload + size;
	if (!read_all(fd, job->payload, size)) {
		free(job);
		return false;
	}
	if (handlers[head[4]].how == AT_ONCE) {
		job->handle(job);
		free(job);
	} else {
		dispatch(job);
	}
	return true;
}

void serve(int control)
{
	control_fd = control;
	on_line = isatty(control);
	if (on_line)
		reply_taken(LINE_WINDOW);
	for (;;) {
		while (serve_one(control))
			;
		if (visiting)
			return;
		/* Nobody holds the host's end now. What comes next starts with a whole frame. */
		sleep_ms(2);
	}
}

static int set_clock(uint64_t seconds, uint32_t nanoseconds)
{
	struct timespec time = { .tv_sec = (time_t)seconds, .tv_nsec = (long)nanoseconds };

	if (visiting)
		return EPERM;
	return clock_settime(CLOCK_REALTIME, &time) ? errno : 0;
}

/*
 * A restored guest's first answer takes as long as QEMU needs to translate the kernel code on the way to it. What a
 * greeting needs is therefore opened once and kept, for the reader's thread alone.
 */
static int keep_open(int *fd, const char *path, int flags)
{
	if (*fd < 0)
		*fd = open(path, flags | O_CLOEXEC);
	return *fd;
}

static int mix_in(const uint8_t *entropy, size_t size)
{
	static int random = -1;
	struct rand_pool_info *info;
	int fd, error = 0;

	if (visiting)
		return EPERM;
	if (size > 4096)
		return EINVAL;
	fd = keep_open(&random, "/dev/urandom", O_WRONLY);
	if (fd < 0)
		return errno;
	info = malloc(sizeof(*info) + size);
	if (info) {
		info->entropy_count = (int)size * 8;
		info->buf_size = (int)size;
		memcpy(info->buf, entropy, size);
	}
	if (!info || ioctl(fd, RNDADDENTROPY, info))
		error = errno;
	else if (ioctl(fd, RNDRESEEDCRNG) && errno != EINVAL && errno != ENOTTY)
		error = errno;
	free(info);
	return error;
}

static uint64_t uptime(void)
{
	struct timespec time;

	clock_gettime(CLOCK_BOOTTIME, &time);
	return (uint64_t)time.tv_sec * 1000000000 + (uint64_t)time.tv_nsec;
}

static uint64_t tainted(void)
{
	static int kept = -1;
	char text[32];
	ssize_t size = pread(keep_open(&kept, "/proc/sys/kernel/tainted", O_RDONLY), text, sizeof(text) - 1, 0);

	text[size > 0 ? size : 0] = 0;
	return strtoull(text, NULL, 10);
}

/*
 * A restored guest may have lost its cpus' next timer interrupt: QEMU's TCG does not save the decrementer of PowerPC
 * (target/ppc/machine.c has no field for it), and the kernel, which believes it set, waits for ever. A timer that has
 * expired before any other can makes the kernel set the device anew (kernel/time/hrtimer.c, hrtimer_reprogram), and its
 * interrupt then finds every timer that is due. Each cpu has a device of its own.
 */
static void revive_timers(void)
{
	const struct timespec long_ago = { .tv_nsec = 1 };
	cpu_set_t all, one;

	if (sched_getaffinity(0, sizeof(all), &all))
		CPU_ZERO(&all);
	for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
		if (!CPU_ISSET(cpu, &all))
			continue;
		CPU_ZERO(&one);
		CPU_SET(cpu, &one);
		if (CPU_COUNT(&all) == 1 || !sched_setaffinity(0, sizeof(one), &one))
			clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &long_ago, NULL);
	}
	if (CPU_COUNT(&all) > 1)
		sched_setaffinity(0, sizeof(all), &all);
}

void handle_hello(struct job *job)
{
	struct frame frame;
	struct utsname name;
	const uint16_t one = 1;
	int clock_error = EPROTONOSUPPORT, entropy_error = EPROTONOSUPPORT;
	const uint8_t *entropy;
	size_t entropy_size;
	uint64_t seconds;
	uint32_t nanoseconds;

	/* Another version may have anything after its number; what it can read of the answer is ours. */
	if (take_u32(job) == PROTOCOL_VERSION || job->malformed) {
		seconds = take_u64(job);
		nanoseconds = take_u32(job);
		entropy = take_bytes(job, &entropy_size);
		if (!take_end(job))
			return;
		clock_error = set_clock(seconds, nanoseconds);
		entropy_error = mix_in(entropy, entropy_size);
	}
	uname(&name);
	begin(&frame, REPLY_HELLO, job->id);
	put_u32(&frame, PROTOCOL_VERSION);
	put_string(&frame, name.release);
	put_string(&frame, name.machine);
	put_u8(&frame, *(const uint8_t *)&one == 0);
	put_u8(&frame, sizeof(long) * 8);
	put_u64(&frame, uptime());
	put_u64(&frame, tainted());
	put_string(&frame, tracing_dir());
	put_u32(&frame, generic_errno(clock_error));
	put_u32(&frame, generic_errno(entropy_error));
	send_frame(&frame);
	revive_timers();
	mark_ports(job->id);
}

void handle_power_off(struct job *job)
{
	if (!take_end(job))
		return;
	reply_done(job->id, 0, 0, true);
	power_off();
}
