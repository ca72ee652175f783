// SPDX-License-Identifier: Apache-2.0

// Package doctor finds what would stop or slow the filter on this host, and
// names the command that mends it. It looks, and changes nothing.
package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/portcullis-firewall/portcullis/firewall"
	"github.com/portcullis-firewall/portcullis/firewall/cmdline"
	"github.com/portcullis-firewall/portcullis/host"
	"github.com/portcullis-firewall/portcullis/host/netfilter"
	"github.com/portcullis-firewall/portcullis/loader"
	"github.com/portcullis-firewall/portcullis/policy"
)

// Verdict says what a check has found.
type Verdict string

// The verdicts.
const (
	OK   Verdict = "ok"
	Note Verdict = "note" // worth knowing
	Warn Verdict = "warn" // slows the filter, or makes it do less than was meant
	Fail Verdict = "fail" // stops it
)

// Check is one thing that was looked at.
type Check struct {
	Group   string   `json:"group"` // host, an interface, network or portcullis
	Name    string   `json:"name"`
	Verdict Verdict  `json:"verdict"`
	Text    string   `json:"text"` // what it means here, in a sentence
	Fix     []string `json:"fix"`  // the commands that mend it, in order
}

// Options says what is examined.
type Options struct {
	PinPath      string
	Config       string
	ConfigFlag   bool     // commands have to name Config: it was given, or is not the default
	Files        fs.FS    // the root of the file system, if it is not this host's
	Interfaces   []string // that are, or would be, filtered
	InterfaceErr error    // why there are none
	Named        []string // that the policy file names
	Default      string   // the interface of the default route, or ""
	Unfiltered   []string // by which packets come in past a filter on Interfaces

	Policy    *policy.Policy // in force, or else what the next up puts in force; nil when there is none
	BuiltIn   bool           // there is no file
	PolicyErr error

	Running   *loader.Status     // nil when nothing runs
	FilterErr error              // why nothing runs
	Bypassed  []loader.Interface // of Running, past whose programs packets come
	LookErr   error              // why nobody could look
}

// Examine returns what all checks have found.
func Examine(ctx context.Context, o Options) []Check {
	if o.Files == nil {
		o.Files = host.Files
	}
	e := &examination{Options: o, files: files{o.Files}}
	e.group = "host"
	e.host(e.probe())
	for _, name := range o.Interfaces {
		e.group = name
		d, err := inspect(name, o.PinPath)
		if err != nil {
			e.fail("device", "%s", err)
			continue
		}
		d.Mode = e.modeOf(name)
		d.Bypassed = slices.ContainsFunc(e.Bypassed, func(i loader.Interface) bool { return i.Name == name })
		e.device(d)
	}
	e.group = "network"
	e.topology(host.Topology(e.Interfaces))
	guests, err := host.FindGuests()
	if err != nil {
		e.note("forward", "%s", err)
	}
	e.forwarding(guests)
	ruleset, err := netfilter.Read(ctx)
	e.netfilter(ruleset, err)
	e.conntrack()
	e.services()
	e.group = "portcullis"
	if o.InterfaceErr != nil {
		e.fail("interfaces", "%s", o.InterfaceErr)
	}
	e.policy()
	own, err := host.Addresses()
	if err != nil {
		e.note("rules", "%s", err)
	}
	e.rules(own)
	e.unit()
	e.filter()
	return e.checks
}

// examination is one run of the doctor.
type examination struct {
	Options
	files  files
	group  string
	checks []Check
	bans   bool // another tool bans addresses by netfilter
}

func (e *examination) add(v Verdict, name, format string, args []any) *Check {
	e.checks = append(e.checks, Check{Group: e.group, Name: name, Verdict: v, Text: e.flags().Complete(fmt.Sprintf(format, args...)), Fix: []string{}})
	return &e.checks[len(e.checks)-1]
}

func (e *examination) ok(name, format string, args ...any) *Check {
	return e.add(OK, name, format, args)
}

func (e *examination) note(name, format string, args ...any) *Check {
	return e.add(Note, name, format, args)
}

func (e *examination) warn(name, format string, args ...any) *Check {
	return e.add(Warn, name, format, args)
}

func (e *examination) fail(name, format string, args ...any) *Check {
	return e.add(Fail, name, format, args)
}

// fix says what to type.
func (c *Check) fix(commands ...string) { c.Fix = append([]string{}, commands...) }

// portcullis is a command line of ours that is about the same filter and file.
func (e *examination) portcullis(args ...string) string { return e.flags().Line(args...) }

func (e *examination) flags() cmdline.Flags {
	flags := cmdline.Flags{PinPath: e.PinPath}
	if e.ConfigFlag {
		flags.Config = e.Config
	}
	return flags
}

// up is the command that puts the policy in force on interfaces.
func (e *examination) up(args ...string) string {
	return e.portcullis(append([]string{"up"}, args...)...)
}

// upAgain is up after a down, with which the filter has forgotten its file.
func (e *examination) upAgain(args ...string) string {
	flags := e.flags()
	if flags.Config == "" && e.Config != firewall.DefaultConfig {
		flags.Config = e.Config
	}
	return flags.Line(append([]string{"up"}, args...)...)
}

// modeOf returns the mode in which an interface is filtered, and "" when it is not.
func (e *examination) modeOf(name string) loader.Mode {
	if e.Running != nil {
		for _, i := range e.Running.Interfaces {
			if i.Name == name && i.Present {
				return i.Mode
			}
		}
	}
	return ""
}

// unseen notes what cannot be looked at without root, and reports whether that is so.
func (e *examination) unseen(name, what string, err error) bool {
	if !errors.Is(err, fs.ErrPermission) {
		return false
	}
	e.note(name, "%s: not seen without root", what).fix("sudo " + e.portcullis("doctor"))
	return true
}

// files reads the file systems in which the kernel and the distribution tell of themselves.
type files struct{ fs.FS }

// ReadFile implements [fs.ReadFileFS].
func (f files) ReadFile(name string) ([]byte, error) { return host.ReadFile(f.FS, name) }

// line returns the first line of a file, and false when there is none.
func (f files) line(path string) (string, bool) {
	text, err := fs.ReadFile(f, path)
	first, _, _ := strings.Cut(string(text), "\n")
	return strings.TrimSpace(first), err == nil
}

// exists reports whether anything has a name that matches.
func (f files) exists(patterns ...string) bool {
	for _, pattern := range patterns {
		if found, err := fs.Glob(f, pattern); err == nil && len(found) > 0 {
			return true
		}
	}
	return false
}
