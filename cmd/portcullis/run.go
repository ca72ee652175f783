// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"math"
	"os"
	"os/signal"
	"runtime/debug"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/portcullis-firewall/portcullis/firewall/agent"
	"github.com/portcullis-firewall/portcullis/loader"
	"github.com/portcullis-firewall/portcullis/policy"
)

// runDirectory is where systemd's RuntimeDirectory= is, unless it names another in the variable.
const (
	runDirectory = "/run/portcullis"
	runVariable  = "RUNTIME_DIRECTORY"
)

func (a *app) runCommand() *cobra.Command {
	mode := modeFlag{loader.ModeAuto}
	cmd := &cobra.Command{
		Use:   "run [IFACE...]",
		Short: "Put the policy in force, and keep it so",
		Long: `Put the policy in force as "up" does, and stay to keep the filter in step with the host:
interfaces that appear or are re-created are filtered at once, addresses are followed,
expired flows are removed, and the policy file is applied when it changes, and on SIGHUP.
A bad file changes nothing; at the start the last good policy is used instead. An
interface that is not there yet is waited for.

The filter does not need it: when it ends, or is killed, no verdict changes. An interface
released by "portcullis down" stays unfiltered until "portcullis up" or a SIGHUP.`,
		Example: `  portcullis run
  portcullis run eth0 wg0`,
		ValidArgsFunction: a.completeInterfaces,
		RunE: func(_ *cobra.Command, args []string) error {
			return a.runAgent(args, mode.Mode)
		},
	}
	cmd.Flags().Var(&mode, "mode", "where to filter: auto, native, generic or tc")
	_ = cmd.RegisterFlagCompletionFunc("mode", words("auto", "native", "generic", "tc"))
	return cmd
}

func (a *app) runAgent(interfaces []string, mode loader.Mode) error {
	if err := a.privileged(); err != nil {
		return err
	}
	// What main sets is for commands that are over soon.
	debug.SetGCPercent(100)
	debug.SetMemoryLimit(math.MaxInt64)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, unix.SIGTERM)
	defer stop()
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, unix.SIGHUP)
	return agent.Run(ctx, agent.Kernel{}, agent.Options{
		PinPath:     a.pinPath,
		Config:      a.config,
		ConfigGiven: a.configGiven,
		Interfaces:  interfaces,
		Mode:        mode,
		BuiltIn:     a.builtInAtBoot,
		LockFile:    waitForFile,
		LastGood:    agent.LastGoodOf(a.pinPath, a.getenv),
		RunDir:      cmp.Or(a.getenv(runVariable), runDirectory),
		Deadlines:   loader.StateDir,
		Hangup:      hangup,
		Log:         agent.NewLog(a.stderr),
	})
}

// waitForFile locks the policy file for as long as it takes.
func waitForFile(path string) (release func()) {
	release, err := lockFile(path)
	if err != nil {
		return func() {}
	}
	return release
}

// builtInAtBoot is the built-in policy, for when sshd may not have begun to listen yet, nor a container engine to forward.
func (a *app) builtInAtBoot() (*policy.Policy, error) {
	p, err := a.builtIn()
	if err != nil {
		return nil, err
	}
	p.Forward = policy.ForwardEstablished
	if len(p.Open) > 0 {
		return p, nil
	}
	ssh, err := policy.ParseRule("ssh")
	if err != nil {
		return nil, err
	}
	p, _ = p.WithRule(ssh)
	return p, nil
}

// keepNewLastGood is keepLastGood for a filter that was put in force just now.
func (a *app) keepNewLastGood() {
	f, err := a.connect()
	if err != nil {
		a.warn(err.Error())
		return
	}
	defer f.Close()
	a.keepLastGood(f)
}

// keepLastGood keeps the policy in force for a boot at which the file is bad.
func (a *app) keepLastGood(f filter) {
	if err := agent.LastGoodOf(a.pinPath, a.getenv).Keep(f); err != nil {
		a.warn(err.Error())
	}
}
