// SPDX-License-Identifier: Apache-2.0

// Package bench measures Portcullis on this machine, beside what else could do its work: packet by packet through the
// whole receive path, through a real TCP stack, and at the command line.
package bench

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Options say what is measured, and how long.
type Options struct {
	Version   string
	Generator string   // live, pktgen, or auto
	From, To  string   // real interfaces; empty, a veth pair of the benchmark's own
	Force     bool     // also when an interface carries the default route
	Works     []string // keys of what is measured; empty, everything
	Against   []string // keys of the subjects beside Portcullis and the bare programs; empty, all
	Curves    bool     // how cost grows with work, too
	Rounds    int
	Frames    int           // the most of a run
	Flows     int           // what needs more of them is left out, unless it is named
	Stream    time.Duration // of one run through a TCP stack
	Progress  io.Writer     // a terminal to show a progress bar on, or nil
}

// Full and Quick are how long the benchmark takes when nothing else is asked for: minutes, or seconds.
func Full() Options { return Options{Rounds: 15, Frames: 50000, Flows: 1000000, Stream: time.Second} }
func Quick() Options {
	return Options{Rounds: 3, Frames: 2000, Flows: 1000, Stream: 100 * time.Millisecond}
}

// bench is one run.
type bench struct {
	ctx       context.Context
	options   Options
	generator generator
	kinds     []kind
	borrowed  *stand // real interfaces
	progress  *progress
	report    *Report
}

// part is a piece of the benchmark that can be asked for by name.
type part struct {
	key     string
	steps   int
	streams bool // it is about TCP connections
	run     func() error
}

// Run measures. It leaves nothing behind, however it ends.
func Run(ctx context.Context, o Options) (_ *Report, err error) {
	b := &bench{ctx: ctx, options: o}
	b.report = &Report{Version: o.Version, Began: time.Now().UTC().Truncate(time.Second), LeftOut: []LeftOut{}, Works: []Work{}}
	if b.generator, err = chooseGenerator(o.Generator); err != nil {
		return nil, err
	}
	if b.kinds, err = b.chooseKinds(); err != nil {
		return nil, err
	}
	parts, err := b.chooseParts()
	if err != nil {
		return nil, err
	}
	b.report.Method = Method{Generator: b.generator.name(), Protocol: rules{protocol: b.generator.protocol()}.protocolName(),
		Interfaces: "a veth pair", Rounds: o.Rounds, Frames: o.Frames}
	if o.From != "" {
		if b.borrowed, err = borrow(o.From, o.To, o.Force); err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, b.borrowed.close()) }()
		b.report.Method.Interfaces = o.From + " to " + o.To
	}
	if b.report.Machine, err = machine(b.kinds, b.borrowed); err != nil {
		return nil, err
	}

	steps := 0
	for _, p := range parts {
		steps += p.steps
	}
	b.progress = newProgress(o.Progress, steps)
	defer b.progress.end()
	for _, p := range parts {
		if err := p.run(); err != nil {
			return nil, err
		}
	}
	for i := range b.report.Works {
		b.report.Works[i].finish()
	}
	b.report.sort()
	b.report.Targets = judge(b.report)
	b.report.Seconds = time.Since(b.report.Began).Seconds()
	return b.report, nil
}

// Subjects lists the keys of what Portcullis can be measured against.
func Subjects() (keys []string) {
	for _, k := range kinds() {
		if k.key != keyDrop && k.key != keyPass && k.key != keyPortcullis {
			keys = append(keys, k.key)
		}
	}
	return keys
}

// chooseKinds lists the subjects that are asked for and that this machine can have.
func (b *bench) chooseKinds() (out []kind, err error) {
	if err := known("--against", b.options.Against, Subjects()); err != nil {
		return nil, err
	}
	optional := Subjects()
	for _, k := range kinds() {
		if len(b.options.Against) > 0 && slices.Contains(optional, k.key) && !slices.Contains(b.options.Against, k.key) {
			continue
		}
		why := ""
		if k.absent != nil {
			why = k.absent()
		}
		// pktgen sends one skb many times over, and generic XDP on the other end of a veth writes to it: seen to panic
		// Linux 6.1 and 6.12.
		if _, isPktgen := b.generator.(pktgen); why == "" && isPktgen && k.generic {
			why = "pktgen and generic XDP together can crash the kernel"
		}
		if why != "" {
			b.report.leaveOut(k.title, why)
			continue
		}
		out = append(out, k)
	}
	return out, nil
}

// Works lists the keys of everything that can be measured.
func Works() (keys []string) {
	for _, w := range packetWorks() {
		keys = append(keys, w.key)
	}
	for _, p := range (&bench{}).otherParts() {
		keys = append(keys, p.key)
	}
	return keys
}

// chooseParts lists what is asked for.
func (b *bench) chooseParts() (out []part, err error) {
	if err := known("--work", b.options.Works, Works()); err != nil {
		return nil, err
	}
	wanted := func(key string) bool { return len(b.options.Works) == 0 || slices.Contains(b.options.Works, key) }
	var works []work
	for _, w := range packetWorks() {
		if !wanted(w.key) || w.onlyCurve && !b.options.Curves && len(b.options.Works) == 0 {
			continue
		}
		if w.scene.flows > b.options.Flows && len(b.options.Works) == 0 {
			b.report.leaveOut(w.title, "it takes longer than the rest")
			continue
		}
		if w.tcpOnly && b.generator.protocol() != unix.IPPROTO_TCP {
			b.report.leaveOut(w.title, "pktgen sends no TCP")
			continue
		}
		works = append(works, w)
	}
	out = b.scenes(works)
	for _, p := range b.otherParts() {
		if !wanted(p.key) {
			continue
		}
		if p.streams && b.options.From != "" {
			b.report.leaveOut(p.key, "between real interfaces only packets are measured")
			continue
		}
		out = append(out, p)
	}
	return out, nil
}

// scenes makes one part of each scene, with all works that are played in it: setting one up takes longer than a run.
func (b *bench) scenes(works []work) (out []part) {
	played := make(map[scene][]work)
	var order []scene
	for _, w := range works {
		if played[w.scene] == nil {
			order = append(order, w.scene)
		}
		played[w.scene] = append(played[w.scene], w)
	}
	for _, sc := range order {
		here := played[sc]
		out = append(out, part{sc.String(), b.packetSteps(here), false, func() error { return b.scene(sc, here) }})
	}
	return out
}

func (b *bench) packetSteps(works []work) (steps int) {
	for i := range b.kinds {
		steps++
		for w := range works {
			if b.kinds[i].serves(&works[w]) {
				steps += b.options.Rounds
			}
		}
	}
	return steps
}

// known refuses a word that is none of the choices.
func known(flag string, words, choices []string) error {
	for _, w := range words {
		if !slices.Contains(choices, w) {
			return fmt.Errorf("%s: there is no %q: choose from %s", flag, w, strings.Join(choices, ", "))
		}
	}
	return nil
}

// sort brings works and rows into the order in which they are declared, which is not that in which they were measured.
func (r *Report) sort() {
	place := make(map[string]int)
	for i, w := range packetWorks() {
		place[w.key] = i
	}
	for i, k := range kinds() {
		place[k.key] = i
	}
	for i := range r.Works {
		slices.SortStableFunc(r.Works[i].Rows, func(x, y Row) int { return cmp.Compare(place[x.Subject], place[y.Subject]) })
	}
	order := func(w Work) int {
		if at, ok := place[w.Key]; ok {
			return at
		}
		return len(place)
	}
	slices.SortStableFunc(r.Works, func(x, y Work) int { return cmp.Compare(order(x), order(y)) })
}
