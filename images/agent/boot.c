// SPDX-License-Identifier: MIT OR Apache-2.0
/* Setting up the guest, with plain system calls: no shell, no fork. */
#include "agent.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <termios.h>

#define MODULE_LIST "/etc/kmodlab/modules"
#define PORTS "/sys/class/virtio-ports"

static int mount_at(const char *type, const char *dir, const char *options)
{
	/* Where sysfs provides the directory this fails, which is as well. */
	mkdir(dir, 0755);
	/* Already mounted is what was wanted. */
	return mount(type, dir, type, 0, options) && errno != EBUSY ? errno : 0;
}

static void must_mount(const char *type, const char *dir, const char *options)
{
	int error = mount_at(type, dir, options);

	if (error)
		say("mount %s on %s: %s", type, dir, strerror(error));
}

/* Standard input, output and error, whatever the kernel opened for us. */
static void open_console(void)
{
	int fd = open("/dev/console", O_RDWR | O_NOCTTY);

	if (fd < 0)
		fd = open("/dev/null", O_RDWR);
	for (int i = 0; i <= STDERR_FILENO && fd >= 0; i++)
		if (fd != i)
			dup2(fd, i);
	if (fd > STDERR_FILENO)
		close(fd);
}

static void link_at(const char *target, const char *path)
{
	if (symlink(target, path) && errno != EEXIST)
		say("link %s: %s", path, strerror(errno));
}

const char *tracing_dir(void)
{
	static const char *found;

	if (found)
		return found;
	if (!access("/sys/kernel/tracing/trace", F_OK))
		found = "/sys/kernel/tracing";
	/* Looking it up mounts it there; before Linux 4.1 it was there only. */
	else if (!access("/sys/kernel/debug/tracing/trace", F_OK))
		found = "/sys/kernel/debug/tracing";
	else
		found = "";
	return found;
}

static void load_listed_modules(void)
{
	FILE *list = fopen(MODULE_LIST, "re");
	char *line = NULL;
	size_t room = 0;
	ssize_t size;

	if (!list) {
		if (errno != ENOENT)
			say("%s: %s", MODULE_LIST, strerror(errno));
		return;
	}
	while ((size = getline(&line, &room, list)) >= 0) {
		int error;

		if (size && line[size - 1] == '\n')
			line[--size] = 0;
		if (!size)
			continue;
		error = load_module(line, "", 0);
		if (error && error != EEXIST)
			say("load %s: %s", line, strerror(error));
	}
	free(line);
	fclose(list);
}

void boot(void)
{
	int tracefs;

	/* A program without a slash in its name is looked for where our own environment says. */
	setenv("PATH", SEARCH_PATH, 1);
	must_mount("devtmpfs", "/dev", "mode=0755");
	open_console();
	must_mount("proc", "/proc", "");
	must_mount("sysfs", "/sys", "");
	must_mount("debugfs", "/sys/kernel/debug", "");
	tracefs = mount_at("tracefs", "/sys/kernel/tracing", "");
	if (!*tracing_dir())
		say("mount tracefs on /sys/kernel/tracing: %s", strerror(tracefs));
	must_mount("tmpfs", "/tmp", "mode=1777");
	must_mount("tmpfs", "/run", "mode=0755");
	link_at("/proc/self/fd", "/dev/fd");
	link_at("/proc/self/fd/0", "/dev/stdin");
	link_at("/proc/self/fd/1", "/dev/stdout");
	link_at("/proc/self/fd/2", "/dev/stderr");
	load_listed_modules();
}

/* Writes the device's path to `path` if `entry` is the port of that name. */
static bool is_port(const char *entry, const char *name, char *path, size_t room)
{
	char found[64] = "";
	FILE *file;

	snprintf(path, room, PORTS "/%s/name", entry);
	file = fopen(path, "re");
	if (!file)
		return false;
	if (fgets(found, sizeof(found), file))
		found[strcspn(found, "\n")] = 0;
	fclose(file);
	snprintf(path, room, "/dev/%s", entry);
	return !strcmp(found, name);
}

/* Writes the device's path to `path` if the kernel's arguments name a serial line for the port: `kmodlab.log=ttyS2`. */
static bool find_line(const char *name, char *path, size_t room)
{
	char arguments[4096] = "", *rest = arguments, *word;
	FILE *file = fopen("/proc/cmdline", "re");
	size_t size = strlen(name);

	if (!file)
		return false;
	if (!fgets(arguments, sizeof(arguments), file))
		rest = NULL;
	fclose(file);
	while ((word = strsep(&rest, " \n")))
		if (!strncmp(word, name, size) && word[size] == '=')
			return snprintf(path, room, "/dev/%s", word + size + 1) < (int)room;
	return false;
}

/* -1 as long as the line is not there. */
static int open_line(const char *path)
{
	/* Else it would wait for a carrier. */
	int fd = open(path, O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
	struct termios line;
	int bits;

	if (fd < 0)
		return -1;
	/* A line without a device opens, too, and tells then; some drivers have no such bits, and say something else. */
	if ((ioctl(fd, TIOCMGET, &bits) && errno == EIO) || tcgetattr(fd, &line)) {
		close(fd);
		return -1;
	}
	cfmakeraw(&line);
	line.c_iflag = IGNBRK;
	line.c_cflag |= CLOCAL | CREAD;
	line.c_cflag &= ~(tcflag_t)(CRTSCTS | HUPCL);
	line.c_cc[VMIN] = 1;
	line.c_cc[VTIME] = 0;
	cfsetispeed(&line, B115200);
	cfsetospeed(&line, B115200);
	if (tcsetattr(fd, TCSANOW, &line) || fcntl(fd, F_SETFL, O_RDWR)) {
		close(fd);
		return -1;
	}
	return fd;
}

/* -1 as long as there is none, or as it cannot be opened yet. */
static int try_port(const char *name)
{
	DIR *dir = opendir(PORTS);
	struct dirent *entry;
	char path[512];
	int fd = -1;

	while (dir && fd < 0 && (entry = readdir(dir)))
		if (is_port(entry->d_name, name, path, sizeof(path)))
			fd = open(path, O_RDWR | O_CLOEXEC);
	if (dir)
		closedir(dir);
	return fd;
}

int open_port(const char *name)
{
	int64_t complain = now() + (int64_t)10 * 1000000000;
	char line[64];
	bool on_line = find_line(name, line, sizeof(line));

	for (;;) {
		int fd = on_line ? open_line(line) : try_port(name);

		if (fd >= 0)
			return fd;
		if (now() > complain) {
			if (on_line)
				say("no serial line %s for %s", line, name);
			else
				say("no virtio-serial port named %s (is virtio_console loaded?)", name);
			complain = INT64_MAX;
		}
		/* The port shows before the host's end is known; opening it fails with ENXIO until then. */
		sleep_ms(1);
	}
}
