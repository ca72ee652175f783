// SPDX-License-Identifier: Apache-2.0

package differential

import (
	"slices"
	"strings"
)

// program is a real program that talks across eth0, and what is known of it beforehand.
type program struct {
	name    string
	inside  bool     // it runs on the server, and its traffic is let in; otherwise on the client
	command []string // see expand
	exit    int      // status
	says    string   // in its output
	least   int      // frames that a recording of it has, and more
	letIn   share    // of what comes in, by the script
	family  int      // 4: not in IPv6
}

// share is how much of the packets that come in is let in.
type share string

const (
	all     share = "all"
	some    share = "some"
	nothing share = "nothing"
	unknown share = "unknown, as nothing comes in"
)

func shareOf(letIn, dropped int) share {
	switch {
	case letIn+dropped == 0:
		return unknown
	case dropped == 0:
		return all
	case letIn == 0:
		return nothing
	}
	return some
}

// Addresses behind the client, which says of packets to them when their time is exceeded, and loses the others.
const (
	farV4, farNetV4 = "203.0.113.1", "203.0.113.0/24"
	farV6, farNetV6 = "2001:db8:ff::1", "2001:db8:ff::/64"
)

// expand fills in the words of a command: HOST is the other host, WEB the same in a URL, FAR an address behind the
// client, KEY the key for ssh, -FAMILY -4 or -6, and -SIX nothing or -6.
func (p program) expand(h hosts, key string) []string {
	host, far, family, six := h.peer.String(), farV4, "-4", ""
	if !p.inside {
		host = h.us.String()
	}
	web := host
	if h.six {
		web, far, family, six = "["+host+"]", farV6, "-6", "-6"
	}
	fill := strings.NewReplacer("HOST", host, "WEB", web, "FAR", far, "KEY", key, "-FAMILY", family, "-SIX", six)
	var words []string
	for _, word := range p.command {
		if filled := fill.Replace(word); filled != "" {
			words = append(words, filled)
		}
	}
	return words
}

func curl(words ...string) []string { return append([]string{"curl", "-sS", "-m", "10"}, words...) }

func dig(words ...string) []string {
	return append([]string{"dig", "@HOST", "+tries=1", "+time=3"}, words...)
}

func pinging(words ...string) []string {
	return append([]string{"ping", "-FAMILY", "-n", "-i", "0.2", "-c", "3"}, words...)
}

// tracing asks about two hops at once; only the second of them, behind the client, leaves it waiting.
func tracing(words ...string) []string {
	return append([]string{"traceroute", "-FAMILY", "-n", "-m", "2", "-w", "0.3"}, words...)
}

var sshing = []string{"ssh", "-F", "none", "-i", "KEY", "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes",
	"-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "HOST", "say it back"}

func nmap(words ...string) []string {
	return slices.Concat([]string{"nmap", "-SIX", "-n", "-Pn", "--disable-arp-ping", "-T5", "--max-retries", "1",
		"--initial-rtt-timeout", "100ms", "--max-rtt-timeout", "100ms", "HOST"}, words)
}

// scan asks four closed ports and two open ones, of which the policy opens one.
func scan(words ...string) []string { return nmap(append(words, "-p", "21,22,23,79,80,81")...) }

var programs = []program{
	{"curl", true, curl("http://WEB/"), 0, page, 30, all, 0},
	{"curl sends", true, curl("--data-binary", "@-", "http://WEB/"), 0, page, 60, all, 0},
	{"curl to a closed port", true, curl("http://WEB:81/"), 7, "onnect", 2, all, 0},
	{"curl comes in", false, curl("http://WEB/"), 0, page, 30, all, 0},
	{"curl comes in and sends", false, curl("--data-binary", "@-", "http://WEB/"), 0, page, 60, all, 0},
	{"curl comes in to a closed port", false, curl("http://WEB:81/"), 7, "onnect", 2, nothing, 0},
	{"ssh", true, sshing, 0, page, 40, all, 0},
	{"ssh comes in", false, sshing, 0, page, 40, some, 0},
	{"dig", true, dig("example.org"), 0, "NOERROR", 2, all, 0},
	{"dig over TCP", true, dig("+tcp", "example.org"), 0, "NOERROR", 8, all, 0},
	{"dig, and a fragmented answer", true, dig("+bufsize=4096", "+ignore", "example.org", "TXT"), 0, "NOERROR", 3, all, 0},
	{"dig to a closed port", true, dig("-p", "54", "example.org"), 9, "refused", 2, all, 0},
	{"dig comes in", false, dig("example.org"), 0, "NOERROR", 2, nothing, 0},
	{"dig comes in to a closed port", false, dig("-p", "54", "example.org"), 9, "refused", 2, nothing, 0},
	{"ping", true, pinging("HOST"), 0, " 0% packet loss", 6, all, 0},
	{"ping in fragments", true, pinging("-s", "4000", "HOST"), 0, " 0% packet loss", 18, all, 0},
	{"ping comes in", false, pinging("HOST"), 0, " 0% packet loss", 6, all, 0},
	{"ping comes in, in fragments", false, pinging("-s", "4000", "HOST"), 0, " 0% packet loss", 18, all, 0},
	{"traceroute", true, tracing("HOST"), 0, "1  ", 6, all, 0},
	{"traceroute -I", true, tracing("-I", "HOST"), 0, "1  ", 6, all, 0},
	{"traceroute -T", true, tracing("-T", "HOST"), 0, "1  ", 6, all, 0},
	{"traceroute further", true, tracing("FAR"), 0, "1  ", 6, all, 0},
	{"traceroute -I further", true, tracing("-I", "FAR"), 0, "1  ", 6, all, 0},
	{"traceroute -T further", true, tracing("-T", "FAR"), 0, "1  ", 6, all, 0},
	{"traceroute comes in", false, tracing("HOST"), 0, "1  ", 6, nothing, 0},
	{"traceroute -I comes in", false, tracing("-I", "HOST"), 0, "1  ", 6, all, 0},
	{"traceroute -T comes in", false, tracing("-T", "HOST"), 0, "1  ", 6, all, 0},
	{"nmap -sS", false, scan("-sS"), 0, "1 host up", 12, some, 0},
	{"nmap -sT", false, scan("-sT"), 0, "1 host up", 12, some, 0},
	{"nmap -sA", false, scan("-sA"), 0, "1 host up", 12, some, 0},
	{"nmap -sW", false, scan("-sW"), 0, "1 host up", 12, some, 0},
	{"nmap -sM", false, scan("-sM"), 0, "1 host up", 10, some, 0},
	{"nmap -sN", false, scan("-sN"), 0, "1 host up", 10, some, 0},
	{"nmap -sF", false, scan("-sF"), 0, "1 host up", 10, some, 0},
	{"nmap -sX", false, scan("-sX"), 0, "1 host up", 10, some, 0},
	{"nmap -sU", false, scan("-sU"), 0, "1 host up", 12, nothing, 0},
	{"nmap -sY", false, scan("-sY"), 0, "1 host up", 6, nothing, 0},
	{"nmap -f", false, scan("-sS", "-f"), 0, "1 host up", 24, some, 4},
	{"nmap -O", false, scan("-O", "--max-os-tries", "1"), 0, "1 host up", 30, some, 0},
	{"nmap -sO", false, nmap("-sO", "-p", "1,2,4,6,17,41,47,50,51,58,89,112,132,136,253"), 0, "1 host up", 15, some, 0},
	{"nmap -sn", false, []string{"nmap", "-SIX", "-n", "-sn", "--disable-arp-ping", "-PE", "-PS80", "-PA80", "HOST"},
		0, "1 host up", 4, all, 0},
}
