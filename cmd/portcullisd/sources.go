// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/portcullis-firewall/portcullis/firewall"
	"github.com/portcullis-firewall/portcullis/firewall/monitor"
	"github.com/portcullis-firewall/portcullis/loader"
	"github.com/portcullis-firewall/portcullis/maps"
)

const (
	mostSources   = 4096 // that are told apart; when more come, those of the fewest packets are forgotten
	sampledBytes  = 128  // of a packet: its headers
	sampledAtMost = 1000 // packets of a reason that a CPU shows a second
)

// sourceRow is a source of dropped packets.
type sourceRow struct {
	Address   netip.Addr `json:"address"`
	Sampled   uint64     `json:"drops_sampled"`
	Estimated uint64     `json:"drops_estimated"`
	PPS       float64    `json:"packets_per_second"`
}

// sources estimates from a sample who sends what is dropped. The sample holds at most so many packets of a reason; the
// ledger counts all of them, so each packet of the sample stands for as many.
type sources struct {
	mu    sync.Mutex
	of    map[netip.Addr]*source
	fresh map[string]uint64 // packets of the sample since the last settling, by reason

	owed   map[string]float64 // drops of the ledger for which no packet of the sample stands yet; below 0 where it was read later
	before map[string]uint64  // the ledger's drops at the last settling; nil: there was none
}

// source is what was sampled from an address.
type source struct {
	sampled   uint64
	estimated float64
	fresh     map[string]uint64 // of sampled, what is not estimated yet, by reason
}

func newSources() *sources {
	return &sources{of: make(map[netip.Addr]*source), fresh: make(map[string]uint64), owed: make(map[string]float64)}
}

// add takes packets of the sample.
func (s *sources) add(packets []loader.MonitoredPacket) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range packets {
		p := &packets[i]
		reason := p.Reason.String()
		s.fresh[reason]++
		read, ok := monitor.Read(p.Frame, p.Ethernet)
		if !ok || !read.Source.IsValid() {
			continue
		}
		from := s.of[read.Source]
		if from == nil {
			if len(s.of) == mostSources {
				s.forget()
			}
			from = &source{fresh: make(map[string]uint64)}
			s.of[read.Source] = from
		}
		from.sampled++
		from.fresh[reason]++
	}
}

// forget makes room: half of the sources go, those of which the fewest packets came.
func (s *sources) forget() {
	type weighed struct {
		addr   netip.Addr
		weight float64
	}
	all := make([]weighed, 0, len(s.of))
	for addr, from := range s.of {
		all = append(all, weighed{addr, max(from.estimated, float64(from.sampled))})
	}
	slices.SortFunc(all, func(a, b weighed) int { return cmp.Compare(a.weight, b.weight) })
	for _, w := range all[:len(all)/2] {
		delete(s.of, w.addr)
	}
}

// begin says what the ledger had dropped when the sample began, or begins again.
func (s *sources) begin(dropped map[string]uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.before = dropped
	clear(s.owed)
	clear(s.fresh)
	for _, from := range s.of {
		clear(from.fresh)
	}
}

// settle holds what was sampled since the last time against what the ledger has dropped by now, and returns all sources.
func (s *sources) settle(dropped map[string]uint64, took time.Duration) []sourceRow {
	s.mu.Lock()
	defer s.mu.Unlock()
	for reason, n := range dropped {
		if had := s.before[reason]; had <= n {
			n -= had // else it counts anew
		}
		s.owed[reason] += float64(n)
	}
	s.before = dropped
	weights := make(map[string]float64)
	for reason, n := range s.fresh {
		weights[reason] = max(1, s.owed[reason]/float64(n))
		s.owed[reason] -= weights[reason] * float64(n)
	}
	clear(s.fresh)
	rows := make([]sourceRow, 0, len(s.of))
	for addr, from := range s.of {
		grown := 0.0
		for reason, n := range from.fresh {
			grown += weights[reason] * float64(n)
		}
		clear(from.fresh)
		from.estimated += grown
		row := sourceRow{Address: addr, Sampled: from.sampled, Estimated: uint64(from.estimated + 0.5)}
		if took > 0 {
			row.PPS = grown / took.Seconds()
		}
		rows = append(rows, row)
	}
	slices.SortFunc(rows, func(a, b sourceRow) int {
		return cmp.Or(cmp.Compare(b.Estimated, a.Estimated), a.Address.Compare(b.Address))
	})
	return rows
}

// droppedOf returns what the ledger has dropped by reason.
func droppedOf(sample *loader.Sample) map[string]uint64 {
	dropped := make(map[string]uint64)
	for _, t := range sample.Ledger {
		for _, c := range t.Counters {
			if c.Verdict == maps.Drop {
				dropped[c.Reason] += c.Packets
			}
		}
	}
	return dropped
}

// sampling reads a sample of what is dropped, while it goes on.
type sampling struct {
	cancel context.CancelFunc
	ended  chan struct{}
	reader firewall.Monitor
}

// startSampling begins to read into s.
func startSampling(ctx context.Context, fw *firewall.Firewall, s *sources) (*sampling, error) {
	reader, err := fw.Monitor(ctx, loader.MonitorOptions{Snaplen: sampledBytes, Rate: sampledAtMost})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	run := &sampling{cancel: cancel, ended: make(chan struct{}), reader: reader}
	go func() {
		defer close(run.ended)
		_ = reader.Run(ctx, func(told loader.Monitored) error {
			s.add(told.Packets)
			return nil
		})
	}()
	return run, nil
}

// stop gives the reader back: there are few.
func (s *sampling) stop() {
	s.cancel()
	<-s.ended
	s.reader.Close()
}
