// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/portcullis-firewall/portcullis/firewall"
	"github.com/portcullis-firewall/portcullis/firewall/importcheck"
	"github.com/portcullis-firewall/portcullis/firewall/liverules"
	"github.com/portcullis-firewall/portcullis/firewall/savefile"
	"github.com/portcullis-firewall/portcullis/host"
	"github.com/portcullis-firewall/portcullis/policy"
	"github.com/portcullis-firewall/portcullis/policy/iptables"
)

type importOptions struct {
	interfaces []string
	ip4, ip6   []string // files whose family is known
	write      string
	report     string
	partial    bool
	strict     bool
	live       bool
	verify     bool
	packets    int
}

// maxPackets bounds what --verify sends.
const maxPackets = 1_000_000

// importSource is a kind of rules that can be imported.
type importSource struct {
	name string
	// detect reports whether files are of this kind, as a whole; the first that says so is taken.
	detect func(files []iptables.File) bool
	read   func(files []iptables.File, o iptables.Options) (*iptables.Result, error)
}

// importSources are the kinds, with iptables as the last, which says what is wrong with any other file.
var importSources = []importSource{
	{"iptables", func([]iptables.File) bool { return true }, iptables.ImportWith},
}

func (a *app) importCommand() *cobra.Command {
	var o importOptions
	cmd := &cobra.Command{
		Use:   "import [FILE...]",
		Short: "Translate iptables rules into a policy file",
		Long: `Translate iptables rules into a policy file, and print it. Reads the output of iptables-save,
ip6tables-save and "iptables -S", shell scripts of iptables commands, and ufw's user.rules
and user6.rules; what "ipset save" prints tells what the sets hold that rules name. Several
files become one policy; without a file, or for "-", it reads the standard input. --live
reads the rules that are in force on this host, of both families. The family of a file is
what its rules say; -4 and -6 name files of which it cannot be told. Changes nothing but the
files that --write and --report name; what the first held before goes into a file beside it
that ends in ` + firewall.BackupSuffix + `.

The policy lets in nothing that the rules do not, except what is listed under "To know" and
what always passes. What only netfilter can drop (sets, recent, string, connlimit and the
like) is left to it: the policy opens what is behind, and the rule is listed as one that
stays in netfilter; --strict does not open it instead. What is not fully translated, and
what stays, stands at the end of the file and, where a terminal does not show that, on the
standard error, each thing once; --report writes it line by line, with the rules that stay.
In that case import exits with 1 and --write writes nothing, unless --partial says that such
a policy will do.

--verify plays packets to the rules, in netfilter, and to the policy, with the rules that
stay behind it, in network namespaces of its own, and says where they decide otherwise. It
needs root and touches nothing of this host.`,
		Example: `  iptables-save | portcullis import
  portcullis import /etc/iptables/rules.v4 /etc/iptables/rules.v6 --write portcullis.yaml
  portcullis import -4 today.txt -6 today6.txt --report findings.txt
  portcullis import firewall.sh --interface eth0
  portcullis import --live --verify`,
		GroupID: "more",
		RunE: func(cmd *cobra.Command, args []string) error {
			if o.live && len(args)+len(o.ip4)+len(o.ip6) > 0 {
				return usagef("--live reads the rules in force, and no files: leave out one of both")
			}
			if o.packets < 1 || o.packets > maxPackets {
				return usagef("--packets %d is not possible: write a number from 1 to %d", o.packets, maxPackets)
			}
			return a.importRules(cmd, args, o)
		},
	}
	flags := cmd.Flags()
	flags.StringSliceVarP(&o.interfaces, "interface", "i", nil, "translate for interface `NAME`, instead of those that rules name")
	flags.StringArrayVarP(&o.ip4, "ipv4", "4", nil, "read `FILE`, whose rules are for IPv4")
	flags.StringArrayVarP(&o.ip6, "ipv6", "6", nil, "read `FILE`, whose rules are for IPv6")
	flags.BoolVar(&o.live, "live", false, "read the rules that are in force on this host (root)")
	flags.StringVarP(&o.write, "write", "w", "", "write the policy to `FILE` instead of the standard output")
	flags.StringVar(&o.report, "report", "", "write all findings, and the rules that stay in netfilter, to `FILE`")
	flags.BoolVar(&o.partial, "partial", false, "accept a policy that lacks something, or relies on rules that stay")
	flags.BoolVar(&o.strict, "strict", false, "do not open what only netfilter can restrict")
	flags.BoolVar(&o.verify, "verify", false, "compare the policy with the rules, by packets (root)")
	flags.IntVar(&o.packets, "packets", 12000, "how many packets --verify sends at most, `N`")
	_ = cmd.MarkFlagFilename("write", "yaml", "yml")
	_ = cmd.RegisterFlagCompletionFunc("interface", a.completeInterfaces)
	return cmd
}

type importView struct {
	Policy       string                 `json:"policy"`  // the text of the file
	Summary      string                 `json:"summary"` // in a line
	Untranslated []iptables.Finding     `json:"untranslated"`
	Stays        []iptables.Finding     `json:"stays"` // what the policy relies on
	Notes        []iptables.Finding     `json:"notes"`
	Written      string                 `json:"written,omitempty"`
	Backup       string                 `json:"backup,omitempty"`    // of what the file held before
	Agreement    *importcheck.Agreement `json:"agreement,omitempty"` // with --verify
}

func (a *app) importRules(cmd *cobra.Command, paths []string, o importOptions) error {
	if o.live || o.verify {
		if err := a.privileged(); err != nil {
			return err
		}
	}
	files, options, err := a.importFiles(cmd, paths, o)
	if err != nil {
		return err
	}
	result, err := readImport(files, options)
	if err != nil {
		return fmt.Errorf("import: %w", err)
	}
	if o.live {
		if result, err = forLiveInterfaces(result, files, options); err != nil {
			return fmt.Errorf("import: %w", err)
		}
	}
	view := importView{Policy: string(result.YAML()), Summary: result.Summary(), Untranslated: list(result.Untranslated), Stays: list(result.Stays), Notes: list(result.Notes)}
	if o.report != "" {
		if err := savefile.Save(o.report, result.Report()); err != nil {
			return err
		}
	}
	if o.verify {
		if view.Agreement, err = verifyImport(cmd, result, files, o.packets); err != nil {
			return err
		}
	}
	lacking := len(result.Untranslated)+len(result.Stays) > 0 && !o.partial
	wider := view.Agreement != nil && view.Agreement.Wider > 0
	if o.write != "" && !lacking && !wider {
		if view.Written, err = filepath.Abs(o.write); err != nil {
			return err
		}
		if view.Backup, err = replaceFile(view.Written, []byte(view.Policy)); err != nil {
			return err
		}
	}
	if err := a.print(view, func() { a.printImport(view, o) }); err != nil || !lacking && !wider {
		return err
	}
	switch lost, stays := len(iptables.Group(view.Untranslated)), len(view.Stays); {
	case wider:
		err = errors.New("the policy lets in what the rules drop, which is a fault of this program: please report it with the rules")
	case lost > 0:
		err = fmt.Errorf("some rules were not translated: %s above", count(lost, "finding", "findings"))
	default:
		err = fmt.Errorf("%s to stay in netfilter, as said above", count(stays, "rule has", "rules have"))
	}
	if o.write != "" {
		return fmt.Errorf("%w; nothing was written; to write it anyway, add --partial", err)
	}
	return err
}

// readImport reads files by the kind that they are of.
func readImport(files []iptables.File, o iptables.Options) (*iptables.Result, error) {
	for _, s := range importSources {
		if s.detect(files) {
			return s.read(files, o)
		}
	}
	return nil, iptables.ErrNoRules
}

// importFiles reads the rules that are named, or those in force.
func (a *app) importFiles(cmd *cobra.Command, paths []string, o importOptions) ([]iptables.File, iptables.Options, error) {
	options := iptables.Options{Interfaces: o.interfaces, Keep: !o.strict, Families: make(map[string]int)}
	if o.live {
		live, err := liverules.Read(cmd.Context())
		if err != nil {
			return nil, options, fmt.Errorf("import: %w", err)
		}
		for _, l := range live.Rules {
			options.Families[l.Name] = l.Family
		}
		a.warn(live.Warnings...)
		return live.Files(), options, nil
	}
	for _, known := range []struct {
		paths  []string
		family int
	}{{o.ip4, 4}, {o.ip6, 6}} {
		for _, path := range known.paths {
			if path == "-" {
				path = "stdin"
			}
			if f, ok := options.Families[path]; ok && f != known.family {
				return nil, options, usagef("%s is named for both families: its rules are for one", path)
			}
			options.Families[path] = known.family
		}
	}
	paths = slices.Concat(paths, o.ip4, o.ip6)
	files, err := readRules(cmd.InOrStdin(), paths)
	return files, options, err
}

// forLiveInterfaces translates again for the interface of the default route, too, where the policy lists some and not it.
func forLiveInterfaces(result *iptables.Result, files []iptables.File, o iptables.Options) (*iptables.Result, error) {
	if len(o.Interfaces) > 0 || len(result.Policy.Interfaces) == 0 {
		return result, nil
	}
	routed, err := host.DefaultInterface()
	if err != nil {
		return nil, err
	}
	o.Interfaces = slices.DeleteFunc(slices.Clone(result.Policy.Interfaces), func(name string) bool { return strings.Contains(name, "*") })
	if !policy.MatchAnyInterface(result.Policy.Interfaces, routed) {
		o.Interfaces = append(o.Interfaces, routed)
	}
	return readImport(files, o)
}

// replaceFile writes a policy file, and keeps what it held before in a backup beside it.
func replaceFile(path string, text []byte) (backup string, err error) {
	old, err := policy.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "", savefile.Save(path, text)
	case err != nil:
		return "", err
	case bytes.Equal(old, text):
		return "", nil
	}
	backup = path + firewall.BackupSuffix
	if err := savefile.SavePrivate(backup, old); err != nil { // the file may have been private, too
		return "", err
	}
	return backup, savefile.Save(path, text)
}

func (a *app) printImport(view importView, o importOptions) {
	switch {
	case view.Backup != "":
		a.printf("written to %s; the old version is in %s\n", view.Written, view.Backup)
	case view.Written != "":
		a.printf("written to %s\n", view.Written)
	case o.write == "":
		_, _ = io.WriteString(a.stdout, view.Policy) // as it is
	}
	_ = a.out.Flush() // run asks again
	if view.Agreement != nil {
		defer a.printAgreement(view.Agreement)
	}
	if o.write == "" && isTerminal(a.screen) && isTerminal(a.terminal) {
		return // the head of the policy says so already
	}
	a.printFindings("note", view.Notes, maxNotes)
	a.printFindings("not translated", view.Untranslated, maxFindings)
	a.printFindings("stays", view.Stays, maxFindings)
	fmt.Fprintf(a.stderr, "the policy %s\n", view.Summary)
}

// How many findings of a kind are printed; the report has all.
const (
	maxNotes    = 12
	maxFindings = 40
)

// printFindings prints each thing that is to be known once.
func (a *app) printFindings(kind string, findings []iptables.Finding, most int) {
	groups := iptables.Group(findings)
	for _, g := range groups[:min(len(groups), most)] {
		fmt.Fprintf(a.stderr, "%s: %s\n", kind, g)
	}
	if more := len(groups) - most; more > 0 {
		fmt.Fprintf(a.stderr, "%s: and %d more, which --report FILE writes\n", kind, more)
	}
}

// maxImport bounds what is read as rules, in bytes.
const maxImport = 16 << 20

func readRules(stdin io.Reader, paths []string) ([]iptables.File, error) {
	if len(paths) == 0 {
		paths = []string{"-"}
	}
	var files []iptables.File
	for _, path := range paths {
		name, in := path, stdin
		if path == "-" {
			name = "stdin"
		} else {
			f, err := os.Open(path)
			if err != nil {
				return nil, fmt.Errorf("import: %w", err)
			}
			defer f.Close()
			in = f
		}
		data, err := io.ReadAll(io.LimitReader(in, maxImport+1))
		if err == nil && len(data) > maxImport {
			err = errors.New("larger than 16 MiB, so these are not the rules of a firewall")
		}
		if err != nil {
			return nil, fmt.Errorf("import %s: %w", name, err)
		}
		files = append(files, iptables.File{Name: name, Data: data})
	}
	return files, nil
}
