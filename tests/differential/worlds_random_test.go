// SPDX-License-Identifier: Apache-2.0

package differential

import "time"

// Netfilter leaves the TCP window to the stack, as Portcullis always does: what remains are the states.
const (
	beLiberal        = "tcp_be_liberal"
	ignoreInvalidRST = "tcp_ignore_invalid_rst"
)

// pauseTime is so long that of some timeouts of the hasty world nothing is left, and of others clearly something: after
// one pause or two, with the time that a batch takes, on either side, however the clocks tick.
const pauseTime = 2500 * time.Millisecond

// The worlds of random sequences. Incomplete datagrams are soon forgotten, for their identifications come again.
var (
	liberal = world{
		name:    "random sequences",
		rules:   noICMP.rules,
		sysctls: map[string]string{beLiberal: "1", ignoreInvalidRST: "1"},
		policy:  noICMP.policy,
		flows:   65536,
		random:  true,
	}
	withICMP = world{
		name:    "random sequences where ICMP is let in",
		rules:   script.rules,
		sysctls: liberal.sysctls,
		policy:  script.policy,
		flows:   65536,
		random:  true,
	}
	hasty = world{
		name:  "random sequences with short timeouts",
		rules: noICMP.rules,
		sysctls: map[string]string{
			beLiberal: "1", ignoreInvalidRST: "1",
			"udp_timeout": "4", "udp_timeout_stream": "9", "icmp_timeout": "2", "icmpv6_timeout": "2",
			"generic_timeout": "2", "gre_timeout": "2", "gre_timeout_stream": "4",
			"tcp_timeout_syn_sent": "2", "tcp_timeout_syn_recv": "2", "tcp_timeout_established": "4",
			"tcp_timeout_fin_wait": "2", "tcp_timeout_time_wait": "2", "tcp_timeout_close": "2",
			"tcp_timeout_close_wait": "2", "tcp_timeout_last_ack": "2",
			"tcp_timeout_unacknowledged": "4", "tcp_timeout_max_retrans": "4",
			"sctp_timeout_closed": "4", "sctp_timeout_cookie_wait": "4", "sctp_timeout_cookie_echoed": "4",
			"sctp_timeout_established": "4", "sctp_timeout_shutdown_sent": "4", "sctp_timeout_shutdown_recd": "4",
			"sctp_timeout_shutdown_ack_sent": "4", "sctp_timeout_heartbeat_sent": "4",
		},
		policy: noICMP.policy + "timeouts: {udp: 4s, udp-stream: 9s, icmp: 2s, other: 2s, gre: 2s, gre-stream: 4s, " +
			"tcp-syn-sent: 2s, tcp-syn-recv: 2s, tcp-established: 4s, tcp-fin-wait: 2s, tcp-time-wait: 2s, tcp-close: 2s, " +
			"tcp-close-wait: 2s, tcp-last-ack: 2s, tcp-loose: 4s, sctp-new: 4s, sctp-established: 4s, sctp-closed: 4s}\n",
		flows:  65536,
		random: true,
	}
)
