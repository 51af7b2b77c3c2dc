/*
 * Every size and time of the daemon that no configuration key sets. One place, so that
 * the bounds can be read together. Times in milliseconds, sizes in bytes.
 */
#pragma once

/* names */
#define NAME_TEXT_MAX 254 /* a domain name as text, with its NUL (RFC 1035: 253) */
#define ID_TEXT_MAX   40  /* an exchange's id as text, with its NUL */

/* links */
#define LINKS_MAX	     16
#define LINK_PROBE_GAP	     200  /* between the starts of two probes of one link */
#define LINK_PROBE_QUICK     500  /* to the next one while it is not clear how a link is */
#define LINK_SUSPECT_TIME    2000 /* of a link without a probe */
#define LINK_DNS_SERVERS_MAX 8

/* rtnl */
#define RTNL_SETTLE_TIME    10 /* events of one burst are read together */
#define RTNL_INTERFACES_MAX 4096
#define RTNL_ADDRESSES_MAX  8192
#define RTNL_ROUTES_MAX	    32768
#define RTNL_RULES_MAX	    8192

/* steer */
#define STEER_SETTLE_TIME  20	/* changes of the network are compared together */
#define STEER_REPAIR_PAUSE 200	/* between two comparisons: a quarrel costs little */
#define STEER_CHECK_TIME   500	/* for what sends no event */
#define STEER_ALIVE_TIME   5000 /* after the last sign of life steered packets are refused */
#define STEER_TEXT_MAX	   256	/* of an event's detail, with its end */
#define STEER_RAISED_MAX   64	/* packets of the ring in one turn of the loop */

/* programs that are uploaded: what the kernel side takes */
#define TRIAL_PEERS_MAX	    256	       /* connections that a program must not cut */
#define TRIAL_MAPS_MAX	    32	       /* that are shared by the programs in service */
#define TRIAL_MAP_BYTES	    (8 << 20)  /* of all maps that an object brings */
#define TRIAL_VERIFIER_LOG  (1 << 20)  /* the kernel writes */
#define TRIAL_LOG_MAX	    (16 << 10) /* of it that is kept, from its end */
#define OBJECT_SECTIONS_MAX 1024

/* programs */
#define PROGRAMS_MAX		16  /* kept, without the built-in one */
#define PROGRAM_EVENTS_MAX	32  /* of one program */
#define PROGRAM_NAMES_MAX	256 /* whose newest confirmed version is remembered */
#define PROGRAM_KEY_FILE_MAX	(16 << 10)
#define PROGRAM_KEYS_CHECK	10000 /* trusted keys are read again */
#define PROGRAM_WATCH_TICK	100   /* between two looks at a program on probation */
#define PROGRAM_WATCH_WINDOW	1000  /* that drops are counted in */
#define PROGRAM_DROPS_MIN	100   /* in one window; fewer are no jump */
#define PROGRAM_ROLLBACK_RETRY	1000  /* the kernel did not take the program before */
#define PROGRAM_CONFIRM_MIN	1000
#define PROGRAM_CONFIRM_MAX	(86400 * 1000)
#define PROGRAM_WARNINGS_MAX	16
#define PROGRAM_SIGNATURE_BYTES 64 /* Ed25519 (RFC 8032) */
#define PROGRAM_DIGEST_BYTES	32 /* SHA-256 */

/* counters over time */
#define SAMPLER_QUICK	   1000	 /* between two looks while somebody asks for rates */
#define SAMPLER_SLOW	   2000	 /* and otherwise */
#define SAMPLER_ASKED_TIME 60000 /* after the last question */
#define OBSTACLE_LOOKS	   3	 /* with attempts and no arrival, to believe it */
#define SAMPLER_EVENTS_MAX 10	 /* drops that are told after one look */

/* configuration */
#define CONFIG_FILE_MAX	  (1 << 20)
#define CONFIG_RULES_MAX  256
#define CONFIG_ALLOW_MAX  32
#define CONFIG_EXEMPT_MAX 16 /* as many as the kernel's settings hold */
#define CONFIG_LIST_MAX	  64
#define INTERFACES_MAX	  64

/* HTTP */
#define HTTP_HEAD_MAX	      (64 << 10) /* request or response head */
#define HTTP_INPUT_KEPT	      (4 << 10)	 /* of a buffer for what is read, while a request waits */
#define HTTP_FIELDS_MAX	      128
#define HTTP_HEAD_OWN	      (1 << 10) /* beside these, for what is added here */
#define HTTP_FIELDS_OWN	      8		/* the same in fields */
#define HTTP_TARGET_MAX	      (16 << 10)
#define HTTP_UPGRADE_MAX      256 /* what Upgrade lists */
#define HTTP_TRAILERS_MAX     (8 << 10)
#define HTTP_EXTENSIONS_MAX   (4 << 10) /* of all chunks of a body */
#define HTTP_INTERIMS_MAX     16	/* of one response */
#define HTTP_EMPTY_LINES_MAX  8		/* before a request */
#define HTTP_HEAD_TIMEOUT     30000	/* from the first byte of a head to its last */
#define HTTP_BODY_TIMEOUT     30000	/* without a byte of a body that is wanted */
#define HTTP_CONTINUE_TIMEOUT 5000	/* for the origin's 100, then we say it */
#define HTTP_IDLE_TIMEOUT     120000

/* proxy */
#define SNIFF_TIMEOUT	       150 /* a client that is silent this long waits for the server */
#define SNIFF_MAX	       (16 << 10)  /* a ClientHello in pieces */
#define STREAM_BUFFER_MAX      (256 << 10) /* one direction of one stream */
#define CONNECT_TIMEOUT	       5000
#define SESSIONS_MAX	       16384
#define EXCHANGE_EVENTS_MAX    32
#define EXCHANGES_SENDING_MAX  4096 /* to origins; a quarter of the descriptors at most */
#define EXCHANGES_RELEASED_MAX 128  /* of these, that were held: the rest waits its turn */

/* duplex */
#define DUPLEX_SPLICE_AFTER (256 << 10) /* bytes of one side, then the kernel carries them */
#define DUPLEX_PIPE_SIZE    (256 << 10)
#define DUPLEX_PIPES_MAX    512 /* two a flow: descriptors and kernel memory */

/* upstream */
#define UPSTREAM_IDLE_MAX     1024 /* pooled connections in all; 1/16 of the descriptors at most */
#define UPSTREAM_IDLE_TIMEOUT 30000
#define UPSTREAM_FRESH_TIME   1000  /* idle for less, a connection takes what must not go twice */
#define UPSTREAM_USER_TIMEOUT 15000 /* sent bytes that nobody acknowledges */
#define UPSTREAM_TLS_TIMEOUT  10000 /* for a handshake */
#define UPSTREAM_SESSIONS_MAX 64    /* of TLS, kept for resumption, in all */
#define UPSTREAM_TICKETS_MAX  2	    /* of them of one origin: each is used once */
#define TLS_OWN_MAX	      (64 << 10) /* sent by TLS itself on one connection */

/* resolver */
#define DNS_MESSAGE_MAX	    4096
#define DNS_TCP_CLIENTS_MAX 128
#define DNS_PENDING_MAX	    1024
#define DNS_CACHE_MAX	    8192
#define DNS_STALE_MAX	    (86400 * 1000)
#define DNS_ADDRESSES_MAX   4	/* of one answer, in the kernel and above */
#define DNS_NEW_NAMES_BURST 256 /* new virtual names by one source at once */
#define DNS_NEW_NAMES_RATE  16	/* and each second from then on */
#define VIRTUAL_NAMES_MAX   65536
#define DNS_TRY_TIMEOUT	    1200  /* one server, one try */
#define DNS_TRIES	    2	  /* of each server */
#define DNS_ASK_TIMEOUT	    5000  /* one link's servers in all, for the daemon's own */
#define DNS_LINK_TIMEOUT    2500  /* and for an app's question, before the next link */
#define DNS_SECOND_WAIT	    200	  /* for the other family, when one has answered */
#define DNS_TTL_MAX	    86400 /* seconds; servers that say more are not believed */
#define DNS_NEGATIVE_MAX    900	  /* seconds */
#define DNS_STALE_TTL	    30	  /* seconds (RFC 8767, 4) */
#define DNS_INTERNAL_TTL    60	  /* seconds, holdfast.internal and localhost */
#define DNS_TCP_IDLE	    10000
#define DNS_TCP_PIPELINE    32	 /* questions of one client at once; more are not read */
#define DNS_SOURCES_MAX	    1024 /* that new names are counted for; then the oldest goes */

/* store */
#define STORE_JOBS_MAX	     4096
#define STORE_BATCH_MAX	     256
#define STORE_STATEMENTS_MAX 256	/* prepared ones that are kept */
#define STORE_CHECK_MAX	     (16 << 20) /* a file up to this size is checked whole after a crash */
#define STORE_PARTS_MAX	     8		/* that bring a schema */
#define STORE_ASIDE_MAX	     3		/* corrupt files that are kept */
#define STORE_OPEN_WAIT	     2000	/* ms between tries to open what could not be opened */

/* spool */
#define SPOOL_MEMORY	  (64 << 10)  /* a longer body goes to a file */
#define SPOOL_PIECE	  (64 << 10)  /* read and written at once */
#define SPOOL_BEHIND	  (256 << 10) /* waiting for the disk before the source is stopped */
#define SPOOL_BEHIND_ALL  (16 << 20)  /* of all bodies; above it a source stops after one piece */
#define SPOOL_WAITING_MAX (2 << 20)   /* of a source that does not stop when it is told to */
#define SPOOL_MEMORY_ALL  (32 << 20)  /* bodies in memory; above it short ones go to files too */
#define SPOOL_FILES_MAX	  4096	      /* at once; a quarter of the descriptors at most */
#define SPOOL_DISK_SPARE  (12 << 20)  /* left free by bodies on their way, for the queue */
#define SPOOL_LAST_SPARE  (4 << 20)   /* left free even by the answers of replays */

/* queue */
#define QUEUE_ROW_BYTES	   512	     /* a row's own cost against queue.max_bytes, above its bytes */
#define QUEUE_DISK_SPARE   (8 << 20) /* left free by new rows, for results and the log */
#define QUEUE_EVICT_MAX	   4096	     /* rows that go to make room for one */
#define QUEUE_EVICTED_MAX  1000	     /* of them are kept for a person to see */
#define QUEUE_PROMOTE_MAX  256	     /* rows whose time has come, brought back in one lease */
#define QUEUE_LIST_SCAN	   5000	     /* rows looked at in one job of a listing */
#define QUEUE_TOTAL_MAX	   (INT64_C(1) << 50) /* no sum of rows or bytes is larger */
#define QUEUE_WATCHES_MAX  16384
#define QUEUE_HINT_BITS	   (1 << 20) /* of a filter; with 100,000 rows 1 % asks in vain */
#define QUEUE_HINT_ROWS	   2000	     /* read in one job */
#define QUEUE_EVENTS_MAX   64	     /* of one exchange */
#define QUEUE_SWEEP_BATCH  256	     /* rows changed in one job of a sweep */
#define QUEUE_LIST_MAX	   1000
#define QUEUE_KEEP_FAILED  (86400 * 1000) /* a failed exchange stays for a person to see */
#define QUEUE_VACUUM_PAGES 1024		  /* given back to the file system in one sweep */

/* replay */
#define REPLAY_PARALLEL	       4
#define REPLAY_BACKOFF_MIN     1000
#define REPLAY_BACKOFF_MAX     300000
#define REPLAY_RETRY_AFTER_MAX 3600000
#define REPLAY_SWEEP_INTERVAL  10000

/* api */
#define API_LISTENERS_MAX      16
#define API_CONNECTIONS_MAX    1024	  /* of one listener */
#define API_CONNECTION_TIMEOUT 60	  /* seconds without a byte */
#define API_JSON_MAX	       (64 << 10) /* a command; a request handed over has its own bound */
#define API_JSON_DEPTH	       16
#define API_DISCARD_MAX	       (4 << 20) /* of a body that is refused: read, so that the answer is */
#define API_BODY_BLOCK	       (16 << 10) /* of a body that is sent, in memory beside its piece */
#define API_UPLOADS_MAX	       (64 << 20) /* bodies that are being received, all together */
#define API_PAGE_DEFAULT       50
#define API_PAGE_MAX	       500
#define API_EVENT_CLIENTS_MAX  32
#define API_EVENT_BUFFER_MAX   (64 << 10) /* what one slow reader may be behind */
#define API_EVENT_KEEPALIVE    15000
#define API_TOKEN_MAX	       512
#define REPLAY_LINK_WAIT       15000 /* no online link is allowed: asked again, or when links change */
#define REPLAY_PROOF_WAIT      1000 /* links are online, none proven: looked at again */
#define REPLAY_UNSENT_WAIT     2000 /* a link died before anything was sent */
#define REPLAY_CLOCK_STEP      2000 /* a smaller step of the wall clock is nothing */

/* explain */
#define EXPLAIN_FRAME_MIN   14	 /* the kernel's test runs take no less */
#define EXPLAIN_FRAME_MAX   2048 /* octets */
#define EXPLAIN_ANSWER_MAX  2304 /* with the headers that a refusal puts in front */
#define EXPLAIN_COUNTERS    16	 /* of a twin, which counts one packet at a time */
#define EXPLAIN_RING	    4096 /* octets; the kernel rounds up to pages */
#define EXPLAIN_WAITING_MAX 32	 /* questions while the twins are loaded */

/* relay */
#define RELAY_FLOWS_MAX	       4096
#define RELAY_SOURCE_FLOWS_MAX 512
#define RELAY_FLOW_IDLE	       120000	 /* RFC 4787, REQ-5 */
#define RELAY_FLOW_SPARE       5000	 /* idle for so long, a flow makes room at a bound */
#define RELAY_FLOW_WAITING     16	 /* datagrams of a flow whose name is being resolved */
#define RELAY_WAITING_BYTES    (4 << 20) /* such datagrams of all flows */
#define RELAY_DATAGRAM_MAX     65536
#define RELAY_BATCH	       32	 /* datagrams in one system call */
#define RELAY_TURNS	       4	 /* such batches of one socket in one turn of the loop */
#define RELAY_RECEIVE_BUFFER   (4 << 20) /* of a listening or answering socket */
#define RELAY_ERRORS_RATE      200	 /* ICMP errors to one app, a second */
#define RELAY_ECHOES_MAX       1024	 /* unanswered echo requests */
#define RELAY_SOURCE_ECHOES    64	 /* of one source */
#define RELAY_ECHO_RATE	       1000	 /* echo requests over links, a second */
#define RELAY_ECHO_TIMEOUT     10000
