// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/portcullis-firewall/portcullis/firewall"
	"github.com/portcullis-firewall/portcullis/firewall/bans"
	"github.com/portcullis-firewall/portcullis/loader"
)

const leastInterval = 200 * time.Millisecond

func (d *daemon) topCommand() *cobra.Command {
	interval, once, output := time.Second, false, "table"
	cmd := &cobra.Command{
		Use:   "top",
		Short: "Show what happens",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch {
			case interval < leastInterval:
				return usageError{fmt.Errorf("--interval %s: %s is the least", interval, leastInterval)}
			case output == "json" && !once:
				return usageError{fmt.Errorf("-o json is for --once")}
			}
			if !once && !isTerminal(d.stdout) {
				return usageError{errors.New("top needs a terminal: use --once")}
			}
			w := &watch{fw: d.firewall()}
			if !once {
				return d.show(cmd.Context(), w, interval)
			}
			return d.topOnce(cmd.Context(), w, interval, output)
		},
	}
	cmd.Flags().DurationVar(&interval, "interval", interval, "look every `TIME`")
	cmd.Flags().BoolVar(&once, "once", false, "look for one interval, print that, and end")
	cmd.Flags().StringVarP(&output, "output", "o", output, "table or json")
	return cmd
}

func isTerminal(w io.Writer) bool {
	file, ok := w.(*os.File)
	if !ok {
		return false
	}
	_, err := unix.IoctlGetTermios(int(file.Fd()), unix.TCGETS)
	return err == nil
}

// watch reads a firewall again and again.
type watch struct {
	fw      *firewall.Firewall
	sources sampler // nil: none
	before  *loader.Sample
	at      time.Time
}

// look returns what has happened since the last look; at the first one, nothing has.
func (w *watch) look(ctx context.Context) (*rates, error) {
	f, err := w.fw.View(ctx)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	now, err := f.Sample(w.before)
	if err != nil {
		return nil, err
	}
	at := time.Now()
	if w.before == nil {
		w.before, w.at = now, at
	}
	r := ratesOf(w.before, now, at.Sub(w.at), w.sources)
	w.before, w.at = now, at
	r.Flows, err = f.CountFlowStates()
	for state, n := range r.Flows {
		if n == 0 {
			delete(r.Flows, state)
		}
	}
	return r, err
}

func (d *daemon) topOnce(ctx context.Context, w *watch, interval time.Duration, output string) error {
	if _, err := w.look(ctx); err != nil {
		return err
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(interval):
	}
	r, err := w.look(ctx)
	if err != nil {
		return err
	}
	return d.buffered(func(out io.Writer) error {
		if output == "json" {
			e := json.NewEncoder(out)
			e.SetEscapeHTML(false)
			e.SetIndent("", "  ")
			return e.Encode(r)
		}
		m := newScreen(w, interval)
		m.rates, m.width, m.height = r, 80, 0
		for view := range views {
			m.view = view
			fmt.Fprintln(out, m.table())
		}
		_, err := fmt.Fprintln(out, m.flowsLine())
		return err
	})
}

func (d *daemon) show(ctx context.Context, w *watch, interval time.Duration) error {
	first, err := w.look(ctx) // or the error would flash by
	if err != nil {
		return err
	}
	m := newScreen(w, interval)
	m.ctx, m.rates = ctx, first
	_, err = tea.NewProgram(m, tea.WithContext(ctx)).Run()
	if ctx.Err() != nil {
		return nil // by a signal
	}
	return err
}

// banTime is how long a source is banned from top.
const banTime = time.Hour

func (w *watch) ban(ctx context.Context, addr netip.Addr) (string, error) {
	report, err := w.fw.Ban(ctx, firewall.BanRequest{Bans: []bans.Line{{
		Prefix: netip.PrefixFrom(addr, addr.BitLen()), For: banTime, Reason: "top",
	}}})
	if err != nil {
		return "", err
	}
	if len(report.Refused) > 0 {
		return "", report.Refused[0].Err
	}
	return fmt.Sprintf("%s is banned for an hour; %d connections cut", addr, report.Cut), nil
}
