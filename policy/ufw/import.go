// SPDX-License-Identifier: Apache-2.0

// Package ufw translates the files of ufw, as they stand in /etc/ufw and in
// /etc/default/ufw, into a policy: its own rules for users together with
// before.rules and after.rules.
//
// It puts the chains of ufw-init around them, and package iptables plays packets
// through these. Rules of one user.rules alone are read there, too.
package ufw

import (
	"errors"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/portcullis-firewall/portcullis/policy/iptables"
)

// ErrNoRules is returned where the rules of users are not among the files.
var ErrNoRules = errors.New("no user.rules of ufw: name /etc/ufw, and /etc/default/ufw")

// names are those of the files with rules, in the order in which they are
// loaded, by family.
var names = [2][]string{{"before.rules", "after.rules", "user.rules"}, {"before6.rules", "after6.rules", "user6.rules"}}

var (
	setting = sync.OnceValue(func() *regexp.Regexp {
		return regexp.MustCompile(`(?m)^\s*(DEFAULT_\w+_POLICY|IPV6|ENABLED|LOGLEVEL)\s*=\s*"?(\w*)"?`)
	})
	rules = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`(?m)^:ufw6?-(user|before|after)-input\s`) })
)

// Detect reports whether a file is one of ufw's own. What iptables-save prints
// on a host of ufw is none.
func Detect(file iptables.File) bool {
	if rules().Match(file.Data) {
		return !strings.Contains(string(file.Data), "\n:INPUT ")
	}
	return slices.Contains([]string{"ufw", "ufw.conf"}, path.Base(file.Name)) && setting().Match(file.Data)
}

// config is what the files say beside rules.
type config struct {
	settings map[string]string
	files    map[string]iptables.File
}

// Import translates files into one policy.
func Import(files []iptables.File, o iptables.Options) (*iptables.Result, error) {
	c := config{settings: make(map[string]string), files: make(map[string]iptables.File)}
	for _, f := range files {
		base := path.Base(f.Name)
		switch {
		case slices.Contains(names[0], base) || slices.Contains(names[1], base):
			c.files[base] = f
		case setting().Match(f.Data):
			for _, m := range setting().FindAllSubmatch(f.Data, -1) {
				c.settings[string(m[1])] = string(m[2])
			}
		default:
			return nil, fmt.Errorf("%s: not a file of ufw that holds rules or settings", f.Name)
		}
	}
	if c.files["user.rules"].Data == nil && c.files["user6.rules"].Data == nil {
		return nil, ErrNoRules
	}
	out := iptables.NewRules("the rules of ufw", o)
	if strings.EqualFold(c.settings["ENABLED"], "no") {
		out.Note(iptables.Position{}, "ufw is not enabled: its rules are not in force now")
	}
	for _, key := range []string{"INPUT", "FORWARD", "OUTPUT"} {
		if c.settings["DEFAULT_"+key+"_POLICY"] == "" {
			out.Note(iptables.Position{}, "ufw's default for %s is taken: %s; to have its own, name /etc/default/ufw, too", key, c.standard(key))
		}
	}
	for _, f := range iptables.Families {
		c.lower(f, out)
	}
	return out.Translate(files)
}

// standard is what becomes of what no rule decides about: ACCEPT, DROP or
// REJECT.
func (c config) standard(chain string) string {
	verdict := strings.ToUpper(c.settings["DEFAULT_"+chain+"_POLICY"])
	switch {
	case slices.Contains([]string{"ACCEPT", "DROP", "REJECT"}, verdict):
		return verdict
	case chain == "OUTPUT" && verdict == "":
		return "ACCEPT"
	}
	return "DROP"
}

// frame is what ufw-init puts around the rules of a hook.
const frame = `-A HOOK -j UFW-before-logging-DIR
-A HOOK -j UFW-before-DIR
-A HOOK -j UFW-after-DIR
-A HOOK -j UFW-after-logging-DIR
-A HOOK -j UFW-reject-DIR
-A HOOK -j UFW-track-DIR
-A UFW-skip-to-policy-DIR -j STANDARD
`

// chains are those of a hook that ufw-init makes.
var chains = []string{"before-logging", "before", "after", "after-logging", "reject", "track", "skip-to-policy", "user", "user-logging"}

// stock are the rules of ufw 0.36 that let in what belongs to connections, and
// pings, for where before.rules is not given.
const stock = `-A UFW-before-input -i lo -j ACCEPT
-A UFW-before-input -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A UFW-before-input -m conntrack --ctstate INVALID -j DROP
-A UFW-before-input -p PROTO --icmp-type echo-request -j ACCEPT
-A UFW-before-forward -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
`

// lower says the rules of a family.
func (c config) lower(f iptables.Family, out *iptables.Rules) {
	prefix, protocol := [...]string{"ufw", "ufw6"}[f], [...]string{"icmp", "ipv6-icmp"}[f]
	if f == iptables.IPv6 && strings.EqualFold(c.settings["IPV6"], "no") {
		for _, chain := range []string{"INPUT", "FORWARD"} {
			out.SetPolicy(f, chain, "DROP", iptables.Position{})
		}
		out.Note(iptables.Position{}, "IPV6=no: ufw drops all IPv6, and so does the policy, but for answers and what IPv6 needs to work")
		return
	}
	user := c.files[names[f][2]]
	if user.Data == nil {
		return
	}
	var b strings.Builder
	b.WriteString("*filter\n")
	for _, dir := range []string{"input", "forward", "output"} {
		hook := strings.ToUpper(dir)
		standard := c.standard(hook)
		closed := "DROP"
		if standard == "ACCEPT" {
			closed = standard
		}
		fmt.Fprintf(&b, ":%s %s [0:0]\n", hook, closed)
		for _, chain := range chains {
			fmt.Fprintf(&b, ":%s-%s-%s - [0:0]\n", prefix, chain, dir)
		}
		b.WriteString(strings.NewReplacer("HOOK", hook, "DIR", dir, "STANDARD", standard, "UFW", prefix).Replace(frame))
		if standard == "REJECT" {
			fmt.Fprintf(&b, "-A %s-reject-%s -j REJECT\n", prefix, dir)
		}
	}
	for _, chain := range []string{"logging-deny", "logging-allow", "user-limit", "user-limit-accept", "not-local"} {
		fmt.Fprintf(&b, ":%s-%s - [0:0]\n", prefix, chain)
	}
	if before := c.files[names[f][0]]; before.Data == nil {
		b.WriteString(strings.NewReplacer("UFW", prefix, "PROTO", protocol).Replace(stock))
		out.Note(iptables.Position{}, "%s was not given: of what it lets in, only pings are in the policy", names[f][0])
	}
	b.WriteString("COMMIT\n")
	read := func(text string) { out.ReadSave(f, iptables.File{Data: []byte(text)}) }
	read(b.String())
	for _, name := range names[f][:2] {
		if file, ok := c.files[name]; ok {
			out.ReadSave(f, file)
		}
	}
	read(strings.ReplaceAll("*filter\n-A UFW-before-input -j UFW-user-input\n-A UFW-before-forward -j UFW-user-forward\n-A UFW-before-output -j UFW-user-output\nCOMMIT\n", "UFW", prefix))
	out.ReadSave(f, user)
}
