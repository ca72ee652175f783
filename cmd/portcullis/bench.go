// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/portcullis-firewall/portcullis/cmd/portcullis/bench"
)

var generators = []string{"auto", "live", "pktgen"}

func (a *app) benchCommand() *cobra.Command {
	o := bench.Full()
	o.Generator = generators[0]
	var quick bool
	var report string
	cmd := &cobra.Command{
		Use:         "bench",
		Short:       "Measure this machine",
		Annotations: needsRoot,
		Long: `Measure what packets cost on this machine: with Portcullis, with an XDP program that does
nothing but drop or pass, and with the other firewalls that are installed.

This makes two network namespaces joined by a veth pair, and removes them at the end. It
touches no interface of this host unless --from and --to name two that are joined by a
cable: these move into the namespaces, where nothing else can use them, and come back with
their addresses and routes at the end.`,
		Example: `  portcullis bench
  portcullis bench --report out/
  portcullis bench --work closed,open --against nft --rounds 21
  portcullis bench --from eth1 --to eth2`,
		GroupID: "more",
		Args:    noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if quick {
				short := bench.Quick()
				for name, set := range map[string]func(){
					"rounds": func() { o.Rounds = short.Rounds },
					"frames": func() { o.Frames = short.Frames },
				} {
					if !cmd.Flags().Changed(name) {
						set()
					}
				}
				o.Stream, o.Flows = short.Stream, short.Flows
			}
			return a.bench(o, report)
		},
	}
	flags := cmd.Flags()
	flags.SortFlags = false
	flags.StringVar(&report, "report", "", "write a page with charts, and the figures as JSON, into `DIR`; also measure curves")
	flags.Var(&choicesFlag{&o.Works, bench.Works}, "work", "measure only these `NAMES`, with commas in between")
	flags.Var(&choicesFlag{&o.Against, bench.Subjects}, "against", "compare Portcullis only with these `NAMES`, with commas in between")
	flags.BoolVar(&quick, "quick", false, "take seconds instead of minutes; the figures say little")
	flags.IntVar(&o.Rounds, "rounds", o.Rounds, "measure each `N` times")
	flags.IntVar(&o.Frames, "frames", o.Frames, "send at most `N` frames a round")
	flags.Var(&choiceFlag{&o.Generator, generators}, "generator", "what sends: auto, live (XDP live frames) or pktgen")
	flags.StringVar(&o.From, "from", "", "send from `IFACE`, which a cable joins to that of --to")
	flags.StringVar(&o.To, "to", "", "send to `IFACE`")
	flags.BoolVar(&o.Force, "force", false, "even if an interface carries the default route or this ssh session")
	_ = cmd.RegisterFlagCompletionFunc("work", wordsOf(bench.Works))
	_ = cmd.RegisterFlagCompletionFunc("against", wordsOf(bench.Subjects))
	_ = cmd.RegisterFlagCompletionFunc("generator", words(generators...))
	_ = cmd.MarkFlagDirname("report")
	return cmd
}

func (a *app) bench(o bench.Options, dir string) error {
	if (o.From == "") != (o.To == "") {
		return usagef("--from and --to go together")
	}
	if o.Rounds < 1 || o.Frames < 1 {
		return usagef("--rounds and --frames begin at 1")
	}
	if err := a.privileged(); err != nil {
		return err
	}
	o.Version, o.Curves = version, dir != ""
	if isTerminal(a.terminal) {
		o.Progress = a.terminal.(*os.File)
	}
	if o.From != "" {
		a.warn(fmt.Sprintf("%s and %s are taken out of this host's network until the benchmark has ended", o.From, o.To))
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, unix.SIGTERM)
	defer stop()
	r, err := bench.Run(ctx, o)
	if errors.Is(err, context.Canceled) {
		return errors.New("interrupted")
	}
	if err != nil {
		return err
	}
	if dir != "" {
		if err := r.Write(dir); err != nil {
			return err
		}
	}
	return a.print(r, func() {
		for i, rows := range r.Tables() {
			if i > 0 {
				a.printf("\n")
			}
			a.table(rows)
		}
		if dir != "" {
			a.printf("\nreport: %s\n", filepath.Join(dir, bench.ReportPage))
		}
	})
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}
