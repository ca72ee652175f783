// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"io"
	"math"
	"os"
	"os/signal"
	"runtime/debug"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/portcullis-firewall/portcullis/firewall/agent"
	"github.com/portcullis-firewall/portcullis/loader"
)

// stateVariable is where systemd names what its StateDirectory= stands for, to the service that is the agent. Commands
// do not ask it: they may run in any other service.
const stateVariable = "STATE_DIRECTORY"

func (a *app) runCommand() *cobra.Command {
	mode := modeFlag{loader.ModeAuto}
	cmd := &cobra.Command{
		Use:         "run [IFACE...]",
		Short:       "Put the policy in force, and keep it in force",
		Annotations: needsRoot,
		Long: `Put the policy in force as "up" does, then stay and keep the filter in step with the host:
filter interfaces that appear or are re-created, follow addresses, remove expired flows,
and apply the policy file when it or a list file changes, and on SIGHUP. A bad file changes
nothing; at the start the last good policy, or copy of a list, is used instead. An
interface that does not exist yet is waited for.

The filter does not need this process: when it ends or is killed, no verdict changes. An
interface released by "portcullis down" stays unfiltered until "portcullis up" or SIGHUP.`,
		Example: `  portcullis run
  portcullis run eth0 wg0`,
		ValidArgsFunction: a.completeInterfaces,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.runAgent(cmd.Context(), args, mode.Mode)
		},
	}
	addMode(cmd, &mode)
	return cmd
}

func (a *app) runAgent(ctx context.Context, interfaces []string, mode loader.Mode) error {
	if err := a.privileged(); err != nil {
		return err
	}
	// What main sets is for commands that are over soon.
	debug.SetGCPercent(100)
	debug.SetMemoryLimit(math.MaxInt64)
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, unix.SIGTERM)
	defer stop()
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, unix.SIGHUP)
	return agent.Run(ctx, agent.Options{
		Firewall:   a.newFirewall(cmp.Or(a.stateDir, a.getenv(stateVariable))),
		Interfaces: interfaces,
		Mode:       mode,
		Hangup:     hangup,
		Log:        agent.NewLog(completing{a}),
	})
}

// completing is standard error for a log, whose lines name commands.
type completing struct{ *app }

// Write implements [io.Writer].
func (c completing) Write(line []byte) (int, error) {
	_, err := io.WriteString(c.stderr, c.complete(string(line)))
	return len(line), err
}
