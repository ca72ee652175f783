// SPDX-License-Identifier: Apache-2.0

// Command portcullisd is the part of portcullis that takes large libraries, which would make every command slower to
// start: the agent that serves metrics or takes part in a fleet, top, and the commands of a fleet. "portcullis run --metrics",
// "portcullis run --fleet", "portcullis top" and "portcullis fleet" become it.
package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/portcullis-firewall/portcullis/firewall"
	"github.com/portcullis-firewall/portcullis/firewall/agent"
	"github.com/portcullis-firewall/portcullis/firewall/user"
	"github.com/portcullis-firewall/portcullis/loader"
	"github.com/portcullis-firewall/portcullis/policy/quote"
)

// version is set by the build.
var version = "dev"

// Exit codes, as portcullis has them.
const (
	exitFailed     = 1
	exitUsage      = 2
	exitNotRunning = 3
)

// daemon is one run of the program.
type daemon struct {
	stdout, stderr io.Writer
	getenv         func(string) string

	pinPath, config, caller string
	configGiven             bool
	wait                    time.Duration
}

func main() {
	d := &daemon{stdout: os.Stdout, stderr: quote.NewWriter(os.Stderr), getenv: os.Getenv}
	if code := d.run(os.Args[1:]); code != 0 {
		os.Exit(code)
	}
}

type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

func (d *daemon) run(args []string) int {
	root := d.root()
	root.SetArgs(args)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, unix.SIGTERM)
	defer stop()
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	for line := range strings.Lines(d.complete(err.Error())) {
		fmt.Fprintf(d.stderr, "portcullis: %s\n", strings.TrimPrefix(strings.TrimSpace(line), "portcullis is "))
	}
	switch {
	case errors.As(err, new(usageError)):
		return exitUsage
	case errors.Is(err, loader.ErrNotRunning):
		return exitNotRunning
	}
	return exitFailed
}

func (d *daemon) root() *cobra.Command {
	root := &cobra.Command{
		Use:           "portcullisd",
		Short:         "The agent of portcullis with metrics and a fleet, and its view of what happens",
		Long:          `Started by "portcullis run --metrics", "run --fleet", "top" and "fleet", whose help explains it.`,
		Version:       version,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			return usageError{errors.New("start \"portcullis run --metrics ADDRESS\", \"portcullis top\" or \"portcullis fleet\"")}
		},
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error {
			d.configGiven = cmd.Flags().Changed("config")
			if d.caller != "" && d.caller != version {
				return fmt.Errorf("portcullisd is version %s, and portcullis %s: install both of the same version", version, d.caller)
			}
			return nil
		},
	}
	root.SetVersionTemplate("portcullisd {{.Version}}\n")
	root.SetOut(d.stdout)
	root.SetErr(d.stderr)
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	root.CompletionOptions.DisableDefaultCmd = true
	flags := root.PersistentFlags()
	flags.StringVar(&d.config, "config", firewall.DefaultConfig, "policy `FILE`")
	flags.StringVar(&d.pinPath, "pin-path", loader.DefaultPinPath, "`DIR` in which the filter is pinned")
	flags.DurationVar(&d.wait, "lock-timeout", firewall.DefaultWait, "give up after `TIME` if another command is changing the filter")
	flags.StringVar(&d.caller, "caller", "", "`VERSION` of the portcullis that starts this")
	root.AddCommand(d.runCommand(), d.topCommand(), d.fleetCommand(), d.watchdogCommand())
	return root
}

// watchdogCommand is run by an agent that puts a policy on trial: see [firewall.Firewall.Watchdog].
func (d *daemon) watchdogCommand() *cobra.Command {
	return &cobra.Command{
		Use:    firewall.WatchdogCommand,
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			signal.Ignore(unix.SIGHUP)
			log, last := agent.NewLog(completing{d}), ""
			return d.firewall(log.Event, nil).Watchdog(cmd.Context(), func(err error) {
				if err.Error() != last { // it is tried again and again
					last = err.Error()
					log.Error("%v", err)
				}
			})
		},
	}
}

func (d *daemon) firewall(happens func(firewall.Event), renamed func(string)) *firewall.Firewall {
	var invoker []uint32
	if uid, err := strconv.ParseUint(d.getenv("SUDO_UID"), 10, 32); err == nil {
		invoker = append(invoker, uint32(uid))
	}
	return firewall.New(firewall.Options{
		PinPath:     d.pinPath,
		Config:      d.config,
		ConfigGiven: d.configGiven,
		Wait:        d.wait,
		Happens:     happens,
		Renamed:     renamed,
		StateDir:    d.getenv("STATE_DIRECTORY"),
		Invoker:     invoker,
		Session:     user.FindSSHConnection,
	})
}

// complete writes the flags of this command into the commands that a text names.
func (d *daemon) complete(text string) string {
	flags := d.firewall(nil, nil).Flags()
	return flags.Complete(text)
}

// completing is standard error for a log, whose lines name commands.
type completing struct{ *daemon }

// Write implements [io.Writer].
func (c completing) Write(line []byte) (int, error) {
	_, err := io.WriteString(c.stderr, c.complete(string(line)))
	return len(line), err
}

// buffered calls write with standard output, and returns why that failed.
func (d *daemon) buffered(write func(io.Writer) error) error {
	w := bufio.NewWriter(d.stdout)
	return errors.Join(write(w), w.Flush())
}
