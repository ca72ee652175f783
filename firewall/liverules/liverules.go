// SPDX-License-Identifier: Apache-2.0

// Package liverules reads the rules of iptables that are in force on this host, as an import takes them.
package liverules

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"time"

	"github.com/portcullis-firewall/portcullis/host/netfilter"
	"github.com/portcullis-firewall/portcullis/policy/iptables"
)

// Rules are those of one family.
type Rules struct {
	Name   string // of the program that printed them
	Family int    // 4 or 6
	Data   []byte
}

// Live is what is in force.
type Live struct {
	Rules    []Rules
	Sets     []byte   // what "ipset save" printed
	Warnings []string // what decides beside these rules, and what is not there
}

// Files returns the rules and sets as an import reads them.
func (l *Live) Files() (files []iptables.File) {
	for _, r := range l.Rules {
		files = append(files, iptables.File{Name: r.Name, Data: r.Data})
	}
	if len(l.Sets) > 0 {
		files = append(files, iptables.File{Name: "ipset save", Data: l.Sets})
	}
	return files
}

// maxTime bounds what a program may take to print rules.
const maxTime = 30 * time.Second

// runner runs a program and returns what it prints; the error is [exec.ErrNotFound] where there is none.
type runner func(ctx context.Context, name string, args ...string) ([]byte, error)

func run(ctx context.Context, name string, args ...string) ([]byte, error) {
	ctx, end := context.WithTimeout(ctx, maxTime)
	defer end()
	path, err := exec.LookPath(name)
	if err != nil { // a user's PATH has no sbin
		if path, err = exec.LookPath("/usr/sbin/" + name); err != nil {
			return nil, exec.ErrNotFound
		}
	}
	var out, complaint bytes.Buffer
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Stdout, cmd.Stderr = &out, &complaint
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("%s: %w: %s", name, err, strings.TrimSpace(complaint.String()))
	}
	return out.Bytes(), nil
}

// Read returns the rules that are in force.
func Read(ctx context.Context) (*Live, error) {
	l, err := read(ctx, run)
	if err != nil {
		return nil, err
	}
	if others, err := netfilter.Read(ctx); err == nil {
		l.beside(others.Filters)
	}
	if len(l.Rules) == 0 {
		return nil, errors.New("no rules of iptables are in force on this host: name files of rules" + l.hint())
	}
	return l, nil
}

func (l *Live) hint() string {
	if len(l.Warnings) > 0 {
		return "; " + strings.Join(l.Warnings, "; ")
	}
	return ""
}

func read(ctx context.Context, run runner) (*Live, error) {
	l := &Live{}
	tools := 0
	var empty []string
	for _, f := range []struct {
		family int
		tool   string
	}{{4, "iptables"}, {6, "ip6tables"}} {
		r, found, err := readFamily(ctx, run, f.tool)
		if err != nil {
			return nil, err
		}
		if found {
			tools++
		}
		if r == nil {
			empty = append(empty, fmt.Sprintf("IPv%d", f.family))
			continue
		}
		r.Family = f.family
		l.Rules = append(l.Rules, *r)
	}
	if tools == 0 {
		return nil, errors.New("neither iptables-save nor ip6tables-save is on this host: name files of rules")
	}
	if len(empty) == 1 {
		l.Warnings = append(l.Warnings, fmt.Sprintf("there are no rules for %s in force, so everything comes in by it now", empty[0]))
	}
	sets, err := run(ctx, "ipset", "save")
	switch {
	case errors.Is(err, exec.ErrNotFound):
	case err != nil:
		l.Warnings = append(l.Warnings, "what sets hold cannot be read: "+err.Error())
	default:
		l.Sets = sets
	}
	return l, nil
}

// readFamily reads the rules of one family, of whichever kind of iptables they are. It reports whether there is a program
// to read them.
func readFamily(ctx context.Context, run runner, tool string) (rules *Rules, found bool, err error) {
	seen := make(map[string]*Rules)
	for _, name := range []string{tool + "-save", tool + "-nft-save", tool + "-legacy-save"} {
		data, err := run(ctx, name)
		if errors.Is(err, exec.ErrNotFound) {
			continue
		}
		if err != nil {
			return nil, true, err
		}
		if found = true; filters(data) {
			seen[name] = &Rules{Name: name, Data: data}
		}
	}
	nft, legacy := seen[tool+"-nft-save"], seen[tool+"-legacy-save"]
	switch {
	case nft != nil && legacy != nil:
		return nil, true, fmt.Errorf("%s has rules by nf_tables and by the older kind as well, and a packet has to pass both: flush those that are not wanted "+
			"(%s-nft -F, or %s-legacy -F), or import what %s and %s print, one after the other", tool, tool, tool, nft.Name, legacy.Name)
	case nft != nil:
		return nft, true, nil
	case legacy != nil:
		return legacy, true, nil
	}
	return seen[tool+"-save"], found, nil
}

// filters reports whether rules decide about anything at all.
func filters(data []byte) bool {
	for line := range strings.Lines(string(data)) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "-A ") || strings.HasPrefix(line, ":") && strings.Contains(line, " DROP ") {
			return true
		}
	}
	return false
}

// beside warns of what else decides about packets.
func (l *Live) beside(filters []netfilter.Filter) {
	for _, f := range filters {
		if f.Owner != "nft" && f.Owner != "firewalld" || f.Rules == 0 && !f.Drops {
			continue
		}
		l.Warnings = append(l.Warnings, fmt.Sprintf("chain %s of table %s %s decides, too, and is not of iptables: import what \"nft -j list ruleset\" prints", f.Chain, f.Family, f.Table))
	}
}
