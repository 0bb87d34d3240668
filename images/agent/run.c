// SPDX-License-Identifier: MIT OR Apache-2.0
/* Running programs. */
#include "agent.h"

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <sys/wait.h>

/* From SIGTERM at the deadline to SIGKILL. */
#define GRACE_NS ((int64_t)500 * 1000000)
/* How often to look whether the program has ended, on kernels that have no pidfd_open (before 5.3). */
#define LOOK_MS 10
/* The most that is read from a pipe once the program has ended but others hold the pipe. */
#define DRAIN_LIMIT (1u << 20)

static const char *const base_environment[] = {
	"PATH=" SEARCH_PATH,
	"HOME=/",
	"TERM=linux",
};
#define BASE_COUNT (sizeof(base_environment) / sizeof(*base_environment))

enum { IN, OUT, ERR, ENDED, FD_COUNT };

struct run {
	struct run *next;
	uint32_t id;
	pid_t pid;
	/* Our ends of the pipes, and the pidfd; -1 where closed or missing. */
	int fds[FD_COUNT];
	const uint8_t *input;
	size_t input_size;
	struct chunk *chunk;
	struct cover *cover;
	/* When to send the next signal, and what was sent; INT64_MAX for never. */
	int64_t alarm;
	bool timed_out;
};

/* Those that have not been reaped yet: as long as one is here, its process group is its own. */
static struct run *runs;
static pthread_mutex_t runs_lock = PTHREAD_MUTEX_INITIALIZER;

static void close_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

static bool same_name(const char *one, const char *other)
{
	size_t size = strcspn(one, "=");

	return size == strcspn(other, "=") && !memcmp(one, other, size);
}

/* The base environment without what `added` has as well, and then `added`. To be freed; NULL without memory. */
static char **environment(char **added)
{
	size_t count = 0, size = 0;
	char **result;

	while (added[count])
		count++;
	result = calloc(BASE_COUNT + count + 1, sizeof(*result));
	for (size_t i = 0; result && i < BASE_COUNT; i++) {
		size_t j = 0;

		while (j < count && !same_name(added[j], base_environment[i]))
			j++;
		if (j == count)
			result[size++] = (char *)base_environment[i];
	}
	if (result)
		memcpy(result + size, added, count * sizeof(*result));
	return result;
}

/* Starts the program with `ends` as its standard streams, by vfork; an errno or 0. */
static int spawn(struct run *run, const int ends[3], char **argv, char **env, const char *cwd)
{
	posix_spawn_file_actions_t actions;
	posix_spawnattr_t attributes;
	sigset_t set;
	int error;

	posix_spawn_file_actions_init(&actions);
	posix_spawnattr_init(&attributes);
	posix_spawnattr_setflags(&attributes,
				 POSIX_SPAWN_SETSID | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK);
	sigfillset(&set);
	posix_spawnattr_setsigdefault(&attributes, &set);
	sigemptyset(&set);
	posix_spawnattr_setsigmask(&attributes, &set);
	for (int i = 0; i < 3; i++)
		posix_spawn_file_actions_adddup2(&actions, ends[i], i);
	error = posix_spawn_file_actions_addchdir_np(&actions, *cwd ? cwd : "/");
	if (!error)
		error = spawn_covered(&run->pid, &actions, &attributes, argv, env, &run->cover);
	posix_spawnattr_destroy(&attributes);
	posix_spawn_file_actions_destroy(&actions);
	return error;
}

/* Makes the pipes and starts the program; an errno or 0. */
static int start(struct run *run, char **argv, char **env, const char *cwd)
{
	/* Ours and the program's end of each. */
	int ours[3] = { -1, -1, -1 }, ends[3] = { -1, -1, -1 };
	int error = 0;

	for (int i = 0; i < 3 && !error; i++) {
		int both[2];

		if (i == IN && !run->input_size) {
			ends[i] = open("/dev/null", O_RDONLY | O_CLOEXEC);
			error = ends[i] < 0 ? errno : 0;
			continue;
		}
		if (pipe2(both, O_CLOEXEC)) {
			error = errno;
			continue;
		}
		ours[i] = both[i == IN];
		ends[i] = both[i != IN];
		fcntl(ours[i], F_SETFL, O_NONBLOCK);
	}
	if (!error)
		error = spawn(run, ends, argv, env, cwd);
	for (int i = 0; i < 3; i++) {
		close_fd(&ends[i]);
		if (error)
			close_fd(&ours[i]);
		run->fds[i] = ours[i];
	}
	return error;
}

/* Sends on what a pipe holds, at most `limit` bytes of it; closes it at its end. */
static void pump(struct run *run, int which, size_t limit)
{
	enum reply kind = which == OUT ? REPLY_STDOUT : REPLY_STDERR;
	size_t count = 0;

	while (run->fds[which] >= 0 && count < limit) {
		ssize_t got = read(run->fds[which], run->chunk->data, CHUNK_SIZE);

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0 && errno == EAGAIN)
			return;
		if (got <= 0)
			return close_fd(&run->fds[which]);
		send_chunk(run->chunk, kind, run->id, (uint32_t)got, (size_t)got);
		count += (size_t)got;
	}
}

static void feed(struct run *run)
{
	ssize_t written = write(run->fds[IN], run->input, run->input_size);

	if (written > 0) {
		run->input += written;
		run->input_size -= (size_t)written;
	}
	/* A program need not read what it is given. */
	if (!run->input_size || (written < 0 && errno != EAGAIN && errno != EINTR))
		close_fd(&run->fds[IN]);
}

static bool has_ended(const struct run *run)
{
	siginfo_t info = { .si_pid = 0 };

	/* Not reaped yet, so that its number stays its own. */
	waitid(P_PID, (id_t)run->pid, &info, WEXITED | WNOHANG | WNOWAIT);
	return info.si_pid == run->pid;
}

static int wait_ms(const struct run *run)
{
	int64_t left = run->alarm == INT64_MAX ? -1 : (run->alarm - now() + 999999) / 1000000;

	if (run->alarm != INT64_MAX && left < 0)
		left = 0;
	if (run->fds[ENDED] < 0 && (left < 0 || left > LOOK_MS))
		left = LOOK_MS;
	return left > 60000 ? 60000 : (int)left;
}

static void sound_alarm(struct run *run)
{
	if (now() < run->alarm)
		return;
	kill(-run->pid, run->timed_out ? SIGKILL : SIGTERM);
	run->alarm = run->timed_out ? INT64_MAX : now() + GRACE_NS;
	run->timed_out = true;
}

/* Until the program has ended, and with it what it wrote. */
static void attend(struct run *run)
{
	do {
		struct pollfd polled[FD_COUNT];

		for (int i = 0; i < FD_COUNT; i++)
			polled[i] = (struct pollfd){ run->fds[i], i == IN ? POLLOUT : POLLIN, 0 };
		poll(polled, FD_COUNT, wait_ms(run));
		if (polled[IN].revents)
			feed(run);
		for (int i = OUT; i <= ERR; i++)
			if (polled[i].revents)
				pump(run, i, CHUNK_SIZE);
		sound_alarm(run);
	} while (!has_ended(run));
	if (run->timed_out)
		kill(-run->pid, SIGKILL);
	/* A background process of its may hold the pipes for good: what is there now is what there is. */
	pump(run, OUT, DRAIN_LIMIT);
	pump(run, ERR, DRAIN_LIMIT);
}

static int reap(struct run *run)
{
	struct run **link = &runs;
	int status = 0;

	pthread_mutex_lock(&runs_lock);
	while (*link != run)
		link = &(*link)->next;
	*link = run->next;
	while (waitpid(run->pid, &status, 0) < 0 && errno == EINTR)
		;
	pthread_mutex_unlock(&runs_lock);
	return status;
}

static void send_exit(const struct run *run, int status)
{
	struct frame frame;

	begin(&frame, REPLY_EXIT, run->id);
	put_u8(&frame, WIFSIGNALED(status));
	put_u32(&frame,
		WIFSIGNALED(status) ? generic_signal(WTERMSIG(status)) : (uint32_t)WEXITSTATUS(status));
	put_u8(&frame, run->timed_out);
	send_frame(&frame);
}

static void run_program(struct run *run, char **argv, char **env, const char *cwd, uint32_t deadline)
{
	int error, status;

	/* Nobody may look it up before its number is known, nor miss it afterwards. */
	pthread_mutex_lock(&runs_lock);
	error = start(run, argv, env, cwd);
	if (!error) {
		run->next = runs;
		runs = run;
	}
	pthread_mutex_unlock(&runs_lock);
	if (error)
		return reply_done(run->id, error, 0, true);
	reply_started(run->id, (uint32_t)run->pid);
	run->alarm = deadline ? now() + (int64_t)deadline * 1000000 : INT64_MAX;
#ifdef SYS_pidfd_open
	run->fds[ENDED] = (int)syscall(SYS_pidfd_open, run->pid, 0);
#endif
	attend(run);
	for (int i = 0; i < FD_COUNT; i++)
		close_fd(&run->fds[i]);
	status = reap(run);
	cover_end(run->cover);
	send_exit(run, status);
}

void handle_run(struct job *job)
{
	char **argv = take_strings(job);
	char **added = take_strings(job);
	const char *cwd = take_string(job);
	struct run run = { .id = job->id, .fds = { -1, -1, -1, -1 } };
	char **env = NULL;
	uint32_t deadline;

	run.input = take_bytes(job, &run.input_size);
	deadline = take_u32(job);
	if (argv && !argv[0])
		job->malformed = true;
	if (take_end(job)) {
		run.chunk = malloc(sizeof(*run.chunk));
		env = environment(added);
		if (run.chunk && env)
			run_program(&run, argv, env, cwd, deadline);
		else
			reply_error(job->id, "out of memory");
	}
	free(run.chunk);
	free(env);
	free(added);
	free(argv);
}

void handle_signal(struct job *job)
{
	uint32_t id = take_u32(job);
	int number = native_signal(take_u32(job));
	struct run *run;
	int error = ESRCH;

	if (!take_end(job))
		return;
	pthread_mutex_lock(&runs_lock);
	for (run = runs; run && run->id != id; run = run->next)
		;
	if (run)
		error = number < 0 ? EINVAL : kill(-run->pid, number) ? errno : 0;
	pthread_mutex_unlock(&runs_lock);
	reply_done(job->id, error, 0, true);
}
