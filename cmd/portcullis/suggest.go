// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/portcullis-firewall/portcullis/policy"
)

// otherWords lists, by command, what ufw, firewalld, systemctl and the like call it. A word whose meaning is not quite
// the command's has a sentence in notQuite.
var otherWords = map[string][]string{
	"up":      {"enable", "start", "restart", "on", "load", "restore"},
	"down":    {"disable", "stop", "off", "unload"},
	"run":     {"daemon", "agent"},
	"status":  {"list", "show", "rules", "ls", "info", "stats", "counters"},
	"open":    {"allow", "permit", "accept", "add", "insert", "append", "dns", "limit", "forward", "route"},
	"close":   {"deny", "delete", "del", "remove", "rm", "drop", "reject"},
	"ban":     {"block", "blacklist"},
	"unban":   {"unblock", "pardon"},
	"bans":    {"banned", "blocked"},
	"apply":   {"reload", "refresh", "replace", "edit", "icmp", "ping", "trust", "whitelist", "allowlist"},
	"check":   {"validate", "verify", "lint", "config", "configure"},
	"diff":    {"compare"},
	"save":    {"store", "persist"},
	"try":     {"test", "trial"},
	"confirm": {"commit"},
	"revert":  {"rollback", "undo", "cancel"},
	"flows":   {"connections", "conntrack", "states", "flush"},
	"explain": {"why", "lookup"},
	"watch":   {"propose", "learn", "observe"},
	"monitor": {"trace", "tcpdump", "dump", "capture", "drops"},
	"log":     {"logs", "tail", "follow"},
	"import":  {"convert", "translate", "migrate", "iptables"},
	"doctor":  {"diagnose"},
	"audit":   {"ports", "listeners"},
	"bench":   {"benchmark"},
}

const blockKey = "\"portcullis ban ADDRESS\" drops what comes from an address; for lists, write the key \"block\" in the policy file"

const trustKey = "who is never blocked nor limited stands in the key \"trust\" of the policy file: write \"trust: [203.0.113.9]\" there, then \"portcullis apply\""

const editor = "edit the policy file with any editor; \"portcullis check\" finds mistakes, and \"portcullis apply\" puts it in force"

const icmpKey = "the key \"icmp\" of the policy file decides on pings and the like: write \"icmp: accept\", \"icmp: drop\" or \"icmp: [echo-request]\" there, then \"portcullis apply\""

const forwardHint = "\"portcullis open --forward RULE\" lets what the rule names be routed through this host, and \"close --forward\" takes it back"

var notQuite = map[string]string{
	"config":    editor,
	"configure": editor,
	"dns":       "\"portcullis open domain\" opens the ports of a DNS server; what this host asks needs no rule",
	"edit":      editor,
	"icmp":      icmpKey,
	"forward":   forwardHint,
	"route":     forwardHint,
	"iptables":  "\"portcullis import\" translates rules of iptables into a policy file",
	"limit":     "a limit is part of a rule: \"portcullis open ssh limit 6/minute\"",
	"ping":      icmpKey,
	"trust":     trustKey,
	"whitelist": trustKey,
	"allowlist": trustKey,

	"blacklist": blockKey,
	"block":     blockKey,
	"flush":     "\"portcullis flows flush\" deletes all flows; \"portcullis close RULE\" takes a rule back",
}

// hint returns what to do about a command that does not exist.
func hint(parent *cobra.Command, word string) string {
	word = strings.ToLower(word)
	if text, ok := notQuite[word]; ok {
		return text
	}
	for command, words := range otherWords {
		if slices.Contains(words, word) {
			return fmt.Sprintf("did you mean %s?", command)
		}
	}
	parent.SuggestionsMinimumDistance = min(max(len(word)-1, 1), 2)
	if alike := parent.SuggestionsFor(word); len(alike) > 0 {
		return fmt.Sprintf("did you mean %s?", or(alike))
	}
	return fmt.Sprintf("see %q", parent.CommandPath()+" --help")
}

// ruleWords are words that stand in no rule, and what to do instead. Services of such a name come first.
var ruleWords = map[string]string{
	"forward":      "rules about what is routed come behind a flag, such as --forward all on eth1",
	"dns":          "the service is called \"domain\"; what this host asks needs no rule",
	"echo-request": icmpKey,
	"icmp":         icmpKey,
	"icmpv6":       icmpKey,
	"ping":         icmpKey,
}

// anybody are the words for every source.
var anybody = []string{"any", "all", "anyone", "anybody", "anywhere", "everyone", "everybody", "everywhere", "world", "*"}

// ruleHint returns what to write instead of rules that could not be read, or "" where nothing comes to mind.
func ruleHint(args []string) string {
	words := strings.Fields(strings.Join(args, " "))
	hasFrom := false
	for i, word := range words {
		lower := strings.ToLower(word)
		before, after := words[:i], words[i+1:]
		name, protocol, _ := strings.Cut(lower, "/")
		switch text := ruleWords[name]; {
		case text != "" && (protocol == "" || name == "dns"):
			return fmt.Sprintf("%q is no service: %s", word, text)
		case lower == "for" && len(before) > 0 && len(after) > 0:
			if _, err := policy.ParseDuration(after[0]); err == nil {
				rest := append(slices.Clone(before), after[1:]...)
				return fmt.Sprintf("how long is a flag: write %s --for %s", strings.Join(rest, " "), after[0])
			}
		case lower == "from" && len(before) > 0 && len(after) > 0 && slices.Contains(anybody, strings.ToLower(after[0])):
			rest := append(slices.Clone(before), after[1:]...)
			return fmt.Sprintf("a rule without \"from\" is for anyone: write %s", strings.Join(rest, " "))
		case hasFrom && isSource(lower):
			last := before[len(before)-1]
			if lastLower := strings.ToLower(last); lastLower == "and" || lastLower == "or" {
				last = before[len(before)-2]
			}
			if isSource(strings.ToLower(last)) {
				return fmt.Sprintf("commas stand between sources: write from %s,%s", last, word)
			}
		}
		hasFrom = hasFrom || lower == "from"
	}
	return ""
}

// isSource reports whether a word is an address or a network, and nothing else.
func isSource(word string) bool {
	_, err := netip.ParsePrefix(word)
	if err != nil {
		_, err = netip.ParseAddr(word)
	}
	return err == nil
}
