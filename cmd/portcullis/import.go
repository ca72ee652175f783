// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/portcullis-firewall/portcullis/firewall"
	"github.com/portcullis-firewall/portcullis/firewall/savefile"
	"github.com/portcullis-firewall/portcullis/policy"
	"github.com/portcullis-firewall/portcullis/policy/iptables"
)

type importOptions struct {
	interfaces []string
	from       string
	write      string
	partial    bool
}

func (a *app) importCommand() *cobra.Command {
	var o importOptions
	cmd := &cobra.Command{
		Use:   "import [FILE...]",
		Short: "Translate iptables rules into a policy file",
		Long: `Translate iptables rules into a policy file, and print it. Reads the output of iptables-save
and ip6tables-save, shell scripts of iptables commands, and ufw's user.rules and
user6.rules. Several files become one policy; without a file, or for "-", it reads the
standard input. Changes nothing but the file that --write names; what that file held before
goes into a file beside it that ends in ` + firewall.BackupSuffix + `.

The policy lets in nothing that the rules do not, except what is listed under "To know" and
what always passes. Each line that is not fully translated is listed at the head of the file
and, where a terminal does not show that, on the standard error. In that case import exits
with 1 and --write writes nothing, unless --partial says that such a policy will do.`,
		Example: `  iptables-save | portcullis import
  portcullis import /etc/iptables/rules.v4 /etc/iptables/rules.v6 --write portcullis.yaml
  portcullis import firewall.sh --interface eth0`,
		GroupID: "more",
		RunE: func(cmd *cobra.Command, args []string) error {
			files, err := readRules(cmd.InOrStdin(), args)
			if err != nil {
				return err
			}
			return a.importRules(files, o)
		},
	}
	cmd.Flags().StringSliceVarP(&o.interfaces, "interface", "i", nil, "translate for interface `NAME`, instead of those that rules name")
	cmd.Flags().StringVar(&o.from, "from", "", "take the files for rules of `SOURCE`: "+fromHelp)
	cmd.Flags().StringVarP(&o.write, "write", "w", "", "write the policy to `FILE` instead of the standard output")
	cmd.Flags().BoolVar(&o.partial, "partial", false, "accept a policy that lacks something")
	_ = cmd.MarkFlagFilename("write", "yaml", "yml")
	_ = cmd.RegisterFlagCompletionFunc("interface", a.completeInterfaces)
	return cmd
}

type importView struct {
	Policy       string             `json:"policy"` // the text of the file
	Untranslated []iptables.Finding `json:"untranslated"`
	Notes        []iptables.Finding `json:"notes"`
	Written      string             `json:"written,omitempty"`
	Backup       string             `json:"backup,omitempty"` // of what the file held before
}

func (a *app) importRules(files []iptables.File, o importOptions) error {
	source, err := sourceOf(files, o.from)
	if err != nil {
		return err
	}
	result, err := source.read(files, iptables.Options{Interfaces: o.interfaces})
	if err != nil {
		return fmt.Errorf("import: %w", err)
	}
	view := importView{Policy: string(result.YAML()), Untranslated: list(result.Untranslated), Notes: list(result.Notes)}
	lacking := len(result.Untranslated) > 0 && !o.partial
	if o.write != "" && !lacking {
		if view.Written, err = filepath.Abs(o.write); err != nil {
			return err
		}
		if view.Backup, err = replaceFile(view.Written, []byte(view.Policy)); err != nil {
			return err
		}
	}
	if err := a.print(view, func() { a.printImport(view, o) }); err != nil || !lacking {
		return err
	}
	err = fmt.Errorf("some rules were not translated: %s above", count(len(view.Untranslated), "finding", "findings"))
	if o.write != "" {
		return fmt.Errorf("%w; nothing was written; to write it anyway, add --partial", err)
	}
	return err
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
	if o.write == "" && isTerminal(a.screen) && isTerminal(a.terminal) {
		return // the head of the policy says so already
	}
	for _, f := range view.Notes {
		fmt.Fprintf(a.stderr, "note: %s\n", f)
	}
	for _, f := range view.Untranslated {
		fmt.Fprintf(a.stderr, "not translated: %s\n", f)
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
		if path == "-" {
			f, err := readRuleText("stdin", stdin)
			if err != nil {
				return nil, fmt.Errorf("import %w", err)
			}
			files = append(files, f)
			continue
		}
		names, err := rulePaths(path)
		if err != nil {
			return nil, fmt.Errorf("import: %w", err)
		}
		for _, name := range names {
			f, err := readRuleFile(name)
			if err != nil {
				return nil, fmt.Errorf("import: %w", err)
			}
			files = append(files, f)
		}
	}
	return files, nil
}
