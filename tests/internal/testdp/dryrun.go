// SPDX-License-Identifier: Apache-2.0

package testdp

import (
	"bytes"
	"errors"
	"fmt"
	"hash/maphash"
	"os"
	"testing"
	"time"

	"github.com/cilium/ebpf"

	"github.com/portcullis-firewall/portcullis/loader/dryrun"
)

// DryRun loads the datapath once more, over the same maps and for runs that leave no trace.
func (d *Datapath) DryRun(tb testing.TB, path Path) *dryrun.Program {
	tb.Helper()
	constants := d.options.constants(d.Policy, true)
	p, err := dryrun.Load(d.Set, dryrun.Options{Constants: &constants, Group: d.group, XDP: path == XDP, Generic: true})
	if err != nil {
		var verifier *ebpf.VerifierError
		if errors.As(err, &verifier) {
			tb.Fatalf("%+v", verifier)
		}
		tb.Fatal(err)
	}
	tb.Cleanup(p.Close)
	return p
}

// Run runs a frame and reports whether it passed. Who is told that it did not is no error.
func (d *Datapath) Run(tb testing.TB, path Path, b []byte, from From) (passed bool) {
	tb.Helper()
	result, err := d.programs[string(path)].Run(&ebpf.RunOptions{Data: b, Context: from.context(path, len(b))})
	switch {
	case err != nil:
		tb.Fatalf("run %s: %v", path, err)
	case result == Verdict(path, true):
		return true
	case result != Verdict(path, false) && !isAnswer(path, result):
		tb.Fatalf("%s returned %d", path, int32(result))
	}
	return false
}

// Snapshot is what the maps of a datapath hold, by their names in the object.
type Snapshot map[string]uint64

var snapshotSeed = maphash.MakeSeed()

// Snapshot reads all maps but the log, which it empties.
func (d *Datapath) Snapshot(tb testing.TB) (s Snapshot, logged int) {
	tb.Helper()
	all, err := d.Set.AllOf(d.group)
	if err != nil {
		tb.Fatal(err)
	}
	s = make(Snapshot)
	for name, m := range all {
		if m.Type() == ebpf.RingBuf {
			continue
		}
		if s[name], err = sumOf(m); err != nil {
			tb.Fatalf("read map %s: %v", name, err)
		}
	}
	events, err := d.Set.Events()
	if err != nil {
		tb.Fatal(err)
	}
	defer events.Close()
	for {
		switch _, err := events.Next(time.Now()); {
		case errors.Is(err, os.ErrDeadlineExceeded):
			return s, logged
		case err != nil:
			tb.Fatal(err)
		}
		logged++
	}
}

// sumOf returns a sum of what a map holds, in whatever order it is read.
func sumOf(m *ebpf.Map) (sum uint64, err error) {
	var key []byte
	add := func(value []byte) { sum += maphash.Bytes(snapshotSeed, bytes.Join([][]byte{key, value}, nil)) }
	it := m.Iterate()
	switch m.Type() {
	case ebpf.PerCPUArray:
		for values := [][]byte(nil); it.Next(&key, &values); {
			add(bytes.Join(values, nil))
		}
	default:
		for value := []byte(nil); it.Next(&key, &value); {
			add(value)
		}
	}
	if err := it.Err(); err != nil {
		return 0, fmt.Errorf("%s: %w", m, err)
	}
	return sum, nil
}
