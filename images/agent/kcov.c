// SPDX-License-Identifier: MIT OR Apache-2.0
/*
 * Which code of the kernel is executed for requests and by programs, where the kernel has CONFIG_KCOV: it writes the
 * program counters of a task into memory that is shared with it (Documentation/dev-tools/kcov.rst). They are taken over
 * from there into one set.
 */
#include "agent.h"

#include <fcntl.h>
#include <linux/kcov.h>
#include <pthread.h>
#include <spawn.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/wait.h>

#define KCOV_FILE "/sys/kernel/debug/kcov"
/*
 * Words that are shared with the kernel for one task. It drops what does not fit, and nothing is taken over while a
 * system call has a single cpu to itself.
 */
#define AREA_WORDS ((size_t)1 << 18)
#define AREA_SIZE (AREA_WORDS * sizeof(unsigned long))
/* Above so many the area of a task that goes on is begun anew. */
#define AREA_ENOUGH (AREA_WORDS / 4)
/* How many tasks are covered at once: their areas take memory that cannot be swapped. */
#define MAX_COVERS 16
/* How often the areas are looked at. */
#define LOOK_MS 5
/* The first size of the set; a power of two, as all others. */
#define FIRST_SET_SIZE ((size_t)1 << 12)

/* One task's, or kept for the next task. */
struct cover {
	struct cover *next;
	int fd;
	/* The number of program counters, and then those. */
	unsigned long *area;
	/* How many of them have been taken over. */
	size_t taken;
};

static atomic_bool collecting;

/* Of everything below. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct cover *busy, *spare;
static size_t covers;
/* The program counters that nobody has asked for yet; 0 is an empty place. */
static uint64_t *set;
static size_t set_size, set_count;
/* Some could not be kept. */
static bool lost;

static size_t place_of(const uint64_t *in, size_t size, uint64_t pc)
{
	size_t at = (size_t)(pc * 0x9e3779b97f4a7c15u >> 20) & (size - 1);

	while (in[at] && in[at] != pc)
		at = (at + 1) & (size - 1);
	return at;
}

static bool grow(void)
{
	size_t size = set_size ? set_size * 2 : FIRST_SET_SIZE;
	uint64_t *bigger = calloc(size, sizeof(*bigger));

	if (!bigger)
		return false;
	for (size_t i = 0; i < set_size; i++)
		if (set[i])
			bigger[place_of(bigger, size, set[i])] = set[i];
	free(set);
	set = bigger;
	set_size = size;
	return true;
}

static void add(uint64_t pc)
{
	size_t at;

	if (!pc)
		return;
	if (set_count * 2 >= set_size && !grow()) {
		lost = true;
		return;
	}
	at = place_of(set, set_size, pc);
	set_count += !set[at];
	set[at] = pc;
}

/* Takes over what lies between those that were taken over before and `count`, and leaves zeroes. */
static void take_to(struct cover *cover, size_t count)
{
	for (; cover->taken < count; cover->taken++) {
		unsigned long *entry = cover->area + 1 + cover->taken;

		add(__atomic_exchange_n(entry, 0, __ATOMIC_RELAXED));
	}
}

/* As the kernel has counted them. */
static size_t bounded(size_t count)
{
	if (count < AREA_WORDS - 1)
		return count;
	lost = true;
	return AREA_WORDS - 1;
}

/* How many the area has; of a task that goes on, without one that the kernel has counted but not written yet. */
static size_t filled(const struct cover *cover)
{
	size_t count = bounded(__atomic_load_n(cover->area, __ATOMIC_ACQUIRE));

	if (count > cover->taken && !__atomic_load_n(cover->area + count, __ATOMIC_ACQUIRE))
		count--;
	return count;
}

static void take_over(struct cover *cover)
{
	size_t from;

	take_to(cover, filled(cover));
	if (cover->taken < AREA_ENOUGH)
		return;
	/*
	 * The kernel may be counting one just now. If it then puts the old number back, the area goes on where it was: zeroes
	 * are taken over for nothing, and nothing is missing.
	 */
	from = cover->taken;
	take_to(cover, bounded(__atomic_exchange_n(cover->area, 0, __ATOMIC_ACQ_REL)));
	cover->taken = 0;
	/* It may have come so far meanwhile that what was still to be taken over was written over. */
	if (__atomic_load_n(cover->area, __ATOMIC_ACQUIRE) > from)
		lost = true;
}

static void *look(void *unused)
{
	for (;;) {
		sleep_ms(LOOK_MS);
		pthread_mutex_lock(&lock);
		for (struct cover *cover = busy; cover; cover = cover->next)
			take_over(cover);
		pthread_mutex_unlock(&lock);
	}
	return unused;
}

static void discard(struct cover *cover)
{
	if (cover->area)
		munmap(cover->area, AREA_SIZE);
	if (cover->fd >= 0)
		close(cover->fd);
	free(cover);
}

/* An errno or 0. */
static int make(struct cover **made)
{
	struct cover *cover = calloc(1, sizeof(*cover));
	void *area;
	int error;

	if (!cover)
		return ENOMEM;
	cover->fd = open(KCOV_FILE, O_RDWR | O_CLOEXEC);
	if (cover->fd >= 0 && !ioctl(cover->fd, KCOV_INIT_TRACE, AREA_WORDS)) {
		area = mmap(NULL, AREA_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, cover->fd, 0);
		if (area != MAP_FAILED) {
			cover->area = area;
			*made = cover;
			return 0;
		}
	}
	error = errno;
	discard(cover);
	return error;
}

/* What whoever runs next is covered with: NULL where nothing is collected, or nothing more can be. */
static struct cover *cover_begin(void)
{
	struct cover *cover;

	if (!collecting)
		return NULL;
	pthread_mutex_lock(&lock);
	cover = spare;
	if (cover)
		spare = cover->next;
	else if (covers < MAX_COVERS && !make(&cover))
		covers++;
	if (cover) {
		cover->next = busy;
		busy = cover;
	} else {
		lost = true;
	}
	pthread_mutex_unlock(&lock);
	return cover;
}

void cover_end(struct cover *cover)
{
	struct cover **link = &busy;

	if (!cover)
		return;
	pthread_mutex_lock(&lock);
	take_to(cover, filled(cover));
	cover->area[0] = 0;
	cover->taken = 0;
	while (*link != cover)
		link = &(*link)->next;
	*link = cover->next;
	cover->next = spare;
	spare = cover;
	pthread_mutex_unlock(&lock);
}

struct cover *cover_thread(void)
{
	struct cover *cover = cover_begin();

	if (cover && ioctl(cover->fd, KCOV_ENABLE, KCOV_TRACE_PC)) {
		cover_end(cover);
		return NULL;
	}
	return cover;
}

void uncover_thread(struct cover *cover)
{
	if (cover)
		ioctl(cover->fd, KCOV_DISABLE, 0);
	cover_end(cover);
}

void handle_start_cover(struct job *job)
{
	struct cover *cover = NULL;
	int error = 0;

	if (!take_end(job))
		return;
	if (!collecting)
		error = make(&cover);
	if (cover) {
		error = start_thread(look, NULL);
		pthread_mutex_lock(&lock);
		cover->next = spare;
		spare = cover;
		covers++;
		pthread_mutex_unlock(&lock);
		collecting = !error;
	}
	reply_done(job->id, error, 0, true);
}

void handle_cover(struct job *job)
{
	struct chunk *chunk;
	uint64_t *found, count = 0;
	size_t size, filled_to = 0;
	bool complete;

	if (!take_end(job))
		return;
	chunk = malloc(sizeof(*chunk));
	if (!chunk)
		return reply_error(job->id, "out of memory");
	pthread_mutex_lock(&lock);
	for (struct cover *cover = busy; cover; cover = cover->next)
		take_over(cover);
	found = set;
	size = set_size;
	complete = !lost;
	set = NULL;
	set_size = set_count = 0;
	lost = false;
	pthread_mutex_unlock(&lock);
	for (size_t i = 0; i < size; i++) {
		if (!found[i])
			continue;
		store_u64(chunk->data + filled_to, found[i]);
		filled_to += sizeof(uint64_t);
		count++;
		if (filled_to == CHUNK_SIZE) {
			send_chunk(chunk, REPLY_DATA, job->id, CHUNK_SIZE, CHUNK_SIZE);
			filled_to = 0;
		}
	}
	if (filled_to)
		send_chunk(chunk, REPLY_DATA, job->id, (uint32_t)filled_to, filled_to);
	free(found);
	free(chunk);
	reply_done(job->id, 0, count, complete);
}

/* How many arguments of ours come before the environment and the arguments of a program that is to be covered. */
#define OWN_ARGUMENTS 5

/* Waits until the program is executed; an errno or 0. */
static int outcome(pid_t pid, int status)
{
	int error = 0;
	ssize_t got;

	do
		got = read(status, &error, sizeof(error));
	while (got < 0 && errno == EINTR);
	if (got != sizeof(error))
		return 0;
	while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
		;
	return error;
}

int spawn_covered(pid_t *pid, posix_spawn_file_actions_t *actions, const posix_spawnattr_t *attributes,
		  char **argv, char **env, struct cover **cover)
{
	char numbers[3][24];
	char *own[OWN_ARGUMENTS] = { "kmodlab-agent", "--covered", numbers[0], numbers[1], numbers[2] };
	size_t count = 0, env_count = 0;
	char **arguments;
	int status[2], error;

	*cover = cover_begin();
	if (!*cover)
		return posix_spawnp(pid, argv[0], actions, attributes, argv, env);
	while (argv[count])
		count++;
	while (env[env_count])
		env_count++;
	arguments = calloc(OWN_ARGUMENTS + env_count + count + 1, sizeof(*arguments));
	if (!arguments || pipe2(status, O_CLOEXEC)) {
		error = errno;
	} else {
		snprintf(numbers[0], sizeof(numbers[0]), "%d", (*cover)->fd);
		snprintf(numbers[1], sizeof(numbers[1]), "%d", status[1]);
		snprintf(numbers[2], sizeof(numbers[2]), "%zu", env_count);
		memcpy(arguments, own, sizeof(own));
		memcpy(arguments + OWN_ARGUMENTS, env, env_count * sizeof(*env));
		memcpy(arguments + OWN_ARGUMENTS + env_count, argv, count * sizeof(*argv));
		/* A descriptor that takes its own place is inherited. */
		posix_spawn_file_actions_adddup2(actions, (*cover)->fd, (*cover)->fd);
		posix_spawn_file_actions_adddup2(actions, status[1], status[1]);
		/* Our environment, too, since ours says where programs are looked for. */
		error = posix_spawn(pid, "/proc/self/exe", actions, attributes, arguments, environ);
		close(status[1]);
		if (!error)
			error = outcome(*pid, status[0]);
		close(status[0]);
	}
	free(arguments);
	if (error) {
		cover_end(*cover);
		*cover = NULL;
	}
	return error;
}

/*
 * A program is covered from its first instruction on by being executed by a process that is: nobody but a task itself
 * can have it covered, and posix_spawn(3) has no place for an ioctl.
 */
int run_covered(char **arguments)
{
	int fd = atoi(arguments[0]), status = atoi(arguments[1]);
	size_t count = strtoul(arguments[2], NULL, 10);
	char **env = calloc(count + 1, sizeof(*env));
	int error = env ? 0 : ENOMEM;

	if (!error)
		memcpy(env, arguments + 3, count * sizeof(*env));
	if (!error && ioctl(fd, KCOV_ENABLE, KCOV_TRACE_PC))
		error = errno;
	close(fd);
	fcntl(status, F_SETFD, FD_CLOEXEC);
	if (!error) {
		/* Looks where our PATH says, as posix_spawnp(3) does. */
		execvpe(arguments[3 + count], arguments + 3 + count, env);
		error = errno;
	}
	return write(status, &error, sizeof(error)) < 0;
}
