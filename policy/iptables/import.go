// SPDX-License-Identifier: Apache-2.0

package iptables

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"sync"

	"github.com/portcullis-firewall/portcullis/policy"
)

// File is one text to translate. Its name goes into findings, and may tell the
// family where nothing else does.
type File struct {
	Name string
	Data []byte
}

// Options say how to translate.
type Options struct {
	// Interfaces are those that the policy is to be about; else it is those that rules name.
	Interfaces []string
	// Keep leaves with netfilter what only netfilter can drop, and opens what is behind it. Otherwise that is not opened.
	Keep bool
	// Families are those of files by their name, 4 or 6, where it is known.
	Families map[string]int
}

// Result is the policy that the files come to.
type Result struct {
	Policy *policy.Policy
	// Untranslated are lines of which the policy lacks something.
	Untranslated []Finding
	// Stays are lines that have to stay in force in netfilter, as the policy
	// relies on them.
	Stays []Finding
	// Notes are lines that are in the policy, or need not be, but mean
	// something else there that is good to know.
	Notes []Finding

	translation *translation
}

// ErrNoRules is returned for files in which nothing is said about packets.
var ErrNoRules = errors.New("no rules of iptables: name what iptables-save or \"iptables -S\" prints, a script of iptables commands, or user.rules of ufw")

// Import translates files into one policy, which relies on nothing but itself. With interfaces named, the policy is
// what the rules say about these; else about those that they name.
func Import(files []File, interfaces []string) (*Result, error) {
	return ImportWith(files, Options{Interfaces: interfaces})
}

// ImportWith translates files into one policy.
func ImportWith(files []File, o Options) (*Result, error) {
	for _, name := range o.Interfaces {
		if !possibleInterface(name) || !iface(name).isName() || iface(name) == loopback {
			return nil, fmt.Errorf("interface %q is not possible: write a name such as eth0", name)
		}
	}
	s := newRuleset()
	s.options = o
	rules := 0
	for _, file := range files { // rules may name sets of a later file
		if text := plainText(file.Data); formatOf(text) == ipsets {
			s.readSets(file.Name, text)
		} else {
			rules++
		}
	}
	s.single = rules == 1
	for _, file := range files {
		s.read(file)
	}
	return s.translate(files, o.Interfaces)
}

func (s *ruleset) translate(files []File, interfaces []string) (*Result, error) {
	if !s.told[v4] && !s.told[v6] {
		return nil, ErrNoRules
	}
	for _, f := range families {
		s.ufwLimits(f, [...]string{"ufw", "ufw6"}[f])
	}
	t := &translation{ruleset: s, interfaces: interfaces}
	if err := t.translate(); err != nil {
		return nil, err
	}
	t.report()
	return &Result{Policy: t.result, Untranslated: inOrder(s.untranslated, files), Stays: inOrder(s.stays, files), Notes: inOrder(s.notes, files),
		translation: t}, nil
}

// pattern is compiled when it is first needed: other commands start the sooner.
func pattern(text string) func() *regexp.Regexp {
	return sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(text) })
}

// read finds out what a file is, and reads it.
func (s *ruleset) read(file File) {
	text := plainText(file.Data)
	switch formatOf(text) {
	case ipsets:
	case shellScript:
		s.readScript(file.Name, strings.ToValidUTF8(string(file.Data), "\ufffd"))
	case listing:
		for _, f := range s.familiesOf(file, text) {
			s.load(f, file.Name, 1, text, "filter", false)
			s.raw[f] = ""
		}
	case save:
		for _, f := range s.familiesOf(file, text) {
			if ufwRules().MatchString(text) && !strings.Contains(text, "\n:INPUT ") {
				s.readUFW(f, file.Name, text)
			} else {
				s.readSave(f, file.Name, 1, text)
				s.raw[f] = filterTables(text)
			}
		}
	}
}

// ufwFrame is what ufw puts around the rules of users, as far as packets to
// open ports and pings go: before.rules and before6.rules of ufw 0.36.
const ufwFrame = `*filter
:INPUT DROP
:FORWARD DROP
:OUTPUT ACCEPT
:UFW-user-input -
:UFW-user-forward -
-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A INPUT -m conntrack --ctstate INVALID -j DROP
-A INPUT -p PROTO --icmp-type echo-request -j ACCEPT
-A INPUT -j UFW-user-input
-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -j UFW-user-forward
COMMIT
`

func (s *ruleset) readUFW(f family, file, text string) {
	name, protocol := "ufw", "icmp"
	if f == v6 {
		name, protocol = "ufw6", "ipv6-icmp"
	}
	s.load(f, "", 1, strings.NewReplacer("UFW", name, "PROTO", protocol).Replace(ufwFrame), "", true)
	s.load(f, file, 1, text, "", true)
	if !s.ufw {
		s.note(place{}, "ufw's defaults are taken: deny (incoming), deny (routed), allow (outgoing), and pings let in; "+
			"what /etc/ufw/before.rules lets in beyond that, mDNS and UPnP among it, is not: open it where it is wanted")
	}
	s.ufw = true
}
