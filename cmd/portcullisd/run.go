// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"os"
	"os/signal"
	"path/filepath"
	"sync"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/portcullis-firewall/portcullis/firewall/agent"
	"github.com/portcullis-firewall/portcullis/firewall/fleet/member"
	"github.com/portcullis-firewall/portcullis/firewall/metrics"
	"github.com/portcullis-firewall/portcullis/loader"
)

func (d *daemon) runCommand() *cobra.Command {
	mode, address, anywhere, fleetFile := string(loader.ModeAuto), "", false, ""
	cmd := &cobra.Command{
		Use:   "run [IFACE...]",
		Short: "Run the agent, serve metrics, and take part in a fleet",
		RunE: func(cmd *cobra.Command, interfaces []string) error {
			m, err := loader.ParseMode(mode)
			if err != nil {
				return usageError{err}
			}
			a := agentOf{daemon: d, interfaces: interfaces, mode: m, fleetFile: fleetFile}
			if cmd.Flags().Changed("metrics") {
				at, err := metrics.ParseAddress(address, anywhere)
				if err != nil {
					return usageError{err}
				}
				a.metrics = &at
			}
			if fleetFile != "" {
				if a.fleetFile, err = filepath.Abs(fleetFile); err != nil {
					return err
				}
			}
			return a.run(cmd.Context())
		},
	}
	cmd.Flags().StringVar(&mode, "mode", mode, "where to filter")
	cmd.Flags().StringVar(&address, "metrics", "", "serve metrics at `ADDRESS`")
	cmd.Flags().BoolVar(&anywhere, "metrics-anywhere", false, "also where others reach it")
	cmd.Flags().StringVar(&fleetFile, "fleet", "", "take part in the fleet that `FILE` names")
	return cmd
}

// agentOf is the agent with what runs beside it.
type agentOf struct {
	*daemon
	interfaces []string
	mode       loader.Mode
	metrics    *metrics.Address // nil: none are served
	fleetFile  string           // "": the host is of no fleet
}

func (a *agentOf) run(ctx context.Context) error {
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, unix.SIGHUP)
	log, health := agent.NewLog(completing{a.daemon}), &agent.Health{}
	fw := a.firewall(log.Event, func(sentence string) { log.Warn("%s", sentence) })
	serving, stop := context.WithCancel(ctx)
	var done sync.WaitGroup
	if a.metrics != nil {
		collector := metrics.New(fw, version, func() metrics.Agent {
			s := health.State()
			return metrics.Agent{Started: s.Started, Looked: s.Looked, Problem: s.Problem != "", Errors: s.Errors, Warnings: s.Warnings, ErrorAt: s.ErrorAt}
		})
		done.Go(func() {
			metrics.Serve(serving, *a.metrics, collector, func(err error) { log.Error("%v", err) }, func() { log.Info("metrics are served at %s", *a.metrics) })
		})
	}
	o := agent.Options{Firewall: fw, Interfaces: a.interfaces, Mode: a.mode, Hangup: hangup, Log: log, Health: health}
	if a.fleetFile != "" {
		o.Beside = func(ctx context.Context) {
			member.RunFile(ctx, member.Options{Firewall: fw, Openers: openers, Version: version, Log: log}, a.fleetFile)
		}
	}
	err := agent.Run(ctx, o)
	stop()
	done.Wait()
	return err
}
