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
	"sync"
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
			w := &watch{fw: d.firewall(nil, nil), sources: newSources()}
			defer w.stop()
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
	sources *sources

	mu     sync.Mutex // of the following
	sample *sampling  // of what is dropped, while that is shown
	before *loader.Sample
	at     time.Time
}

// stop ends what was begun for looks.
func (w *watch) stop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stopSampling()
}

func (w *watch) stopSampling() {
	if w.sample != nil {
		w.sample.stop()
		w.sample = nil
	}
}

// look returns what has happened since the last look; at the first one, nothing has. Sources are sampled from a look that
// asks for them to one that does not.
func (w *watch) look(ctx context.Context, withSources bool) (*rates, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
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
	took := at.Sub(w.at)
	r := ratesOf(w.before, now, took)
	w.before, w.at = now, at
	switch {
	case !withSources:
		w.stopSampling()
	case w.sample != nil:
		r.Sources = w.sources.settle(droppedOf(now), took)
	default:
		// Nothing was sampled before, so what was dropped till now has no source.
		w.sources.begin(droppedOf(now))
		r.Sources = w.sources.settle(droppedOf(now), 0)
		if w.sample, err = startSampling(ctx, w.fw, w.sources); err != nil {
			r.unsampled = err
		}
	}
	r.Flows, err = f.CountFlowStates()
	for state, n := range r.Flows {
		if n == 0 {
			delete(r.Flows, state)
		}
	}
	return r, err
}

func (d *daemon) topOnce(ctx context.Context, w *watch, interval time.Duration, output string) error {
	first, err := w.look(ctx, true)
	if err != nil {
		return err
	}
	if first.unsampled != nil {
		fmt.Fprintf(d.stderr, "portcullis: warning: no sources are sampled: %v\n", first.unsampled)
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(interval):
	}
	r, err := w.look(ctx, first.unsampled == nil)
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
	first, err := w.look(ctx, false) // or the error would flash by
	if err != nil {
		return err
	}
	looking, end := context.WithCancel(ctx)
	defer end() // or a look that waits would be waited for
	m := newScreen(w, interval)
	m.ctx, m.rates = looking, first
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
