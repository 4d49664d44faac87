/*
 * The limit: the messages of a cold takeover, made ready beforehand, sent as fast as the kernel takes them.
 *
 * Owns the bytes of these messages, written down independently of lvs-notify. Called by `guest`: `limit
 * prepare` turns rules (one a line: `A ADDRESS PORT SCHEDULER` begins a TCP service, `a ADDRESS PORT WEIGHT`
 * adds a real server to it, nat) into datagrams, which `limit send` sends. No other part of a takeover is here.
 * What is known to be fast is in it: datagrams of 64 to 128 KiB with one ACK at the end, and services that get
 * their scheduler after their real servers, which for mh is a factor of forty.
 */
#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/genetlink.h>
#include <linux/ip_vs.h>
#include <linux/netlink.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define DATAGRAM (64 * 1024)

static void fail(const char *what)
{
	perror(what);
	exit(1);
}

static int open_socket(void)
{
	struct sockaddr_nl kernel = { .nl_family = AF_NETLINK };
	int fd = socket(AF_NETLINK, SOCK_RAW, NETLINK_GENERIC);

	if (fd < 0 || connect(fd, (struct sockaddr *)&kernel, sizeof kernel))
		fail("netlink");
	return fd;
}

static char batch[2 * DATAGRAM];
static size_t used;

static struct nlmsghdr *begin(int type, int flags, int command)
{
	struct nlmsghdr *message = (void *)(batch + used);
	struct genlmsghdr *generic = NLMSG_DATA(message);

	memset(message, 0, 512);
	message->nlmsg_type = (__u16)type;
	message->nlmsg_flags = (__u16)(NLM_F_REQUEST | flags);
	message->nlmsg_len = NLMSG_LENGTH(sizeof *generic);
	generic->cmd = (__u8)command;
	generic->version = 1;
	return message;
}

static struct nlattr *put(struct nlmsghdr *message, int type, const void *value, size_t length)
{
	struct nlattr *attribute = (void *)((char *)message + message->nlmsg_len);

	attribute->nla_type = (__u16)type;
	attribute->nla_len = (__u16)(NLA_HDRLEN + length);
	if (value)
		memcpy((char *)attribute + NLA_HDRLEN, value, length);
	message->nlmsg_len += (__u32)NLA_ALIGN(attribute->nla_len);
	return attribute;
}

static void put32(struct nlmsghdr *message, int type, __u32 value)
{
	put(message, type, &value, sizeof value);
}

static void put16(struct nlmsghdr *message, int type, __u16 value)
{
	put(message, type, &value, sizeof value);
}

static void close_nest(struct nlmsghdr *message, struct nlattr *nest)
{
	nest->nla_len = (__u16)((char *)message + message->nlmsg_len - (char *)nest);
}

static void put_address(struct nlmsghdr *message, int type, const char *text)
{
	char address[16] = { 0 };

	if (inet_pton(AF_INET, text, address) != 1)
		fail(text);
	put(message, type, address, sizeof address);
}

static int family(int fd)
{
	struct nlmsghdr *message = begin(GENL_ID_CTRL, 0, CTRL_CMD_GETFAMILY);
	char reply[4096];
	struct nlattr *attribute;

	put(message, CTRL_ATTR_FAMILY_NAME, "IPVS", 5);
	if (send(fd, message, message->nlmsg_len, 0) < 0 || recv(fd, reply, sizeof reply, 0) < 0)
		fail("IPVS");
	attribute = (void *)(reply + NLMSG_LENGTH(sizeof(struct genlmsghdr)));
	while (attribute->nla_type != CTRL_ATTR_FAMILY_ID)
		attribute = (void *)((char *)attribute + NLA_ALIGN(attribute->nla_len));
	return *(__u16 *)((char *)attribute + NLA_HDRLEN);
}

struct service {
	char address[64], scheduler[16];
	unsigned int port;
};

static void put_key(struct nlmsghdr *message, const struct service *service)
{
	put16(message, IPVS_SVC_ATTR_AF, AF_INET);
	put16(message, IPVS_SVC_ATTR_PROTOCOL, IPPROTO_TCP);
	put_address(message, IPVS_SVC_ATTR_ADDR, service->address);
	put16(message, IPVS_SVC_ATTR_PORT, htons((__u16)service->port));
}

static void service_message(int type, int command, const struct service *service, const char *scheduler)
{
	struct nlmsghdr *message = begin(type, 0, command);
	struct nlattr *nest = put(message, IPVS_CMD_ATTR_SERVICE, NULL, 0);
	struct ip_vs_flags flags = { 0, ~0U };

	put_key(message, service);
	put(message, IPVS_SVC_ATTR_SCHED_NAME, scheduler, strlen(scheduler) + 1);
	put(message, IPVS_SVC_ATTR_FLAGS, &flags, sizeof flags);
	put32(message, IPVS_SVC_ATTR_TIMEOUT, 0);
	put32(message, IPVS_SVC_ATTR_NETMASK, ~0U);
	close_nest(message, nest);
	used += message->nlmsg_len;
}

static void server_message(int type, const struct service *service, const char *address, unsigned int port,
			   unsigned int weight)
{
	struct nlmsghdr *message = begin(type, 0, IPVS_CMD_NEW_DEST);
	struct nlattr *nest = put(message, IPVS_CMD_ATTR_SERVICE, NULL, 0);

	put_key(message, service);
	close_nest(message, nest);
	nest = put(message, IPVS_CMD_ATTR_DEST, NULL, 0);
	put16(message, IPVS_DEST_ATTR_ADDR_FAMILY, AF_INET);
	put_address(message, IPVS_DEST_ATTR_ADDR, address);
	put16(message, IPVS_DEST_ATTR_PORT, htons((__u16)port));
	put32(message, IPVS_DEST_ATTR_FWD_METHOD, IP_VS_CONN_F_MASQ);
	put32(message, IPVS_DEST_ATTR_WEIGHT, weight);
	put32(message, IPVS_DEST_ATTR_U_THRESH, 0);
	put32(message, IPVS_DEST_ATTR_L_THRESH, 0);
	close_nest(message, nest);
	used += message->nlmsg_len;
}

/* A datagram in the file: its length, then its bytes, the last message of which asks for an ACK. */
static void flush(void)
{
	struct nlmsghdr *end = begin(NLMSG_NOOP, NLM_F_ACK, 0);
	__u32 length;

	if (!used)
		return;
	end->nlmsg_len = NLMSG_HDRLEN;
	length = (__u32)(used += NLMSG_HDRLEN);
	fwrite(&length, sizeof length, 1, stdout);
	fwrite(batch, 1, used, stdout);
	used = 0;
}

static void prepare(void)
{
	int type = family(open_socket());
	struct service service = { .port = 0 };
	char kind[2], address[64], last[16];
	unsigned int port;

	while (scanf("%1s %63s %u %15s", kind, address, &port, last) == 4) {
		if (*kind == 'A') {
			if (service.port)
				service_message(type, IPVS_CMD_SET_SERVICE, &service, service.scheduler);
			if (used > DATAGRAM)
				flush();
			strcpy(service.address, address);
			strcpy(service.scheduler, last);
			service.port = port;
			service_message(type, IPVS_CMD_NEW_SERVICE, &service, "none");
		} else {
			server_message(type, &service, address, port, (unsigned int)atoi(last));
			if (used > sizeof batch - 1024)
				flush();
		}
	}
	if (service.port)
		service_message(type, IPVS_CMD_SET_SERVICE, &service, service.scheduler);
	flush();
}

static void send_file(const char *path)
{
	int fd = open_socket(), file = open(path, O_RDONLY);
	struct stat status;
	char *bytes, *end, reply[4096];

	if (file < 0 || fstat(file, &status))
		fail(path);
	if (!status.st_size)
		return;
	bytes = mmap(NULL, (size_t)status.st_size, PROT_READ, MAP_PRIVATE | MAP_POPULATE, file, 0);
	if (bytes == MAP_FAILED)
		fail(path);
	for (end = bytes + status.st_size; bytes < end;) {
		__u32 length;
		struct nlmsgerr *answer = NLMSG_DATA((struct nlmsghdr *)reply);

		memcpy(&length, bytes, sizeof length);
		if (send(fd, bytes + sizeof length, length, 0) != (ssize_t)length)
			fail("send");
		if (recv(fd, reply, sizeof reply, 0) < 0)
			fail("recv");
		/* Errors come first, the ACK of the empty last message ends it. */
		if (answer->error || answer->msg.nlmsg_type != NLMSG_NOOP) {
			fprintf(stderr, "limit: refused: %s\n", strerror(-answer->error));
			exit(1);
		}
		bytes += sizeof length + length;
	}
}

int main(int argc, char **argv)
{
	if (argc == 2 && !strcmp(argv[1], "prepare"))
		prepare();
	else if (argc == 3 && !strcmp(argv[1], "send"))
		send_file(argv[2]);
	else
		return 2;
	return 0;
}
