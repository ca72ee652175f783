// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"errors"
	"fmt"
	"slices"
	"time"
)

// place is a subject that is set up, with the sender of each work.
type place struct {
	kind    *kind
	stand   *stand
	sink    *sink
	subject subject
	senders map[string]sender
	frames  map[string]int
}

// open sets a subject up in a scene, on a stand of its own or on the one given.
func (b *bench) open(k *kind, sc scene, on *stand) (p *place, err error) {
	p = &place{kind: k, stand: on, senders: make(map[string]sender), frames: make(map[string]int)}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("%s, with %s: %w", k.title, sc, err), p.close(on == nil))
		}
	}()
	if on == nil {
		if p.stand, err = newStand(true); err != nil {
			return p, err
		}
		if err := p.stand.outside.do(settle); err != nil {
			return p, err
		}
	}
	if p.sink, err = newSink(p.stand); err != nil {
		return p, err
	}
	s := k.make()
	if err := p.stand.inside.do(func() error { return s.install(p.stand, sc.rules(b.generator.protocol())) }); err != nil {
		return p, err
	}
	p.subject = s
	if sc.flows > 0 && k.stateful {
		err = establish(p.stand, p.sink, b.generator, sc.flows, b.ctx.Err)
	}
	return p, err
}

// close takes the subject away, and with it the stand if that was its own.
func (p *place) close(own bool) error {
	var errs []error
	for _, s := range p.senders {
		errs = append(errs, s.close())
	}
	if p.subject != nil {
		errs = append(errs, p.stand.inside.do(func() error { return p.subject.remove(p.stand) }))
	}
	if p.sink != nil {
		errs = append(errs, p.sink.close())
	}
	if own && p.stand != nil {
		errs = append(errs, p.stand.close())
	}
	return errors.Join(errs...)
}

// counts are the counters that see a kind of traffic.
type counts struct {
	device, rule, sink uint64
	hasRule            bool
}

func (p *place) counts(f fate) (c counts, err error) {
	if c.device, err = p.stand.received(); err != nil {
		return c, err
	}
	if c.sink, err = p.sink.received(); err != nil {
		return c, err
	}
	err = p.stand.inside.do(func() (err error) {
		c.rule, c.hasRule, err = p.subject.counted(p.stand, f)
		return err
	})
	return c, err
}

// seen returns the frames that the counter nearest to the verdict has seen, and its name. The error says that the
// counters do not agree with each other or, over a cable that loses nothing, with what was sent.
func seen(f fate, before, after counts, sent uint64, lossless bool) (n uint64, by string, err error) {
	n, by = after.device-before.device, "the device"
	passes := f.baseline() == keyPass
	if passes {
		n, by = after.sink-before.sink, "the sink"
	}
	if after.hasRule {
		rule := after.rule - before.rule
		if passes && rule != n {
			return 0, "", fmt.Errorf("the rule counted %d frames, the sink %d", rule, n)
		}
		n, by = rule, "the rule"
		if passes {
			by = "the rule and the sink"
		}
	}
	if n > sent || lossless && n != sent || n == 0 {
		return 0, "", fmt.Errorf("%s counted %d of %d frames", by, n, sent)
	}
	return n, by, nil
}

// Tries of a run whose counters do not agree: on a busy machine a queue can overflow, which is not the subject's doing.
const tries = 3

// outcome is that of one run.
type outcome struct {
	ns         float64 // a frame
	sent, seen uint64
	by         string
}

// run sends a work's frames to a place, once, and checks that they met what they had to.
func (p *place) run(w *work, frames int) (o outcome, err error) {
	if err := p.sink.catch(w.fate.baseline() == keyPass); err != nil {
		return o, err
	}
	before, err := p.counts(w.fate)
	if err != nil {
		return o, err
	}
	b, err := p.senders[w.key].send(frames)
	if err != nil {
		return o, err
	}
	rest, err := p.wait(before.device + b.frames)
	if err != nil {
		return o, err
	}
	after, err := p.counts(w.fate)
	if err != nil {
		return o, err
	}
	o.sent = b.frames
	o.seen, o.by, err = seen(w.fate, before, after, b.frames, p.stand.to.veth)
	if err != nil {
		return o, miscount{err}
	}
	o.ns = float64((b.took + rest).Nanoseconds()) / float64(o.seen)
	return o, nil
}

// miscount is a run whose counters do not agree.
type miscount struct{ error }

// patience is how long frames that were sent may be in a queue.
const patience = 200 * time.Millisecond

// wait waits for the last frames, which may still be in a queue, and returns how long that took.
func (p *place) wait(until uint64) (time.Duration, error) {
	start := time.Now()
	for first := true; ; first = false {
		n, err := p.stand.received()
		if err != nil || n >= until {
			if first {
				return 0, err
			}
			return time.Since(start), err
		}
		if time.Since(start) > patience {
			return 0, nil // the counters will tell
		}
		time.Sleep(100 * time.Microsecond)
	}
}

// tried is run that gives a miscount another chance.
func (p *place) tried(w *work, frames int) (o outcome, err error) {
	for range tries {
		if o, err = p.run(w, frames); !errors.As(err, new(miscount)) {
			return o, err
		}
	}
	return o, err
}

// Bounds of one run. The time is that of a subject that is fast enough to be sent as many frames as are asked for.
const (
	probeFrames = 1024
	leastFrames = 256
	mostTime    = 30 * time.Millisecond
)

// warm makes a work's sender and finds out how many frames this subject can be given.
func (b *bench) warm(p *place, w *work) error {
	t := w.traffic
	t.protocol = b.generator.protocol()
	s, err := b.generator.prepare(p.stand, t)
	if err != nil {
		return err
	}
	p.senders[w.key] = s
	o, err := p.tried(w, probeFrames)
	if errors.As(err, new(miscount)) {
		p.frames[w.key] = leastFrames
		return nil // the rounds will say so
	}
	if err != nil {
		return err
	}
	p.frames[w.key] = min(b.options.Frames, max(leastFrames, int(float64(mostTime.Nanoseconds())/o.ns)))
	return nil
}

// record runs a work once more and adds what comes of it to the subject's row.
func (b *bench) record(p *place, w *work) error {
	if err := b.ctx.Err(); err != nil {
		return err
	}
	b.progress.step(fmt.Sprintf("%s: %s", w.title, p.kind.title))
	row := b.row(w, p.kind)
	if row.Invalid != "" {
		return nil
	}
	o, err := p.tried(w, p.frames[w.key])
	if errors.As(err, new(miscount)) {
		row.Invalid = err.Error()
		return nil
	}
	if err != nil {
		return fmt.Errorf("%s, %s: %w", w.title, p.kind.title, err)
	}
	row.Rounds = append(row.Rounds, o.ns)
	row.Frames += o.sent
	row.Checked = o.by
	row.Lost += float64(o.sent-o.seen) / float64(o.sent) / float64(b.options.Rounds)
	return nil
}

// row returns the row of a subject in the report, which is made when it is first asked for.
func (b *bench) row(w *work, k *kind) *Row {
	result := b.report.Work(w.key)
	if result == nil {
		b.report.Works = append(b.report.Works, Work{Key: w.key, Title: w.title, Unit: Nanoseconds,
			Baseline: w.fate.baseline(), Curve: w.curve, X: w.x, Point: w.onlyCurve})
		result = &b.report.Works[len(b.report.Works)-1]
	}
	if row := result.Row(k.key); row != nil {
		return row
	}
	result.Rows = append(result.Rows, Row{Subject: k.key, Title: k.title})
	return &result.Rows[len(result.Rows)-1]
}

// scene measures the works of one scene: every subject once a round, each time another one first.
func (b *bench) scene(sc scene, works []work) (err error) {
	kinds := b.kindsFor(sc, works)
	if b.borrowed != nil {
		return b.takeTurns(sc, works, kinds)
	}
	var places []*place
	defer func() {
		for _, p := range places {
			err = errors.Join(err, p.close(true))
		}
	}()
	for _, k := range kinds {
		if err := b.ctx.Err(); err != nil {
			return err
		}
		b.progress.step(fmt.Sprintf("%s: setting up %s", sc, k.title))
		p, err := b.open(k, sc, nil)
		if err != nil {
			return err
		}
		places = append(places, p)
		for i := range works {
			if k.serves(&works[i]) {
				if err := b.warm(p, &works[i]); err != nil {
					return fmt.Errorf("%s, %s: %w", works[i].title, k.title, err)
				}
			}
		}
	}
	for round := range b.options.Rounds {
		for i := range works {
			for n := range places {
				p := places[(n+round)%len(places)]
				if p.kind.serves(&works[i]) {
					if err := b.record(p, &works[i]); err != nil {
						return err
					}
				}
			}
		}
	}
	for _, p := range places {
		if err := b.countEntries(p, works); err != nil {
			return err
		}
	}
	return nil
}

// takeTurns is scene on the one cable that there is: each round every subject is set up anew.
func (b *bench) takeTurns(sc scene, works []work, kinds []*kind) error {
	for round := range b.options.Rounds {
		for n := range kinds {
			k := kinds[(n+round)%len(kinds)]
			b.progress.step(fmt.Sprintf("%s: setting up %s", sc, k.title))
			p, err := b.open(k, sc, b.borrowed)
			if err != nil {
				return err
			}
			err = b.turn(p, works)
			if err = errors.Join(err, p.close(false)); err != nil {
				return err
			}
		}
	}
	return nil
}

func (b *bench) turn(p *place, works []work) error {
	for i := range works {
		w := &works[i]
		if !p.kind.serves(w) {
			continue
		}
		if err := b.warm(p, w); err != nil {
			return fmt.Errorf("%s, %s: %w", w.title, p.kind.title, err)
		}
		if err := b.record(p, w); err != nil {
			return err
		}
	}
	return b.countEntries(p, works)
}

// countEntries asks Portcullis what a flood on an open port has left in the flow table.
func (b *bench) countEntries(p *place, works []work) error {
	ours, ok := p.subject.(*portcullis)
	if !ok || !slices.ContainsFunc(works, func(w work) bool { return w.key == "syn-flood" }) {
		return nil
	}
	return p.stand.inside.do(func() error {
		n, err := ours.flows()
		b.value(Work{Key: "syn-flood-entries", Title: "Flow entries that the SYN flood has made", Unit: Entries}, p.kind.key, p.kind.title, float64(n))
		return err
	})
}

// value adds a figure of one round to a work that is not about packets.
func (b *bench) value(w Work, subject, title string, value float64) {
	result := b.report.Work(w.Key)
	if result == nil {
		b.report.Works = append(b.report.Works, w)
		result = &b.report.Works[len(b.report.Works)-1]
	}
	row := result.Row(subject)
	if row == nil {
		result.Rows = append(result.Rows, Row{Subject: subject, Title: title})
		row = &result.Rows[len(result.Rows)-1]
	}
	row.Rounds = append(row.Rounds, value)
}

// kindsFor lists the subjects of a scene, and notes why the others are left out.
func (b *bench) kindsFor(sc scene, works []work) (out []*kind) {
	for i := range b.kinds {
		k := &b.kinds[i]
		if !slices.ContainsFunc(works, func(w work) bool { return k.serves(&w) }) {
			continue
		}
		if k.refuses != nil {
			if why := k.refuses(sc.rules(b.generator.protocol())); why != "" {
				b.report.leaveOut(fmt.Sprintf("%s with %s", k.title, sc), why)
				continue
			}
		}
		out = append(out, k)
	}
	return out
}
