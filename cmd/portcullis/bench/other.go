// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/portcullis-firewall/portcullis/bpf"
	"github.com/portcullis-firewall/portcullis/loader"
	"github.com/portcullis-firewall/portcullis/maps"
	"github.com/portcullis-firewall/portcullis/policy"
)

// otherParts lists what is measured otherwise than by packets sent to a closed door.
func (b *bench) otherParts() []part {
	streams := b.streamSubjects()
	return []part{
		{"program", b.options.Rounds, false, b.program},
		{"open-port", b.options.Rounds, false, b.openPort},
		{"apply-large", b.largeRounds(), false, b.applyLarge},
		{"block-load", min(b.options.Rounds, bulkRounds), false, b.blockLoad},
		{"ban-command", len(b.upTo(bannedBefore)) * b.options.Rounds, false, b.banOne},
		{"ban-lines", len(b.upTo(bannedAtOnce)) * min(b.options.Rounds, bulkRounds), false, b.banMany},
		{"ban-last", 6 * min(b.options.Rounds, lastRounds), false, b.banLast},
		{"ban-bulk", min(b.options.Rounds, bulkRounds), false, b.banBulk},
		{"stream", len(streams) * (1 + len(streamCounts)*b.options.Rounds), true, func() error { return b.throughput(streams) }},
		{"connections", len(streams) * (1 + b.options.Rounds), true, func() error { return b.connections(streams) }},
	}
}

// Keys of rows that are no subjects.
const (
	keyEmpty   = "empty"
	keyFloor   = "floor"
	keyVersion = "version"
)

const programRepeat = 1000000

// program measures the XDP program alone, beside an empty one: BPF_PROG_TEST_RUN, one frame again and again.
func (b *bench) program() error {
	w := Work{Key: "program", Title: "Program alone, closed port (PROG_TEST_RUN)", Unit: Nanoseconds, Baseline: keyEmpty}
	return b.filtered("", func(s *stand, _ *loader.Filter) error {
		if err := settle(); err != nil {
			return err
		}
		l, err := netlink.LinkByIndex(s.to.index)
		if err != nil {
			return err
		}
		ours, err := ebpf.NewProgramFromID(ebpf.ProgramID(l.Attrs().Xdp.ProgId))
		if err != nil {
			return err
		}
		defer ours.Close()
		empty, err := verdictProgram(xdpDrop)
		if err != nil {
			return err
		}
		defer empty.Close()
		frame := frameOf(s.from.mac, s.to.mac, unix.IPPROTO_TCP, flagSYN)
		frame[transportStart+3] = closedPort
		repeat := min(programRepeat, 10*b.options.Frames)
		for range b.options.Rounds {
			b.progress.step(w.Title)
			for _, x := range []struct {
				key, title string
				program    *ebpf.Program
			}{{keyEmpty, "empty program", empty}, {keyPortcullis, "Portcullis, native XDP", ours}} {
				verdict, took, err := x.program.Benchmark(frame, repeat, nil)
				if err != nil {
					return fmt.Errorf("run a program: %w", err)
				}
				if verdict != xdpDrop {
					return fmt.Errorf("%s: the program returned %d and not XDP_DROP", x.title, verdict)
				}
				b.value(w, x.key, x.title, float64(took.Nanoseconds()))
			}
			if err := b.ctx.Err(); err != nil {
				return err
			}
		}
		return nil
	})
}

// filtered does work inside a stand where Portcullis filters, with the policy file if one is named.
func (b *bench) filtered(config string, work func(*stand, *loader.Filter) error) (err error) {
	s, err := newStand(true)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	return s.inside.do(func() error {
		p := policy.Default()
		p.Interfaces = []string{s.to.name}
		_, err := loader.Up(context.Background(), loader.Options{PinPath: pinPath, Interfaces: p.Interfaces, Mode: loader.ModeNative, Policy: p, Config: config})
		if err != nil {
			return err
		}
		filter, err := loader.Open(context.Background(), pinPath)
		if err != nil {
			return err
		}
		defer filter.Close()
		return work(s, filter)
	})
}

// firstOpened is the first port that openPort opens; each time it is another one.
const firstOpened = 2000

// freed is how long the kernel may take to free the maps of a round.
const freed = 50 * time.Millisecond

// openPort measures how long it takes to open one port: in the running filter, and with the whole command.
func (b *bench) openPort() error {
	dir, err := os.MkdirTemp("", "portcullis-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	self := filepath.Join(dir, "portcullis")
	if err := copySelf(self); err != nil {
		return err
	}
	config := filepath.Join(dir, "portcullis.yaml")
	if err := os.WriteFile(config, []byte("interfaces: [inside]\nopen: []\n"), 0o600); err != nil {
		return err
	}
	tools, closeTools, err := b.openers()
	if err != nil {
		return err
	}
	defer closeTools()
	writes := Work{Key: "open-port-writes", Title: "One port opened: the map writes", Unit: Microseconds}
	inFilter := Work{Key: "open-port-filter", Title: "One port opened: by a process that holds the filter open", Unit: Microseconds}
	command := Work{Key: "open-port-command", Title: "One port opened: the whole command", Unit: Microseconds, Baseline: keyFloor}
	return b.filtered(config, func(_ *stand, f *loader.Filter) error {
		tools = append([]opener{
			{keyFloor, "a process that does nothing", nil, "true", func(int) []string { return nil }},
			{keyVersion, "portcullis version", nil, self, func(int) []string { return []string{"version"} }},
			{keyPortcullis, "portcullis open", nil, self, func(port int) []string {
				return []string{"--pin-path", pinPath, "--config", config, "open", fmt.Sprintf("%d/tcp", port)}
			}},
		}, tools...)
		for round := range b.options.Rounds {
			b.progress.step(command.Title)
			took, err := writeRules()
			if err != nil {
				return err
			}
			b.value(writes, keyPortcullis, "Portcullis", micros(took))
			rule, err := policy.ParseRule(fmt.Sprintf("%d/tcp", firstOpened-1-round))
			if err != nil {
				return err
			}
			start := time.Now()
			if _, err := f.OpenRules([]policy.Rule{rule}, true); err != nil {
				return err
			}
			b.value(inFilter, keyPortcullis, "Portcullis", micros(time.Since(start)))
			// The maps of before are freed meanwhile, which would take turns with the first command.
			time.Sleep(freed)
			for _, t := range tools {
				took, err := t.open(firstOpened + round)
				if err != nil {
					return err
				}
				b.value(command, t.key, t.title, micros(took))
			}
			if err := b.ctx.Err(); err != nil {
				return err
			}
		}
		return nil
	})
}

// writeRules measures the map writes that open a port, in maps of their own: so many of them in a row that the clock
// costs nothing.
func writeRules() (each time.Duration, err error) {
	spec, err := bpf.LoadFirewall()
	if err != nil {
		return 0, err
	}
	maps.ResizeFlows(spec, 1) // it takes no part
	set, err := maps.NewSet(spec, nil)
	if err != nil {
		return 0, err
	}
	defer set.Close()
	if _, err := set.Ports(""); err != nil { // maps the memory, as a filter that is held open has it
		return 0, err
	}
	const opened = 100
	rules := make([]maps.Rule, opened)
	for i := range rules {
		r, err := policy.ParseRule(fmt.Sprintf("%d/tcp", firstOpened+i))
		if err != nil {
			return 0, err
		}
		rules[i] = maps.Rule{NumberedRule: policy.NumberedRule{ID: uint16(1 + i), Rule: r}}
	}
	start := time.Now()
	for i := range rules {
		if err := set.AddRules(rules[i : i+1]); err != nil {
			return 0, err
		}
	}
	return time.Since(start) / opened, nil
}

// copySelf makes what an installation makes of the program. As the linker left it, page by page through a mapping, it
// stands in the page cache in single pages, and takes a good half of a millisecond longer to start.
func copySelf(to string) error {
	from, err := os.Open("/proc/self/exe")
	if err != nil {
		return err
	}
	defer from.Close()
	program, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE, 0o700)
	if err != nil {
		return err
	}
	_, err = program.ReadFrom(onlyRead{from})
	return errors.Join(err, program.Close())
}

// onlyRead keeps a copy from being a reflink or a splice of pages.
type onlyRead struct{ io.Reader }

func micros(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1000 }

// opener is a command that opens a port.
type opener struct {
	key, title string
	stand      *stand // nil: the room that the caller is in
	name       string
	args       func(port int) []string
}

func (o *opener) open(port int) (took time.Duration, err error) {
	run := func() error {
		// What it says goes to a file: readers of pipes would take turns with it.
		said, err := os.CreateTemp("", "portcullis-bench-")
		if err != nil {
			return err
		}
		defer said.Close()
		defer os.Remove(said.Name())
		cmd := detached(o.name, o.args(port)...)
		cmd.Stdout, cmd.Stderr = said, said
		start := time.Now()
		err = cmd.Run()
		took = time.Since(start)
		if err != nil {
			text, _ := os.ReadFile(said.Name())
			return failed(cmd, err, text)
		}
		return nil
	}
	if o.stand == nil {
		err = run()
		return took, err
	}
	err = o.stand.inside.do(run)
	return took, err
}

// openers sets the other firewalls up, each on a stand of its own.
func (b *bench) openers() (out []opener, closeAll func(), err error) {
	var undo []func()
	closeAll = func() {
		for _, step := range undo {
			step()
		}
	}
	for i := range b.kinds {
		k := &b.kinds[i]
		o := opener{key: k.key, title: k.title}
		switch k.key {
		case keyIptables:
			o.name, o.args = "iptables", func(port int) []string {
				return []string{"-A", "INPUT", "-i", "inside", "-p", "tcp", "--dport", strconv.Itoa(port), "-j", "ACCEPT"}
			}
		case keyNft:
			o.name, o.args = "nft", func(port int) []string {
				return []string{fmt.Sprintf("add element ip bench ports { %d }", port)}
			}
		case keyXDPFilter:
			o.name, o.args = "xdp-filter", func(port int) []string {
				return []string{"port", "-p", "tcp", strconv.Itoa(port)}
			}
		default:
			continue
		}
		if o.stand, err = newStand(true); err != nil {
			closeAll()
			return nil, nil, err
		}
		undo = append(undo, func() { o.stand.close() })
		s := k.make()
		if err = o.stand.inside.do(func() error { return s.install(o.stand, scene{ports: 1, flows: 0}.rules(unix.IPPROTO_TCP)) }); err != nil {
			closeAll()
			return nil, nil, err
		}
		out = append(out, o)
	}
	return out, closeAll, nil
}
