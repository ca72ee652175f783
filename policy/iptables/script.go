// SPDX-License-Identifier: Apache-2.0

package iptables

import (
	"path"
	"slices"
	"strings"

	"github.com/portcullis-firewall/portcullis/policy/shell"
)

const exportHint = "run the script, and import what iptables-save prints"

// readScript follows a shell script, and does what its commands of iptables do.
func (s *ruleset) readScript(file, text string) {
	start := &scriptWorld{s.clone(), file}
	end := shell.Follow(file, text, start, scriptFindings{s.findings, file}).(*scriptWorld)
	if end.twice != nil {
		for _, f := range families {
			end.doubtAll(f, *end.twice)
		}
	}
	*s = *end.ruleset
}

// scriptFindings are what a script says beyond its rules.
type scriptFindings struct {
	*findings
	file string
}

func (l scriptFindings) Lost(at shell.Place, why string) { l.lost(placeOf(l.file, at), "%s", why) }
func (l scriptFindings) Note(at shell.Place, why string) { l.note(placeOf(l.file, at), "%s", why) }

func placeOf(file string, at shell.Place) place { return place{file, at.Line, at.Text} }

// scriptWorld is a ruleset on which a script acts.
type scriptWorld struct {
	*ruleset
	file string
}

func (w *scriptWorld) Clone() shell.World { return &scriptWorld{w.clone(), w.file} }

func (w *scriptWorld) Join(o shell.World) bool { return w.join(o.(*scriptWorld).ruleset) }

func (w *scriptWorld) Changes() int { return w.count }

func (w *scriptWorld) Open() bool { return w.open() }

func (w *scriptWorld) Doubt(at shell.Place) {
	for _, f := range families {
		w.doubtAll(f, placeOf(w.file, at))
	}
}

// Run does what a program does to the rules.
func (w *scriptWorld) Run(p shell.Program) (shell.Status, bool) {
	at := placeOf(w.file, p.At)
	args := make([]word, len(p.Args))
	for i, a := range p.Args {
		args[i] = word{a.Text, !a.Known}
	}
	switch name := plainName(p.Name); {
	case name == "iptables" || name == "ip6tables":
		return w.command(familyOfProgram(name), p.Name, args, at).status(), true
	case isSave(name):
		w.note(at, "Portcullis keeps what is open in its policy file: there is nothing to save")
		return shell.Assumed, true
	case isRestore(name):
		return w.restore(familyOfProgram(name), p, args, at).status(), true
	}
	return w.other(p, args, at)
}

func (o outcome) status() shell.Status {
	switch o {
	case done:
		return shell.OK
	case failed:
		return shell.Failed
	case assumed:
		return shell.Assumed
	}
	return shell.Unknown
}

func familyOfProgram(name string) family {
	if strings.HasPrefix(name, "ip6") {
		return v6
	}
	return v4
}

// plainName is that of iptables-legacy, iptables-nft-save and so on without
// what they work by.
func plainName(name string) string {
	return strings.NewReplacer("-legacy", "", "-nft", "").Replace(name)
}

func isSave(name string) bool    { return name == "iptables-save" || name == "ip6tables-save" }
func isRestore(name string) bool { return name == "iptables-restore" || name == "ip6tables-restore" }

// command does what one command of iptables says.
func (w *scriptWorld) command(f family, name string, args []word, at place) outcome {
	hidden := slices.ContainsFunc(args, func(w word) bool { return w.hidden })
	args, glued := unglued(withComments(args))
	c := parseCommand(args)
	if glued {
		c.doubt = "a target that is written without a blank, which some versions of iptables refuse"
	}
	switch {
	case c.verb == "" && hidden:
		c.bad = "what it does, only the script knows"
	case c.bad == "" && !hidden && c.only == nil:
		if why := w.refuses(f, c, args); why != "" {
			w.told[f] = true
			w.lost(at, "iptables refuses it: %s", why)
			return failed
		}
	}
	if w.elsewhereKept(f, name, c) {
		w.lost(at, "both iptables-legacy and iptables-nft keep rules here, and packets have to pass both: "+exportHint)
		w.twice = &at
	}
	if c.verb == "" && c.bad == "" {
		w.doubtAll(f, at)
	}
	return w.apply(f, c, at)
}

// elsewhereKept reports whether a command adds rules to another kind of iptables
// than those before it.
func (w *scriptWorld) elsewhereKept(f family, name string, c command) bool {
	by := "iptables"
	for _, kind := range []string{"legacy", "nft"} {
		if strings.Contains(name, "-"+kind) {
			by = kind
		}
	}
	adds := slices.Contains([]string{"A", "I", "R", ""}, c.verb) || c.verb == "P" && c.policy != "ACCEPT"
	if !adds || c.table != "filter" {
		return false
	}
	before := w.by[f]
	w.by[f] = by
	return before != "" && before != by
}

// restore reads rules that the script gives to iptables-restore.
func (w *scriptWorld) restore(f family, p shell.Program, args []word, at place) outcome {
	keeps, certain := false, p.Input.Known
	for i := 0; i < len(args); i++ {
		switch a := args[i]; {
		case a.hidden:
			certain = false
		case a.text == "-n" || a.text == "--noflush":
			keeps = true
		case a.text == "-t" || a.text == "--test" || a.text == "-h":
			return unsure
		case slices.Contains([]string{"-c", "--counters", "-v", "--verbose", "-w", "--wait"}, a.text):
			if (a.text == "-w" || a.text == "--wait") && i+1 < len(args) && strings.Trim(args[i+1].text, "0123456789") == "" {
				i++
			}
		default:
			certain = false
		}
	}
	if !certain {
		w.told[f] = true
		w.lost(at, "which rules these are cannot be told: import the file that they are in")
		w.doubtAll(f, at)
		return unsure
	}
	line := max(p.InputLine, 1)
	how := done
	for _, block := range restored(p.Input.Text) {
		if block.bad != "" {
			w.lost(place{w.file, line + block.line, block.first}, "%s", block.bad)
			return failed
		}
		before := w.clone()
		if !keeps && block.table == "filter" {
			if w.filled[f] {
				w.noteReplaced(f, place{w.file, line + block.line, block.first})
			}
			w.clear(f)
		}
		w.count++
		lost := len(w.untranslated)
		w.load(f, w.file, line+block.line, block.text, "", true) // what it flushes is flushed
		if block.table == "filter" && w.doubtfulBlock(f, block.text) || len(w.untranslated) > lost && block.table == "filter" {
			// One line that is refused, and none of them is there.
			how = unsure
			if w.join(before) {
				w.lost(at, "whether iptables-restore takes all of it cannot be told, and else it takes nothing")
			}
		}
	}
	return how
}

// doubtfulBlock reports whether iptables may refuse a line.
func (w *scriptWorld) doubtfulBlock(f family, text string) bool {
	for _, l := range savedLines(text) {
		if l.begins || l.text[0] == ':' {
			continue
		}
		words, ok := splitSaved(l.text)
		if len(words) > 0 && strings.HasPrefix(words[0].text, "[") {
			words = words[1:]
		}
		c := parseCommand(withComments(words))
		if !ok || c.bad != "" || c.verb != "A" && c.verb != "I" || w.refuses(f, c, words) != "" || parseRule(f, place{}, c.spec).suspect {
			return true
		}
	}
	return false
}

// clear takes away all rules and chains. Policies stay, until others are set.
func (s *ruleset) clear(f family) {
	s.count++
	for name, c := range s.chains[f] {
		c.rules = nil
		if c.isUsers() {
			delete(s.chains[f], name)
		}
	}
	s.wild[f] = tame
}

// block is one table for iptables-restore.
type block struct {
	table string
	first string // line
	line  int    // index of it
	text  string
	bad   string
}

// restored splits the input of iptables-restore at its tables.
func restored(text string) (blocks []block) {
	var current *block
	for i, line := range strings.SplitAfter(text, "\n") {
		trimmed := strings.TrimSpace(line)
		switch {
		case current == nil && (trimmed == "" || trimmed[0] == '#'):
		case current == nil && trimmed[0] != '*':
			return append(blocks, block{line: i, first: trimmed, bad: "it is in no table, so iptables-restore stops here"})
		case current == nil:
			current = &block{table: strings.TrimSpace(trimmed[1:]), first: trimmed, line: i, text: line}
		case trimmed != "" && trimmed[0] == '*':
			return append(blocks, block{line: i, first: trimmed, bad: "there is no COMMIT before it, so iptables-restore stops here"})
		default:
			current.text += line
			if trimmed == "COMMIT" {
				blocks = append(blocks, *current)
				current = nil
			}
		}
	}
	if current != nil {
		current.bad = "there is no COMMIT behind it, so iptables-restore does nothing"
		blocks = append(blocks, *current)
	}
	return blocks
}

// other does what programs do that also act on packets.
func (w *scriptWorld) other(p shell.Program, args []word, at place) (shell.Status, bool) {
	var texts []string
	for _, a := range args {
		texts = append(texts, a.text)
	}
	line := strings.Join(texts, " ")
	switch p.Name {
	case "nft":
		switch {
		case line == "flush ruleset":
			for _, f := range families {
				w.flush(f, nil, at)
				for _, name := range builtin {
					w.chains[f][name].policy = "ACCEPT"
				}
			}
			w.count++
			return shell.Assumed, true
		case strings.HasPrefix(line, "list "):
			return shell.Unknown, true
		}
		w.lost(at, "nft is not iptables")
		w.Doubt(shell.Place{Line: at.line, Text: at.text})
		return shell.Unknown, true
	case "ebtables", "arptables", "ipset":
		w.lost(at, "%s is not iptables", p.Name)
		return shell.Assumed, true
	case "ufw", "firewall-cmd":
		w.lost(at, "%s is not iptables", p.Name)
		w.Doubt(shell.Place{Line: at.line, Text: at.text})
		return shell.Unknown, true
	case "netfilter-persistent", "invoke-rc.d", "rc-service", "systemctl", "service", "initctl", "start", "stop", "restart":
		return w.service(p.Name, texts, at), true
	}
	return 0, false
}

// firewalls are services that load rules, or take them away.
var firewalls = []string{"iptables", "ip6tables", "netfilter-persistent", "iptables-persistent", "ufw", "firewalld", "nftables", "shorewall",
	"shorewall6", "ferm", "firehol", "firewall", "apf", "csf", "lfd", "docker", "network", "networking", "libvirtd"}

// service starts and stops others, some of which have rules of their own.
func (w *scriptWorld) service(name string, args []string, at place) shell.Status {
	ends := slices.ContainsFunc(args, func(a string) bool {
		return slices.Contains([]string{"stop", "disable", "mask", "is-active", "is-enabled", "status", "daemon-reload", "save"}, a)
	})
	about := name == "netfilter-persistent" || slices.ContainsFunc(args, func(a string) bool {
		return slices.Contains(firewalls, strings.TrimSuffix(path.Base(a), ".service")) || strings.ContainsAny(a, "$*")
	})
	if about && !slices.ContainsFunc(args, func(a string) bool {
		return slices.Contains([]string{"enable", "mask", "is-active", "is-enabled", "status", "daemon-reload", "save"}, a)
	}) {
		if !ends {
			w.lost(at, "which rules this loads cannot be told, so all may be dropped from here on: %s", exportHint)
		}
		w.Doubt(shell.Place{Line: at.line, Text: at.text})
		return shell.Unknown
	}
	w.note(at, "no rule: what it sets has to be set without the script from now on")
	if slices.ContainsFunc(args, func(a string) bool { return a == "is-active" || a == "is-enabled" || a == "status" }) {
		return shell.Unknown
	}
	return shell.Assumed
}
