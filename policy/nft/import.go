// SPDX-License-Identifier: Apache-2.0

// Package nft translates rules of nftables into a policy: what "nft list
// ruleset" and "nft -j list ruleset" print, and files for "nft -f" such as
// /etc/nftables.conf.
//
// Both notations are read into the same tables, chains and rules. A rule
// becomes rules of iptables, in chains that decide alike, and package iptables
// plays packets through these. What has no option of iptables is in doubt: it
// lets nothing in, and may drop.
package nft

import (
	"bytes"
	"errors"
	"regexp"
	"sync"

	"github.com/portcullis-firewall/portcullis/policy/iptables"
)

// ErrNoRules is returned for files in which nothing is said about packets to
// this host or through it.
var ErrNoRules = errors.New("no chain of nftables for hook input or forward: name what \"nft list ruleset\" or \"nft -j list ruleset\" prints, or a file for \"nft -f\"")

// Include returns the files that an "include" names.
type Include func(path string) ([]iptables.File, error)

// Import translates files into one policy, in the order in which they are
// loaded. Without a function for them, includes are an error.
func Import(files []iptables.File, o iptables.Options, include Include) (*iptables.Result, error) {
	s := &ruleset{}
	for _, f := range files {
		read := func(f iptables.File) error { return parseText(f, s, include, 0) }
		if isJSON(f.Data) {
			read = func(f iptables.File) error { return parseJSON(f, s) }
		}
		if err := read(f); err != nil {
			return nil, err
		}
	}
	l := &lowering{rules: s, out: iptables.NewRules("rules of nftables", o), keep: o.Keep, done: make(map[string]bool)}
	if err := l.lower(); err != nil {
		return nil, err
	}
	r, err := l.out.Translate(files)
	if err == nil {
		r.Untranslated = mergeFamilies(r.Untranslated)
	}
	return r, err
}

func isJSON(data []byte) bool { return bytes.HasPrefix(bytes.TrimSpace(data), []byte("{")) }

var (
	tableOfText = sync.OnceValue(func() *regexp.Regexp {
		return regexp.MustCompile(`(?m)^\s*((add\s+|create\s+)?table\s+((ip|ip6|inet|arp|bridge|netdev)\s+)?[\w."-]+\s*(\{|;|$)` +
			`|(add|insert|create)\s+(rule|chain|set|map|element)\s+(ip|ip6|inet|arp|bridge|netdev)\s)`)
	})
	tableOfJSON = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^\s*\{\s*"nftables"\s*:`) })
)

// Detect reports whether a file holds rules of nftables, and is no script of
// something else that may hold some.
func Detect(data []byte) bool {
	first, _, _ := bytes.Cut(data, []byte("\n"))
	if bytes.HasPrefix(first, []byte("#!")) && !bytes.Contains(first, []byte("nft")) {
		return false
	}
	return tableOfJSON().Match(data) || tableOfText().Match(data)
}
