// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// commandTree returns the program's commands.
func commandTree() *cobra.Command {
	a := &app{env: env{stdout: new(strings.Builder), stderr: new(strings.Builder), getenv: func(string) string { return "" }}}
	a.out = bufio.NewWriter(a.stdout)
	root := a.root()
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	return root
}

// commands returns every command that help shows, without the program itself.
func commands() (all []*cobra.Command) {
	var walk func(*cobra.Command)
	walk = func(parent *cobra.Command) {
		for _, c := range parent.Commands() {
			if c.IsAvailableCommand() || c.Name() == "help" {
				all = append(all, c)
				walk(c)
			}
		}
	}
	walk(commandTree())
	return all
}

// callOf returns the words by which a command is called: flows sweep.
func callOf(c *cobra.Command) []string { return strings.Fields(c.CommandPath())[1:] }

// callWithArguments returns words by which a command can be called, with something for each argument that it demands.
func callWithArguments(t *testing.T, c *cobra.Command) []string {
	t.Helper()
	call := callOf(c)
	for _, argument := range strings.Fields(c.Use)[1:] {
		switch {
		case strings.HasPrefix(argument, "["), strings.HasSuffix(argument, "]") && !strings.HasPrefix(argument, "SRC"):
		case argument == "SRC[:PORT]":
			call = append(call, "203.0.113.9")
		case argument == "WHAT":
			call = append(call, "443/tcp")
		case argument == "RULE...":
			call = append(call, "http")
		case argument == "ADDRESS...":
			call = append(call, "203.0.113.9")
		case argument == "FILE":
			path := filepath.Join(t.TempDir(), "policy.yaml")
			if err := os.WriteFile(path, []byte("open: [http]\n"), 0o644); err != nil {
				t.Fatal(err)
			}
			call = append(call, path)
		default:
			t.Fatalf("%s: what is a %s? Give this test one", c.CommandPath(), argument)
		}
	}
	return call
}

func TestEveryCommandNeedsWhatItsHelpSays(t *testing.T) {
	tried := map[string]int{}
	for _, c := range commands() {
		if slices.Contains([]string{"help", "completion"}, callOf(c)[0]) {
			continue
		}
		call, needs := callWithArguments(t, c), c.Annotations[needsAnnotation]
		tried[needs]++
		h := newHost(t)
		h.types(0, append(callOf(c), "--help")...)
		if says := strings.Contains(h.stdout, "\nNeeds "+needs+".\n"); needs != "" && !says {
			t.Errorf("%s --help does not say that it needs %s:\n%s", c.CommandPath(), needs, h.stdout)
		}

		h.privileges = errPrivileges
		var stderr strings.Builder
		e := h.env()
		e.stdout, e.stderr = new(strings.Builder), &stderr
		code := run(e, call)
		if refused := code == exitFailed && stderr.String() == "portcullis: "+errPrivileges.Error()+"\n"; refused != (needs != "") {
			t.Errorf("%q without root: exits with %d and says %q, but its help says that it needs %q", call, code, stderr.String(), needs)
		}
		if needs == needsRoot[needsAnnotation] && len(call) == 1 && slices.Contains([]string{"run", "bench", "bouncer"}, call[0]) {
			continue // these would begin in earnest
		}

		h.privileges = nil
		stderr.Reset()
		code = run(e, call)
		wantsFilter := needs == needsFilter[needsAnnotation]
		if refused := code == exitNotRunning && strings.HasPrefix(stderr.String(), "portcullis: not running"); refused != wantsFilter {
			t.Errorf("%q where nothing runs: exits with %d and says %q, but its help says that it needs %q", call, code, stderr.String(), needs)
		}
	}
	for _, needs := range []string{"", needsRoot[needsAnnotation], needsFilter[needsAnnotation]} {
		if tried[needs] == 0 {
			t.Errorf("no command needs %q", needs)
		}
	}
}

// Help fits a terminal of 100 columns, also where it is a manual page.
// What the help of the program does not list nobody finds.
func TestHelpListsEveryCommand(t *testing.T) {
	h := newHost(t)
	h.types(0, "--help")
	for _, c := range commands() {
		if name := callOf(c)[0]; c.Parent() == c.Root() && c.IsAvailableCommand() && !strings.Contains(h.stdout, "\n  "+name+" ") {
			t.Errorf("it does not list %s", name)
		}
	}
}

func TestHelpIsNotTooWide(t *testing.T) {
	h := newHost(t)
	for _, c := range append(commands(), commandTree()) {
		if strings.HasPrefix(c.CommandPath(), "portcullis completion") {
			continue // cobra's own text
		}
		h.types(0, append(callOf(c), "--help")...)
		text, _, _ := strings.Cut(h.stdout, "Usage:\n")
		for line := range strings.Lines(text) {
			if len(line) > 100 {
				t.Errorf("%s --help: %q", c.CommandPath(), line)
			}
		}
	}
}

func TestWordsOfOtherToolsLeadToTheCommandThatIsMeant(t *testing.T) {
	h := newHost(t)
	for word, command := range map[string]string{
		"allow": "open", "permit": "open", "deny": "close", "delete": "close", "block": "portcullis ban", "unblock": "unban",
		"reload": "apply", "enable": "up", "start": "up", "restart": "up", "disable": "down", "stop": "down",
		"list": "status", "show": "status", "rules": "status", "Allow": "open",
		"edit": "portcullis apply", "config": "portcullis check", "iptables": "portcullis import", "icmp": `"icmp: accept"`, "ping": "portcullis apply", "dns": "portcullis open domain",
		"limit": "portcullis open ssh limit 6/minute",
	} {
		h.types(2, word)
		h.complains(`unknown command "`+word+`": `, command)
		if strings.Count(h.stderr, "\n") != 1 || strings.Contains(h.stderr, "--help") {
			t.Errorf("%s says %q", word, h.stderr)
		}
		h.types(2, word, "8080/tcp")
		h.types(2, "help", word)
		h.complains(command)
	}

	root := commandTree()
	var all []string
	for command, others := range otherWords {
		if found, _, err := root.Find([]string{command}); err != nil || found == root {
			t.Errorf("words lead to %q, which is no command", command)
		}
		all = append(all, others...)
	}
	for word := range notQuite {
		if !slices.Contains(all, word) {
			t.Errorf("%q has a sentence, and leads to no command", word)
		}
	}
	for i, word := range all {
		if slices.Contains(all[:i], word) {
			t.Errorf("%q leads to two commands", word)
		}
		if found, _, err := root.Find([]string{word}); err == nil && found != root {
			t.Errorf("%q is a command itself", word)
		}
	}
}

// What the libraries say of a wrong value is the name of the function that failed.
func TestWrongFlagsAreExplained(t *testing.T) {
	h := newHost(t)
	tried := map[string]bool{}
	try := func(c *cobra.Command, f *pflag.Flag) {
		kind := f.Value.Type()
		if kind == "string" || kind == "stringArray" || f.Name == "help" || f.Name == "version" {
			return
		}
		tried[kind] = true
		for _, wrong := range []string{"\"", "1x", "99999999999999999999"} {
			if kind == "stringSlice" && wrong != "\"" {
				continue // anything is a name
			}
			h.types(2, append(callOf(c), "--"+f.Name+"="+wrong)...)
			h.complains("--" + f.Name + " ")
			if !strings.Contains(h.stderr, "write ") {
				t.Errorf("%s --%s=%s does not say what to write: %q", c.CommandPath(), f.Name, wrong, h.stderr)
			}
			for _, foreign := range []string{"strconv", "parse error", "time:"} {
				if strings.Contains(h.stderr, foreign) {
					t.Errorf("%s --%s=%s says %q", c.CommandPath(), f.Name, wrong, h.stderr)
				}
			}
		}
	}
	for _, c := range commands() {
		if callOf(c)[0] != "help" && callOf(c)[0] != "completion" {
			c.Flags().VisitAll(func(f *pflag.Flag) { try(c, f) })
			c.InheritedFlags().VisitAll(func(f *pflag.Flag) { try(c, f) })
		}
	}
	for _, kind := range []string{"int", "bool", "MODE", "FORMAT", "TIME", "WORD", "WORDS", "stringSlice"} {
		if !tried[kind] {
			t.Errorf("no flag of type %s was tried", kind)
		}
	}
}

const readme = "../../README.md"

// The first column of README's table of commands has every command as its usage line writes it, and nothing else. Flags
// that the table names exist.
func TestReadmeNamesEveryCommand(t *testing.T) {
	text, err := os.ReadFile(readme)
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(text), "\n## Commands\n")
	section, _, _ = strings.Cut(section, "\n## ")
	quoted := regexp.MustCompile("`([^`]+)`")
	var rows, inTable []string
	for line := range strings.Lines(section) {
		if cells := strings.Split(line, "|"); len(cells) > 2 {
			for _, found := range quoted.FindAllStringSubmatch(cells[1], -1) {
				inTable = append(inTable, found[1])
			}
			rows = append(rows, line)
		}
	}

	var want []string
	flags := map[string]bool{}
	for _, c := range commands() {
		usage := strings.TrimPrefix(c.Parent().CommandPath()+" "+c.Use, "portcullis ")
		switch callOf(c)[0] {
		case "completion", "help":
			usage = callOf(c)[0]
		}
		if !slices.Contains(want, usage) {
			want = append(want, usage)
		}
		add := func(f *pflag.Flag) { flags["--"+f.Name] = true }
		c.Flags().VisitAll(add)
		c.InheritedFlags().VisitAll(add)
	}
	for _, usage := range want {
		if !slices.Contains(inTable, usage) {
			t.Errorf("%s: the table of commands does not name `%s`", readme, usage)
		}
	}
	for _, usage := range inTable {
		if !slices.Contains(want, usage) {
			t.Errorf("%s: the table of commands names `%s`, which is no command", readme, usage)
		}
	}
	for _, flag := range regexp.MustCompile(`--[a-z][a-z-]*`).FindAllString(strings.Join(rows, ""), -1) {
		if !flags[flag] {
			t.Errorf("%s: no command has the flag %s", readme, flag)
		}
	}
	if len(rows) < 10 {
		t.Errorf("%s: this is not the table of commands: %q", readme, rows)
	}
}
