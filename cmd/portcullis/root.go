// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/portcullis-firewall/portcullis/firewall"
	"github.com/portcullis-firewall/portcullis/loader"
)

// app is one run of the program: its environment and the flags of every command.
type app struct {
	env
	out         *bufio.Writer // what stdout is, in the end
	screen      io.Writer     // what stdout is, in the end
	terminal    io.Writer     // what stderr is
	firewall    *firewall.Firewall
	config      string
	configGiven bool
	unprintable []string // names of the command line
	inForce     string   // the file of the filter that a command has asked, "" before
	pinPath     string
	wait        time.Duration // for another command
	output      format
}

// packaging are the commands of a build for those who package the program.
var packaging []func(*app) *cobra.Command

const about = `Portcullis is a stateful firewall for this host. It decides in XDP, before the kernel
spends anything on a packet: replies to what this host sends come in, and so does
whatever a rule opens. Everything else is dropped.

A rule reads the same in the policy file, on the command line and in the status:
  http                          a service, for each protocol that /etc/services lists
  8080/tcp, 60000-61000/udp     a port or a range; tcp, udp, sctp or udplite
  22/tcp from 203.0.113.0/24    for some sources only, IPv4 and IPv6
  ssh on eth1 limit 6/minute    on some interfaces only, and so often from each source
All of it is in "portcullis open --help".

Exit codes:
  0  done, also if nothing had to be done
  1  refused or failed
  2  wrong command line
  3  not running`

// The order of commands is that in which they are needed.
func init() { cobra.EnableCommandSorting = false }

// usageTemplate is what follows the text of a command's help.
const usageTemplate = `Usage:
  {{if .HasParent}}{{.UseLine}}{{else}}{{.CommandPath}} COMMAND [flags]{{end}}
{{- if and .HasParent .HasAvailableSubCommands}}
  {{.CommandPath}} COMMAND{{end}}
{{- with needs .}}

Needs {{.}}.{{end}}
{{- if .HasExample}}

Examples:
{{.Example}}{{end}}
{{- if .HasAvailableSubCommands}}{{$all := .Commands}}{{range .Groups}}

{{.Title}}{{$group := .ID}}{{range $all}}{{if and (eq .GroupID $group) .IsAvailableCommand}}
  {{rpad .Name .NamePadding}}  {{.Short}}{{end}}{{end}}{{end}}
{{- if not .Groups}}

Commands:{{range $all}}{{if .IsAvailableCommand}}
  {{rpad .Name .NamePadding}}  {{.Short}}{{end}}{{end}}{{end}}{{end}}
{{- if .HasAvailableLocalFlags}}

Flags:
{{.LocalFlags.FlagUsages | trimTrailingWhitespaces}}{{end}}
{{- if .HasAvailableInheritedFlags}}

Flags of every command:
{{.InheritedFlags.FlagUsages | trimTrailingWhitespaces}}{{end}}
`

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "portcullis",
		Short: "A stateful host firewall in XDP",
		Long:  about,
		Example: `  portcullis up eth0          filter eth0; ssh stays open
  portcullis open http        open a service, now and permanently
  portcullis status           what is open, and what was dropped`,
		Args:              a.noSuchCommand,
		SilenceErrors:     true,
		SilenceUsage:      true,
		PersistentPreRunE: a.prepare,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return usagef("no command: see \"portcullis --help\"")
		},
		Version:           version,
		DisableAutoGenTag: true,
	}
	root.SetVersionTemplate("portcullis {{.Version}}\n")
	root.SetUsageTemplate(usageTemplate)
	root.SetOut(a.stdout)
	root.SetErr(a.stderr)
	root.SetFlagErrorFunc(flagError)
	flags := root.PersistentFlags()
	flags.SortFlags = false
	flags.StringVar(&a.config, "config", firewall.DefaultConfig, "policy `FILE`")
	flags.StringVar(&a.pinPath, "pin-path", cmp.Or(a.getenv(loader.PinPathVariable), loader.DefaultPinPath),
		"`DIR` in a bpf filesystem in which the filter is pinned")
	flags.DurationVar(&a.wait, "lock-timeout", firewall.DefaultWait, "give up after `TIME` if another command is changing the filter")
	flags.VarP(&a.output, "output", "o", or(formats))
	_ = root.RegisterFlagCompletionFunc("output", words(formats...))
	_ = root.MarkPersistentFlagFilename("config", "yaml", "yml")
	_ = root.MarkPersistentFlagDirname("pin-path")

	root.AddGroup(&cobra.Group{ID: "main", Title: "Commands:"}, &cobra.Group{ID: "more", Title: "More:"})
	for _, c := range []*cobra.Command{a.upCommand(), a.downCommand(), a.runCommand(), a.statusCommand(), a.openCommand(),
		a.closeCommand(), a.applyCommand(), a.diffCommand(), a.checkCommand(), a.saveCommand(), a.tryCommand(), a.confirmCommand(),
		a.revertCommand(), a.banCommand(), a.unbanCommand(), a.bansCommand(), a.flowsCommand(), a.monitorCommand(), a.logCommand(),
		a.explainCommand(), a.topCommand(), a.watchCommand()} {
		c.GroupID = "main"
		root.AddCommand(c)
	}
	root.AddCommand(a.bouncerCommand(), a.importCommand(), a.doctorCommand(), a.auditCommand(), a.benchCommand(), a.versionCommand(), a.watchdogCommand(), a.importCheckCommand())
	for _, command := range packaging {
		root.AddCommand(command(a))
	}
	root.SetHelpCommand(helpCommand())
	root.SetHelpCommandGroupID("more")
	root.SetCompletionCommandGroupID("more")
	return root
}

// prepare runs before every command.
func (a *app) prepare(cmd *cobra.Command, _ []string) (err error) {
	a.configGiven = cmd.Flags().Changed("config")
	if a.wait < 0 {
		return usagef("--lock-timeout %s: write a time from 0s on", a.wait)
	}
	// Later commands, from other directories, will have to find the same places.
	if a.config, err = filepath.Abs(a.config); err != nil {
		return err
	}
	if a.pinPath, err = loader.CleanPinPath(a.pinPath); err != nil {
		return usageError{err}
	}
	a.firewall = a.newFirewall(a.stateDir)
	cmd.SetContext(untilSignal(cmd))
	return nil
}

// newFirewall returns the firewall that the flags name, with its state in a directory, or where it belongs.
func (a *app) newFirewall(stateDir string) *firewall.Firewall {
	return firewall.New(firewall.Options{
		PinPath:     a.pinPath,
		Config:      a.config,
		ConfigGiven: a.configGiven,
		Wait:        a.wait,
		Waiting:     func(holder string) { fmt.Fprintf(a.stderr, "portcullis: waiting for %s\n", holder) },
		StateDir:    stateDir,
		Invoker:     a.invoker(),
		Session:     a.session,
		Kernel:      a.kernel,
		RunDir:      a.runDir,
	})
}

// invoker returns the user who ran sudo: a file of his that he names may be put in force, as he could put in force
// anything.
func (a *app) invoker() []uint32 {
	uid, err := strconv.ParseUint(a.getenv("SUDO_UID"), 10, 32)
	if err != nil {
		return nil
	}
	return []uint32{uint32(uid)}
}

func (a *app) noSuchCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	return usagef("unknown command %q: %s", args[0], hint(cmd, args[0]))
}

// noArguments is the Args of a command that takes none.
func noArguments(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usagef("unexpected argument %q: see %q", args[0], cmd.CommandPath()+" --help")
	}
	return nil
}

func helpCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "help [COMMAND]",
		Short: "Explain a command",
		RunE: func(cmd *cobra.Command, args []string) error {
			found, rest, err := cmd.Root().Find(args)
			if err != nil {
				return usageError{err}
			}
			if len(rest) > 0 {
				return usagef("no help on %q: %s", strings.Join(args, " "), hint(found, rest[0]))
			}
			found.InitDefaultHelpFlag()
			return found.Help()
		},
	}
}

func isNotRunning(err error) bool { return errors.Is(err, loader.ErrNotRunning) }
