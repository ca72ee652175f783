// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"os"
	"os/signal"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/portcullis-firewall/portcullis/firewall/agent"
	"github.com/portcullis-firewall/portcullis/firewall/metrics"
	"github.com/portcullis-firewall/portcullis/loader"
)

func (d *daemon) runCommand() *cobra.Command {
	mode, address, anywhere := string(loader.ModeAuto), "", false
	cmd := &cobra.Command{
		Use:   "run [IFACE...]",
		Short: "Run the agent, and serve metrics",
		RunE: func(cmd *cobra.Command, interfaces []string) error {
			m, err := loader.ParseMode(mode)
			if err != nil {
				return usageError{err}
			}
			at, err := metrics.ParseAddress(address, anywhere)
			if err != nil {
				return usageError{err}
			}
			return d.agent(cmd.Context(), interfaces, m, at)
		},
	}
	cmd.Flags().StringVar(&mode, "mode", mode, "where to filter")
	cmd.Flags().StringVar(&address, "metrics", "", "serve metrics at `ADDRESS`")
	cmd.Flags().BoolVar(&anywhere, "metrics-anywhere", false, "also where others reach it")
	return cmd
}

func (d *daemon) agent(ctx context.Context, interfaces []string, mode loader.Mode, at metrics.Address) error {
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, unix.SIGHUP)
	log, health := agent.NewLog(completing{d}), &agent.Health{}
	fw := d.firewall(log.Event, func(sentence string) { log.Warn("%s", sentence) })
	collector := metrics.New(fw, version, func() metrics.Agent {
		s := health.State()
		return metrics.Agent{Started: s.Started, Looked: s.Looked, Problem: s.Problem != "", Errors: s.Errors, Warnings: s.Warnings, ErrorAt: s.ErrorAt}
	})
	serving, stop := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		metrics.Serve(serving, at, collector, func(err error) { log.Error("%v", err) }, func() { log.Info("metrics are served at %s", at) })
	}()
	err := agent.Run(ctx, agent.Options{Firewall: fw, Interfaces: interfaces, Mode: mode, Hangup: hangup, Log: log, Health: health})
	stop()
	<-done
	return err
}
