// SPDX-License-Identifier: Apache-2.0
/*
 * Processes for the tests of tasks.go, where those of Go are too big or have a will of their own. What they have used and
 * waited for they tell themselves, just before they end.
 */
#define _GNU_SOURCE
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

// told is what all processes have told.
static struct told {
	atomic_ullong cpu, delay, slept, blkio, absurd;
	atomic_int missing; // at the start
} *told;

static unsigned long long cpu_before, delay_before; // of the first thread, when it came here

static long number(char **argv, int i)
{
	if (!argv[i])
		errx(2, "argument %d is missing", i);
	return atol(argv[i]);
}

static void read_text(const char *path, char *buf, size_t size)
{
	int fd = open(path, O_RDONLY);
	ssize_t n = fd < 0 ? -1 : read(fd, buf, size - 1);

	if (n < 0)
		err(2, "%s", path);
	buf[n] = 0;
	close(fd);
}

static void schedstat(unsigned long long *cpu, unsigned long long *delay)
{
	char buf[128];

	read_text("/proc/thread-self/schedstat", buf, sizeof(buf));
	if (sscanf(buf, "%llu %llu", cpu, delay) != 2)
		errx(2, "schedstat: %s", buf);
}

static void tell(void)
{
	unsigned long long cpu, delay;

	schedstat(&cpu, &delay);
	told->cpu += cpu;
	told->delay += delay;
}

static void say_told(void)
{
	printf("%llu %llu\n", told->cpu - cpu_before, told->delay - delay_before);
	fflush(stdout);
}

static long now_us(clockid_t clock)
{
	struct timespec t;

	clock_gettime(clock, &t);
	return t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

static void burn(long us)
{
	long end = now_us(CLOCK_THREAD_CPUTIME_ID) + us;

	while (now_us(CLOCK_THREAD_CPUTIME_ID) < end)
		;
}

static void exit_thread(int status) { syscall(SYS_exit, status); }

static pthread_t start_thread(void *(*run)(void *), void *arg)
{
	pthread_t t;

	if ((errno = pthread_create(&t, NULL, run, arg)))
		err(2, "pthread_create");
	return t;
}

static void wait_for_line(void)
{
	char c;

	while (read(0, &c, 1) == 1 && c != '\n')
		;
}

static void *burn_and_tell(void *us)
{
	burn((long)us);
	tell();
	return NULL;
}

// burn PROCESSES THREADS MICROSECONDS: processes, one after the other, of threads, that use so much CPU each.
static int run_burn(char **argv)
{
	long n = number(argv, 0), threads = number(argv, 1), us = number(argv, 2);
	pthread_t t[256];

	for (long i = 0; i < n; i++) {
		pid_t pid = fork();

		if (pid) {
			waitpid(pid, NULL, 0);
			continue;
		}
		for (long j = 1; j < threads; j++)
			t[j] = start_thread(burn_and_tell, (void *)us);
		burn(us);
		for (long j = 1; j < threads; j++)
			pthread_join(t[j], NULL);
		tell();
		_exit(0);
	}
	return 0;
}

// storm N: processes that end at once, as many as there is time for in three seconds. Says how many.
static int run_storm(char **argv)
{
	long n = number(argv, 0), end = now_us(CLOCK_MONOTONIC) + 3000000, i;

	for (i = 0; i < n && now_us(CLOCK_MONOTONIC) < end; i++) {
		pid_t pid = fork();

		if (!pid)
			_exit(0);
		if (pid < 0 || waitpid(pid, NULL, 0) != pid)
			err(2, "fork");
	}
	printf("%ld\n", i);
	return 0;
}

static long step_us;
static pthread_barrier_t barrier;

static void *run_step(void *unused)
{
	for (;;) {
		burn(step_us);
		pthread_barrier_wait(&barrier); // all are done
		pthread_barrier_wait(&barrier); // and may go on
	}
	return unused;
}

// steps THREADS MICROSECONDS: burn, say what was used before, and wait for a line, again and again until the end of the input.
static int run_steps(char **argv)
{
	long threads = number(argv, 0);
	char c;

	step_us = number(argv, 1);
	pthread_barrier_init(&barrier, NULL, threads);
	for (long j = 1; j < threads; j++)
		start_thread(run_step, NULL);
	for (;;) {
		burn(step_us);
		pthread_barrier_wait(&barrier);
		printf("%llu %llu\n", cpu_before, delay_before);
		fflush(stdout);
		if (read(0, &c, 1) != 1)
			return 0;
		pthread_barrier_wait(&barrier);
	}
}

static void *wait_and_exit(void *status)
{
	wait_for_line();
	exit_thread((long)status);
	return NULL;
}

// leader STATUS LAST: the leader ends with a status, another thread goes on until a line comes and ends with its own.
static int run_leader(char **argv)
{
	start_thread(wait_and_exit, (void *)number(argv, 1));
	exit_thread(number(argv, 0));
	return 0;
}

static void *exit_together(void *status)
{
	told->missing--;
	while (told->missing > 0)
		sched_yield();
	exit_thread((long)status);
	return NULL;
}

// together N THREADS: processes whose threads all end at once, as many as there is time for in three seconds. Says how many.
static int run_together(char **argv)
{
	long n = number(argv, 0), threads = number(argv, 1), end = now_us(CLOCK_MONOTONIC) + 3000000, i;

	for (i = 0; i < n && now_us(CLOCK_MONOTONIC) < end; i++) {
		told->missing = threads;
		pid_t pid = fork();

		if (!pid) {
			for (long j = 1; j < threads; j++)
				start_thread(exit_together, NULL);
			exit_together(NULL);
		}
		if (pid < 0 || waitpid(pid, NULL, 0) != pid)
			err(2, "fork");
	}
	printf("%ld\n", i);
	return 0;
}

static void *exec_self(void *argv)
{
	execv("/proc/self/exe", argv);
	err(2, "exec");
	return NULL;
}

// thread-exec COMMAND...: another thread than the leader begins this program anew.
static int run_thread_exec(char **argv)
{
	start_thread(exec_self, argv - 1);
	for (;;)
		pause();
	return 0;
}

// daemon WORKERS: goes to the background and ends with status 3 when a line comes; its workers, if any, when the next one does,
// with 4.
static int run_daemon(char **argv)
{
	pid_t parent = getpid();

	if (fork())
		_exit(0);
	setsid();
	while (getppid() == parent)
		usleep(1000);
	for (long i = number(argv, 0); i > 0; i--) {
		pid_t daemon = getpid();

		if (fork())
			continue;
		while (getppid() == daemon)
			usleep(1000);
		printf("%d\n", getpid());
		fflush(stdout);
		wait_for_line();
		_exit(4);
	}
	printf("%d\n", getpid());
	fflush(stdout);
	wait_for_line();
	return 3;
}

// signal NUMBER: kills itself.
static int run_signal(char **argv)
{
	struct rlimit no_core = {};

	setrlimit(RLIMIT_CORE, &no_core);
	kill(getpid(), number(argv, 0));
	return 0;
}

static int run_exit(char **argv) { return number(argv, 0); }

// stat_blkio_ticks reads field 42 of /proc/self/stat.
static long stat_blkio_ticks(void)
{
	char buf[1024], *p;

	read_text("/proc/self/stat", buf, sizeof(buf));
	p = strrchr(buf, ')') + 2;
	for (int field = 3; field < 42; field++)
		p = strchr(p, ' ') + 1;
	return atol(p);
}

// read PROCESSES MILLISECONDS FILE: processes, one after the other, that read from the disk for so long and say how long they
// slept, how long the kernel says that they waited, in whole ticks, and how many of them it tells impossible times.
static int run_read(char **argv)
{
	long n = number(argv, 0), us = number(argv, 1) * 1000, tick = 1000000 / sysconf(_SC_CLK_TCK);
	long blocks = 0;
	void *buf;
	int fd = open(argv[2], O_RDONLY | O_DIRECT);

	if (fd < 0 || posix_memalign(&buf, 4096, 65536))
		err(2, "%s", argv[2]);
	blocks = lseek(fd, 0, SEEK_END) / 65536;
	for (long i = 0; i < n; i++) {
		pid_t pid = fork();

		if (pid) {
			waitpid(pid, NULL, 0);
			continue;
		}
		srandom(getpid());
		unsigned long long cpu, delay;
		long begin = now_us(CLOCK_MONOTONIC), slept, waited;

		while (now_us(CLOCK_MONOTONIC) < begin + us)
			if (pread(fd, buf, 65536, random() % blocks * 65536) != 65536)
				err(2, "read");
		schedstat(&cpu, &delay);
		slept = now_us(CLOCK_MONOTONIC) - begin - (cpu + delay) / 1000;
		waited = stat_blkio_ticks() * tick;
		told->slept += slept > 0 ? slept : 0;
		if (waited > slept + tick)
			told->absurd++;
		else
			told->blkio += waited + tick / 2;
		_exit(0);
	}
	printf("%llu %llu %llu\n", told->slept, told->blkio, told->absurd);
	return 0;
}

static void enter(const char *dir)
{
	char path[4096];
	int fd;

	snprintf(path, sizeof(path), "%s/cgroup.procs", dir);
	fd = open(path, O_WRONLY);
	if (fd < 0 || write(fd, "0", 1) != 1)
		err(2, "%s", path);
	close(fd);
}

// tasks DIR... COMMAND ARGUMENT...: enters the cgroups and begins anew without them.
int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		int (*run)(char **);
	} commands[] = {
		{"burn", run_burn}, {"storm", run_storm}, {"steps", run_steps}, {"leader", run_leader}, {"together", run_together},
		{"thread-exec", run_thread_exec}, {"daemon", run_daemon}, {"exit", run_exit}, {"signal", run_signal}, {"read", run_read},
	};
	int i = 1;

	if (argc < 2)
		errx(2, "no command");
	for (; argv[i] && argv[i][0] == '/'; i++)
		enter(argv[i]);
	if (i > 1) {
		argv[i - 1] = argv[0];
		execv("/proc/self/exe", argv + i - 1);
		err(2, "exec");
	}
	told = mmap(NULL, sizeof(*told), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (told == MAP_FAILED)
		err(2, "mmap");
	schedstat(&cpu_before, &delay_before);
	for (i = 0; i < (int)(sizeof(commands) / sizeof(commands[0])); i++) {
		if (strcmp(argv[1], commands[i].name))
			continue;
		int status = commands[i].run(argv + 2);

		if (!strcmp(argv[1], "burn")) {
			tell();
			say_told();
		}
		return status;
	}
	errx(2, "command %s", argv[1]);
}
