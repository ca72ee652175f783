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
	mode, address, anywhere, fleet := modeFlag{loader.ModeAuto}, "", false, ""
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
interface released by "portcullis down" stays unfiltered until "portcullis up" or SIGHUP.

With --metrics it also answers Prometheus, at /metrics of an address of this host, such as
127.0.0.1:9734, or of a socket, unix:/run/portcullis/metrics.sock. What is counted tells
what is open, and to whom: --metrics-anywhere lets others than this host ask. Where the
address cannot be used, the filter is kept all the same, and the address is tried again.

With --fleet it also takes the policies that are published for its group: see "portcullis
fleet --help". The file names where from, the public key, the group and this host:
    {from: "dir:/srv/fleet", key: fleet.pub, group: web, name: h1}
Whatever is wrong with that, the policy in force stays.`,
		Example: `  portcullis run
  portcullis run eth0 wg0
  portcullis run --metrics 127.0.0.1:9734
  portcullis run --fleet /etc/portcullis/fleet.yaml`,
		ValidArgsFunction: a.completeInterfaces,
		RunE: func(cmd *cobra.Command, args []string) error {
			metrics := cmd.Flags().Changed("metrics")
			switch {
			case anywhere && !metrics:
				return usagef("--metrics-anywhere is for --metrics ADDRESS")
			case cmd.Flags().Changed("fleet") && fleet == "":
				return usagef("--fleet needs a file: say --fleet /etc/portcullis/fleet.yaml")
			case metrics || fleet != "":
				words := []string{"--mode", string(mode.Mode)}
				if metrics {
					words = append(words, "--metrics", address)
				}
				if anywhere {
					words = append(words, "--metrics-anywhere")
				}
				if fleet != "" {
					words = append(words, "--fleet", fleet)
				}
				return a.runInDaemon(append(append(words, "--"), args...))
			}
			return a.runAgent(cmd.Context(), args, mode.Mode)
		},
	}
	addMode(cmd, &mode)
	cmd.Flags().StringVar(&address, "metrics", "", "answer Prometheus at `ADDRESS`")
	cmd.Flags().BoolVar(&anywhere, "metrics-anywhere", false, "let others than this host ask for metrics")
	cmd.Flags().StringVar(&fleet, "fleet", "", "take part in the fleet that `FILE` names")
	_ = cmd.MarkFlagFilename("fleet", "yaml", "yml")
	return cmd
}

// runInDaemon becomes portcullisd, which says what is wrong with the address.
func (a *app) runInDaemon(words []string) error {
	if err := a.privileged(); err != nil {
		return err
	}
	return a.becomeDaemon("run", words...)
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
	log := agent.NewLog(completing{a})
	return agent.Run(ctx, agent.Options{
		Firewall:   a.newFirewall(cmp.Or(a.stateDir, a.getenv(stateVariable)), log.Event, func(sentence string) { log.Warn("%s", sentence) }),
		Interfaces: interfaces,
		Mode:       mode,
		Hangup:     hangup,
		Log:        log,
	})
}

// completing is standard error for a log, whose lines name commands.
type completing struct{ *app }

// Write implements [io.Writer].
func (c completing) Write(line []byte) (int, error) {
	_, err := io.WriteString(c.stderr, c.complete(string(line)))
	return len(line), err
}
