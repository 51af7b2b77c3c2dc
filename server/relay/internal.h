/* What the files of relay share; for nobody else. */
#pragma once

#include "relay/flows.h"
#include "relay/relay.h"

enum { FAMILIES = 2 /* IPv4, IPv6 */, ERROR_BUCKETS = 64 };

/* How a datagram came, or is to go: what its IP header says. */
struct hop {
	uint8_t tos; /* DSCP and ECN */
	uint8_t ttl; /* 0: the kernel's choice */
};

/* An address and port, with the interface where the address needs one. */
struct place {
	struct ip ip;
	uint16_t port;
	uint32_t scope;
};

/* Something that may happen so often. */
struct bucket {
	uint64_t at; /* loop ms */
	uint32_t tokens;
};

struct echoes;

struct relay_family {
	struct relay *relay;
	int listen_fd, answer_fd, icmp_fd; /* -1: not open */
	uint32_t overflows;		   /* as the kernel last told */
	uv_poll_t poll;			   /* of listen_fd */
};

struct relay {
	uv_loop_t *loop;
	struct relay_parts parts;
	struct relay_family families[FAMILIES];
	struct flows flows;
	size_t waiting_bytes;		     /* of datagrams whose name is being resolved */
	struct bucket errors[ERROR_BUCKETS]; /* by the app's address */
	struct echoes *echoes;
	struct batch *batch;
	uv_timer_t sweep;
	unsigned handles; /* not yet closed, one of them the owner's: the last frees */
	bool closing;
	struct relay_statistics statistics;
};

static inline struct relay_family *relay_family_of(struct relay *relay, const struct ip *ip)
{
	return &relay->families[!ip_is_v4(ip)];
}

/* relay.c */
void relay_handle_closed(struct relay *relay);
/* The rule, and the best link that it allows and that carries the family (0: any). NULL: none. */
struct link *relay_choose(struct relay *relay, const struct rule_policy *policy, int family,
			  uint32_t *tried);
/* Where no datagram of an app belongs: the device, groups, nobody. */
bool relay_is_no_destination(struct relay *relay, const struct ip *ip);
bool relay_is_host(struct relay *relay, const struct ip *app);
bool bucket_take(struct bucket *bucket, uint64_t now, uint32_t rate);

/* socket.c: sockets that send from addresses of others. Negative errno, or the descriptor. */
int socket_listen(struct relay *relay, const struct ip *address);
int socket_answer(struct relay *relay, int family);
int socket_icmp(struct relay *relay, int family);
/* Room for all that a message may bring or take along. */
union control {
	struct cmsghdr header;
	char bytes[256];
};
struct arrival {
	struct hop hop;
	struct place destination;
	int interface;
	uint32_t overflows;
};
void control_read(struct msghdr *message, struct arrival *ret_arrival);
/* from: NULL: as the socket is bound. */
void control_write(struct msghdr *message, union control *control, int family,
		   const struct ip *from, const struct hop *hop);
socklen_t place_to_sockaddr(const struct place *place, struct sockaddr_storage *ret_sa);
struct place place_from_sockaddr(const struct sockaddr_storage *sa);
uint32_t checksum_add(uint32_t sum, const void *bytes, size_t len);
uint16_t checksum_fold(uint32_t sum);

/* icmp.c: errors to apps */
struct icmp_quote {
	struct place app; /* port: not looked at */
	struct ip destination;
	uint8_t protocol, tos, ttl;
	uint16_t len;	  /* behind the IP header */
	uint8_t first[8]; /* octets behind it */
};
struct icmp_error {
	uint8_t type, code;    /* of the app's family */
	uint32_t info;	       /* the second word; host order */
	const struct ip *from; /* NULL: the address that the app sent to */
	bool of_device;	       /* the device's own word: its own address */
};
enum refusal { REFUSAL_PORT, REFUSAL_HOST, REFUSAL_RULE, REFUSAL_HOPS };
void icmp_tell(struct relay *relay, const struct icmp_quote *quote, const struct icmp_error *error);
void icmp_refuse(struct relay *relay, const struct icmp_quote *quote, enum refusal refusal);
/* What a link's error becomes for the app: false: not for apps. */
bool icmp_translate(bool from_v6, bool to_v6, struct icmp_error *error);
/* A message of ours to an app, from any address; its checksum is filled. */
int icmp_send(struct relay *relay, const struct place *app, const struct ip *from,
	      const struct hop *hop, uint8_t *message, size_t len);
void icmp_quote_udp(struct icmp_quote *quote, const struct flow_key *key, size_t len);

/* udp.c */
int udp_open(struct relay *relay, int index);
void udp_close(struct relay *relay);
void udp_sweep(struct relay *relay, uint64_t now);
void udp_link_lost(struct relay *relay, struct link *link);

/* echo.c */
int echoes_new(struct relay *relay);
void echoes_close(struct relay *relay);
void echoes_sweep(struct relay *relay, uint64_t now);
void echoes_link_lost(struct relay *relay, struct link *link);
size_t echoes_count(const struct relay *relay);
