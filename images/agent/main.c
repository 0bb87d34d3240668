// SPDX-License-Identifier: MIT OR Apache-2.0
/* Process 1, which sets the guest up and stays behind, and the worker, which serves the host. */
#include "agent.h"

#include <fcntl.h>
#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

bool visiting;

void say(const char *format, ...)
{
	char line[512] = "kmodlab-agent: ";
	size_t size = strlen(line);
	va_list arguments;
	int added;

	va_start(arguments, format);
	added = vsnprintf(line + size, sizeof(line) - size - 1, format, arguments);
	va_end(arguments);
	if (added < 0)
		return;
	size = strlen(line);
	line[size++] = '\n';
	/* In one write, so that it is one line on a console that the kernel writes to as well. */
	if (write(STDERR_FILENO, line, size) < 0)
		return;
}

int64_t now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

void sleep_ms(unsigned int ms)
{
	struct timespec time = { .tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000 };

	while (nanosleep(&time, &time) && errno == EINTR)
		;
}

void power_off(void)
{
	if (visiting)
		_exit(0);
	sync();
	reboot(RB_POWER_OFF);
	say("power off: %s", strerror(errno));
	for (;;)
		pause();
}

int start_thread(void *(*body)(void *argument), void *argument)
{
	pthread_attr_t attributes;
	pthread_t thread;
	int error;

	pthread_attr_init(&attributes);
	pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
	/* Room for two frames and the C library; untouched pages cost nothing. */
	pthread_attr_setstacksize(&attributes, 256 * 1024);
	error = pthread_create(&thread, &attributes, body, argument);
	pthread_attr_destroy(&attributes);
	return error;
}

static void prepare(void)
{
	static const int ignored[] = { SIGPIPE, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1,
				       SIGUSR2, SIGALRM, SIGIO, SIGTSTP, SIGTTIN, SIGTTOU };

	for (size_t i = 0; i < sizeof(ignored) / sizeof(*ignored); i++)
		signal(ignored[i], SIG_IGN);
	umask(0);
	/* One heap for all threads. */
	mallopt(M_ARENA_MAX, 1);
}

_Noreturn static void work(void)
{
	int control, log, trace, error;

	/* Threads get it too: it is what traces show for all that is done on the host's behalf. */
	prctl(PR_SET_NAME, "kmodlab-agent");
	control = open_port("kmodlab.control");
	log = open_port("kmodlab.log");
	trace = open_port("kmodlab.trace");
	open_streams(log, trace);
	error = start_stream("/dev/kmsg", PORT_LOG, 0, false);
	if (error)
		say("/dev/kmsg: %s", strerror(error));
	serve(control);
	_exit(1);
}

/* All that process 1 does once the guest is up: reap, and not let the guest hang without an agent. */
_Noreturn static void stay(pid_t worker)
{
	for (;;) {
		int status;
		pid_t pid = wait(&status);

		if (pid != worker)
			continue;
		if (WIFSIGNALED(status))
			say("died: signal %u", generic_signal(WTERMSIG(status)));
		else
			say("died: exit status %d", WEXITSTATUS(status));
		power_off();
	}
}

int main(int argc, char **argv)
{
	pid_t worker;

	if (argc > 5 && !strcmp(argv[1], "--covered"))
		return run_covered(argv + 2);
	if (argc == 5 && !strcmp(argv[1], "--serve")) {
		visiting = true;
		prepare();
		for (int i = 2; i < argc; i++)
			fcntl(atoi(argv[i]), F_SETFD, FD_CLOEXEC);
		open_streams(atoi(argv[3]), atoi(argv[4]));
		serve(atoi(argv[2]));
		return 0;
	}
	if (getpid() != 1) {
		say("this is the init of a guest; elsewhere it takes --serve CONTROL LOG TRACE");
		return 2;
	}
	prepare();
	boot();
	worker = fork();
	if (worker == 0)
		work();
	if (worker < 0) {
		say("died: fork: %s", strerror(errno));
		power_off();
	}
	stay(worker);
}
