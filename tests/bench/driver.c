/*
 * Runs one command and measures it: the clockwork of the benchmark.
 *
 * Owns the measuring of one run; what is run, how often and what it means is `guest`'s, its only caller.
 * Prints one line: announced and wall time in microseconds from just before exec, user and system CPU time in
 * microseconds, largest resident set in KiB, exit status. `announced` is the arrival of the first ARP frame on
 * the far end of the wire, stamped by the kernel, or 0.
 *
 * usage: driver [-i INTERFACE] [-u ADDRESS:PORT:COUNT] -- COMMAND [ARGUMENT]...
 *   -i  the far end of the wire, where announcements arrive
 *   -u  the command is a daemon: done when this TCP service has COUNT real servers; then it is killed
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/ip_vs.h>
#include <net/if.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/personality.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static void fail(const char *what)
{
	perror(what);
	exit(125);
}

/* Packet sockets are stamped by the wall clock, so everything is; the guest's is set by nobody. */
static long long now(void)
{
	struct timespec at;

	clock_gettime(CLOCK_REALTIME, &at);
	return at.tv_sec * 1000000000LL + at.tv_nsec;
}

static int listen_on(const char *interface)
{
	int on = 1, fd = socket(AF_PACKET, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC, htons(ETH_P_ARP));
	struct sockaddr_ll at = { .sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_ARP) };

	at.sll_ifindex = (int)if_nametoindex(interface);
	if (fd < 0 || !at.sll_ifindex || bind(fd, (struct sockaddr *)&at, sizeof at))
		fail(interface);
	if (setsockopt(fd, SOL_SOCKET, SO_TIMESTAMPNS, &on, sizeof on))
		fail("SO_TIMESTAMPNS");
	/* The kernel turns its stamping on in the background. */
	usleep(50000);
	return fd;
}

/* The stamp of the first frame that the wire brought; those sent by this end do not count. */
static long long first_frame(int fd)
{
	struct sockaddr_ll from;
	struct timespec at;
	char frame[64], control[128];
	struct iovec place = { frame, sizeof frame };

	usleep(2000);
	for (;;) {
		struct msghdr message = { &from, sizeof from, &place, 1, control, sizeof control, 0 };
		struct cmsghdr *stamp;

		if (recvmsg(fd, &message, 0) < 0)
			return 0;
		stamp = CMSG_FIRSTHDR(&message);
		if (from.sll_pkttype == PACKET_OUTGOING || !stamp || stamp->cmsg_type != SCM_TIMESTAMPNS)
			continue;
		memcpy(&at, CMSG_DATA(stamp), sizeof at);
		return at.tv_sec * 1000000000LL + at.tv_nsec;
	}
}

static int is_filled(int fd, const struct ip_vs_service_entry *wanted, unsigned int count)
{
	struct ip_vs_service_entry found = *wanted;
	socklen_t length = sizeof found;

	return !getsockopt(fd, IPPROTO_IP, IP_VS_SO_GET_SERVICE, &found, &length) && found.num_dests >= count &&
	       strcmp(found.sched_name, "none") != 0;
}

int main(int argc, char **argv)
{
	struct ip_vs_service_entry last = { .protocol = IPPROTO_TCP };
	unsigned int count = 0;
	int option, wire = -1, table = -1, status = 0;
	long long begun, ended, heard = 0;
	struct rusage used;
	pid_t child;

	while ((option = getopt(argc, argv, "+i:u:")) != -1) {
		char address[16];
		unsigned short port;

		if (option == 'i') {
			wire = listen_on(optarg);
		} else if (option == 'u' && sscanf(optarg, "%15[0-9.]:%hu:%u", address, &port, &count) == 3) {
			last.addr = inet_addr(address);
			last.port = htons(port);
			table = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
		} else {
			return 125;
		}
	}
	begun = now();
	child = vfork();
	if (child == 0) {
		/* As keepalived does it: no terminal, nothing to read, nobody who listens. */
		int null = open("/dev/null", O_RDWR);

		setpgid(0, 0);
		/* An emulator translates a program anew for every address at which it is loaded. */
		personality(ADDR_NO_RANDOMIZE);
		dup2(null, 0);
		dup2(null, 1);
		if (!getenv("BENCH_SHOW"))
			dup2(null, 2);
		execvp(argv[optind], argv + optind);
		_exit(127);
	}
	if (child < 0)
		fail("vfork");
	if (table >= 0) {
		while (!is_filled(table, &last, count)) {
			if (now() - begun > 600000000000LL || waitpid(child, NULL, WNOHANG))
				return 125;
			usleep(500);
		}
		ended = now();
		kill(-child, SIGKILL);
	}
	while (wait4(child, &status, 0, &used) < 0)
		if (errno != EINTR)
			fail("wait4");
	if (table < 0)
		ended = now();
	if (wire >= 0)
		heard = first_frame(wire);
	printf("%lld %lld %ld %ld %ld %d\n", heard ? (heard - begun) / 1000 : 0, (ended - begun) / 1000,
	       used.ru_utime.tv_sec * 1000000L + used.ru_utime.tv_usec,
	       used.ru_stime.tv_sec * 1000000L + used.ru_stime.tv_usec, used.ru_maxrss,
	       WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
	return 0;
}
